//! `codec-core` and `.nac` for a web page, as plain WebAssembly exports that need no generated code.
//!
//! There is one session with four buffers: bytes, samples, codes and a text. The page asks for room in one, writes to it
//! in the module's memory, and calls what takes it. Calls that can fail return a number, or -1 with the reason as the
//! text. Memory may move in any call: look at it anew.

mod model;
mod picture;
mod session;

use std::cell::RefCell;

use session::Session;

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Session) -> T) -> T {
    SESSION.with_borrow_mut(f)
}

/// The number, or -1 with the reason as the text.
fn attempt(f: impl FnOnce(&mut Session) -> Result<usize, String>) -> i32 {
    with(|session| match f(session) {
        Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
        Err(reason) => {
            session.text = reason;
            -1
        }
    })
}

/// `len` zeros; null if there is no memory for them.
fn room<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> *mut T {
    buffer.clear();
    if buffer.try_reserve_exact(len).is_err() {
        return std::ptr::null_mut();
    }
    buffer.resize(len, T::default());
    buffer.as_mut_ptr()
}

/// Makes the byte buffer `len` long and returns where it is; null if there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn bytes_room(len: usize) -> *mut u8 {
    with(|s| room(&mut s.bytes, len))
}

/// As [`bytes_room`], for `len` samples (all channels, interleaved).
#[unsafe(no_mangle)]
pub extern "C" fn pcm_room(len: usize) -> *mut f32 {
    with(|s| room(&mut s.pcm, len))
}

/// Where the bytes are.
#[unsafe(no_mangle)]
pub extern "C" fn bytes_at() -> *const u8 {
    with(|s| s.bytes.as_ptr())
}

/// How many bytes there are.
#[unsafe(no_mangle)]
pub extern "C" fn bytes_len() -> usize {
    with(|s| s.bytes.len())
}

/// Where the samples are.
#[unsafe(no_mangle)]
pub extern "C" fn pcm_at() -> *const f32 {
    with(|s| s.pcm.as_ptr())
}

/// How many samples there are, all channels.
#[unsafe(no_mangle)]
pub extern "C" fn pcm_len() -> usize {
    with(|s| s.pcm.len())
}

/// Where the codes are, `[frames, codebooks]`.
#[unsafe(no_mangle)]
pub extern "C" fn codes_at() -> *const u16 {
    with(|s| s.codes.as_ptr())
}

/// How many codes there are.
#[unsafe(no_mangle)]
pub extern "C" fn codes_len() -> usize {
    with(|s| s.codes.len())
}

/// Where the text is, UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn text_at() -> *const u8 {
    with(|s| s.text.as_ptr())
}

/// How many bytes the text has.
#[unsafe(no_mangle)]
pub extern "C" fn text_len() -> usize {
    with(|s| s.text.len())
}

/// Takes the bytes as a model's deploy image. The text is then what is known of the model, as JSON.
#[unsafe(no_mangle)]
pub extern "C" fn load_model() -> i32 {
    attempt(Session::load_model)
}

/// Begins to encode a signal of `samples` samples (a channel) with so many codebooks.
#[unsafe(no_mangle)]
pub extern "C" fn encode_start(codebooks: usize, samples: f64) -> i32 {
    attempt(|s| s.encode_start(codebooks, samples as u64))
}

/// Encodes the samples, which go on where the last call ended; `finish` (not 0) ends the signal. Returns the number of
/// frames so far.
#[unsafe(no_mangle)]
pub extern "C" fn encode_step(finish: i32) -> i32 {
    attempt(|s| s.encode_step(finish != 0))
}

/// Begins to decode the codes; returns the number of frames.
#[unsafe(no_mangle)]
pub extern "C" fn decode_start() -> i32 {
    attempt(Session::decode_start)
}

/// Decodes about a second; the samples are then those of that. Returns the number of frames that are left.
#[unsafe(no_mangle)]
pub extern "C" fn decode_step() -> i32 {
    attempt(Session::decode_step)
}

/// Writes the codes as a `.nac` file to the bytes; returns how many these are.
#[unsafe(no_mangle)]
pub extern "C" fn write_nac() -> i32 {
    attempt(Session::write_nac)
}

/// Reads the bytes as a `.nac` file to the codes; returns the number of codebooks.
#[unsafe(no_mangle)]
pub extern "C" fn read_nac() -> i32 {
    attempt(Session::read_nac)
}

/// The spectrogram of the samples to the bytes: `columns` times `size / 2 + 1`, low frequencies first, from 100 dB below
/// full scale (0) to full scale (255). `length` is how many samples (a channel) the picture spans.
#[unsafe(no_mangle)]
pub extern "C" fn spectrogram(channels: usize, length: usize, columns: usize, size: usize) -> i32 {
    attempt(|s| {
        let picture = picture::spectrogram(&s.pcm, channels, length, columns, size);
        s.bytes = picture.ok_or_else(|| format!("no spectrogram of {columns} columns of {size} samples"))?;
        Ok(s.bytes.len())
    })
}
