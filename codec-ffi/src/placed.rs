//! Encoders and decoders in memory of the caller's: a handle, and behind it the engine's block of state.

use std::{ffi::c_void, slice};

use codec::{
    Model,
    core::{
        kernel::{Compute, Isa},
        pipeline::{self, Coding, Decoding},
    },
};

use crate::{
    args::{self, Args, Out},
    codec_decoder, codec_decoder_options, codec_encoder, codec_encoder_options, codec_model,
    codec_status::*,
    codec_unit,
    decoder::{Decode, Part, noise_seed},
    encoder::Encode,
    handle::{self, Handle, Kind},
    model::{self, Shared},
    status::Failure,
    structs,
};

/// What the memory of codec_encoder_init and codec_decoder_init must be aligned to, in bytes.
pub const CODEC_STATE_ALIGN: usize = 64;

/// A block of state behind a handle, and how it is used.
#[derive(Clone, Copy)]
#[repr(C)]
struct Block {
    model: *const codec_model,
    bytes: usize,
    /// Which of the model's codes of a frame is the first, and codes a frame.
    first: usize,
    codebooks: usize,
    channels: usize,
    /// Items (samples to encode, frames to decode) of a step, what such a step gives at most, and the end.
    step: usize,
    gives: usize,
    at_end: usize,
}

/// The body of a `codec_encoder` in memory of the caller's.
#[repr(C)]
pub(crate) struct PlacedEncoder(Block);

/// The body of a `codec_decoder` in memory of the caller's.
#[repr(C)]
pub(crate) struct PlacedDecoder(Block);

impl Kind for PlacedEncoder {
    type Opaque = codec_encoder;
    const NAME: &'static str = "codec_encoder";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecENP");

    fn extent(&self) -> usize {
        offset::<Self>().saturating_add(self.0.bytes)
    }
}

impl Kind for PlacedDecoder {
    type Opaque = codec_decoder;
    const NAME: &'static str = "codec_decoder";
    const MAGIC: u64 = u64::from_le_bytes(*b"codecDEP");

    fn extent(&self) -> usize {
        offset::<Self>().saturating_add(self.0.bytes)
    }
}

/// Where the block begins, from the start of the memory.
const fn offset<T>() -> usize {
    size_of::<Handle<T>>().next_multiple_of(CODEC_STATE_ALIGN)
}

impl Block {
    /// Bytes of the memory.
    fn size<T>(&self) -> Result<usize, Failure> {
        let size = offset::<T>().checked_add(self.bytes).filter(|size| *size <= isize::MAX as usize);
        size.ok_or_else(|| Failure::new(CODEC_ERROR_MEMORY, "the state is larger than memory can be"))
    }

    /// What `items` of them can give, at most; none are the end of the signal.
    fn most(&self, items: usize) -> usize {
        if items == 0 { self.at_end } else { items.div_ceil(self.step.max(1)).saturating_mul(self.gives) }
    }

    fn check_memory(&self, max_memory: u64) -> Result<(), Failure> {
        if max_memory == 0 || self.bytes as u64 <= max_memory {
            return Ok(());
        }
        let text = format!("the state takes {} bytes and max_memory is {max_memory}", self.bytes);
        Err(Failure::new(CODEC_ERROR_MEMORY, text))
    }
}

/// Lays a handle into the caller's memory and lets `state` fill the block behind it.
///
/// # Safety
/// The pointers are null, misaligned or valid, `memory` for writing `size` bytes.
unsafe fn place<T: Kind>(
    (memory, size): (*mut c_void, usize),
    needed: usize,
    body: T,
    out: *mut *mut T::Opaque,
    state: impl FnOnce(&mut [u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    args::check(out, 1, T::NAME)?;
    args::check(memory.cast::<u8>(), size, "memory")?;
    if memory.addr() % CODEC_STATE_ALIGN != 0 {
        let text = format!("`memory` does not lie at a multiple of {CODEC_STATE_ALIGN} bytes");
        return Err(Failure::new(CODEC_ERROR_MISALIGNED, text));
    }
    if size < needed {
        let text = format!("`memory` has {size} bytes and needs {needed}");
        return Err(Failure::new(CODEC_ERROR_BUFFER_TOO_SHORT, text));
    }
    let mut args = Args::default();
    args.note(memory.cast::<u8>(), needed, "memory", true);
    args.note(out, 1, T::NAME, true);
    args.disjoint()?;
    let bytes = memory.cast::<u8>();
    // SAFETY: `needed` bytes may be written there; they are zeros before a slice of them is made.
    let block = unsafe {
        out.write(std::ptr::null_mut());
        bytes.write_bytes(0, needed);
        slice::from_raw_parts_mut(bytes.add(offset::<T>()), needed - offset::<T>())
    };
    state(block)?;
    // SAFETY: aligned to more than a handle asks for, and large enough. Only now it has its magic word.
    unsafe {
        bytes.cast::<Handle<T>>().write(Handle::new(body));
        out.write(memory.cast());
    }
    Ok(())
}

/// The block behind a handle.
///
/// # Safety
/// `handle` is a handle of this kind in memory that [`place`] filled, or a copy of it, and nobody else uses it in `'a`.
unsafe fn behind<'a, T: Kind>(handle: *mut T::Opaque, bytes: usize) -> &'a mut [u8] {
    // SAFETY: `place` wrote all of it, and this function's condition.
    unsafe { slice::from_raw_parts_mut(handle.cast::<u8>().add(offset::<T>()), bytes) }
}

/// The engine on the calling thread.
fn compute() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// Fails for what a state in the caller's memory cannot do.
fn check(model: &Model, chain: &pipeline::Chain, encodes: bool, threads: u32) -> Result<(), Failure> {
    if threads > 1 {
        let text = "a state in memory of the caller's computes with one thread";
        return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
    }
    let why = match model::unit(model, chain, encodes) {
        codec_unit::CODEC_UNIT_SEGMENT => "it cuts signals into segments".to_owned(),
        codec_unit::CODEC_UNIT_WINDOW => "it cuts signals into windows".to_owned(),
        codec_unit::CODEC_UNIT_SIGNAL => {
            format!("it needs whole signals ({})", chain.plan().whole.as_deref().unwrap_or_default())
        }
        codec_unit::CODEC_UNIT_STEP | codec_unit::CODEC_UNIT_NONE => return Ok(()),
    };
    let text = format!("{} does not stream: {why}; use the _create function", model.spec().name);
    Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text))
}

impl PlacedEncoder {
    fn coding(options: &codec_encoder_options, first: usize, codebooks: usize) -> Coding {
        Coding { first, codebooks, beam: options.beam.max(1) as usize, merged: options.merged_codebooks as usize }
    }

    /// The memory that an encoder needs, and its handle's body.
    ///
    /// # Safety
    /// The pointer is null, misaligned or a handle.
    pub(crate) unsafe fn plan(
        model: *const codec_model,
        options: codec_encoder_options,
    ) -> Result<(usize, Self), Failure> {
        // SAFETY: this function's condition.
        let loaded = unsafe { &handle::body::<Shared>(model)?.0.model };
        let encoder = loaded.encoder_plan()?;
        check(loaded, encoder.chain(), true, options.threads)?;
        let frames = options.step_frames.max(1) as usize;
        let (first, codebooks) = model::codebooks(loaded, options.first_codebook, options.codebooks)?;
        let coding = Self::coding(&options, first, codebooks);
        let step = frames.saturating_mul(loaded.spec().hop as usize);
        let block = Block {
            model,
            bytes: encoder.state_bytes(frames, &coding),
            first,
            codebooks,
            channels: loaded.spec().channels as usize,
            step,
            gives: encoder.max_frames(step),
            at_end: encoder.max_frames(0),
        };
        block.check_memory(options.max_memory)?;
        Ok((block.size::<Self>()?, Self(block)))
    }

    /// # Safety
    /// The pointers are null, misaligned or valid, `memory` for writing its size.
    pub(crate) unsafe fn init(
        memory: (*mut c_void, usize),
        model: *const codec_model,
        options: codec_encoder_options,
        out: *mut *mut codec_encoder,
    ) -> Result<(), Failure> {
        // SAFETY: this function's condition.
        unsafe {
            let (size, body) = Self::plan(model, options)?;
            let encoder = handle::body::<Shared>(model)?.0.model.encoder_plan()?;
            let frames = options.step_frames.max(1) as usize;
            let coding = Self::coding(&options, body.0.first, body.0.codebooks);
            place(memory, size, body, out, |block| Ok(encoder.init(block, frames, &coding)?))
        }
    }

    /// The encoder of a handle.
    ///
    /// # Safety
    /// `handle` is the handle of this body, and nobody else uses it.
    pub(crate) unsafe fn view<'a>(&self, handle: *mut codec_encoder) -> Result<impl Encode + use<'a>, Failure> {
        // SAFETY: this function's condition; the model stays, as documented.
        unsafe {
            let plan = handle::body::<Shared>(self.0.model)?.0.model.encoder_plan()?;
            Ok(View { block: self.0, plan, state: behind::<Self>(handle, self.0.bytes) })
        }
    }
}

impl PlacedDecoder {
    /// As [`PlacedEncoder::plan`].
    ///
    /// # Safety
    /// The pointer is null, misaligned or a handle.
    pub(crate) unsafe fn plan(
        model: *const codec_model,
        options: codec_decoder_options,
    ) -> Result<(usize, Self), Failure> {
        // SAFETY: this function's condition.
        let loaded = unsafe { &handle::body::<Shared>(model)?.0.model };
        let decoder = loaded.decoder_plan()?;
        structs::unused(options.reserved)?;
        check(loaded, decoder.chain(), false, options.threads)?;
        if !decoder.quantizer().can_decode() {
            let text = "this model's quantizer has no inverse: its codes cannot be decoded";
            return Err(Failure::new(CODEC_ERROR_UNSUPPORTED, text));
        }
        let (first, codebooks) = model::codebooks(loaded, options.first_codebook, options.codebooks)?;
        decoder.check(&Decoding { first, codebooks, noise_seed: noise_seed(&options)? })?;
        let frames = options.step_frames.max(1) as usize;
        let rows = decoder.quantizer().rows_per_frame();
        let block = Block {
            model,
            bytes: decoder.state_bytes(frames),
            first,
            codebooks,
            channels: loaded.spec().channels as usize,
            step: frames,
            gives: decoder.chain().max_output_rows(frames.saturating_mul(rows)),
            at_end: decoder.chain().max_output_rows(0),
        };
        block.check_memory(options.max_memory)?;
        Ok((block.size::<Self>()?, Self(block)))
    }

    /// # Safety
    /// The pointers are null, misaligned or valid, `memory` for writing its size.
    pub(crate) unsafe fn init(
        memory: (*mut c_void, usize),
        model: *const codec_model,
        options: codec_decoder_options,
        out: *mut *mut codec_decoder,
    ) -> Result<(), Failure> {
        // SAFETY: this function's condition.
        unsafe {
            let (size, body) = Self::plan(model, options)?;
            let decoder = handle::body::<Shared>(model)?.0.model.decoder_plan()?;
            let Block { first, codebooks, step, .. } = body.0;
            let decoding = Decoding { first, codebooks, noise_seed: noise_seed(&options)? };
            place(memory, size, body, out, |block| Ok(decoder.init(block, step, &decoding)?))
        }
    }

    /// The decoder of a handle.
    ///
    /// # Safety
    /// As [`PlacedEncoder::view`].
    pub(crate) unsafe fn view<'a>(&self, handle: *mut codec_decoder) -> Result<impl Decode + use<'a>, Failure> {
        // SAFETY: this function's condition; the model stays, as documented.
        unsafe {
            let plan = handle::body::<Shared>(self.0.model)?.0.model.decoder_plan()?;
            Ok(View { block: self.0, plan, state: behind::<Self>(handle, self.0.bytes) })
        }
    }
}

/// A planned network and the state of a signal.
struct View<'a, P> {
    block: Block,
    plan: &'a P,
    state: &'a mut [u8],
}

impl Encode for View<'_, pipeline::Encoder> {
    fn channels(&self) -> usize {
        self.block.channels
    }

    fn codebooks(&self) -> usize {
        self.block.codebooks
    }

    fn max_frames(&self, samples: usize) -> usize {
        self.block.most(samples)
    }

    fn run(&mut self, pcm: &[f32], finish: bool, mut codes: Out<'_, u16>) -> Result<usize, Failure> {
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(codec::core::RunError::NotFinite { index }.into());
        }
        // Codes that were given out stay as they are.
        if pipeline::Encoder::is_finished_in(self.state)? {
            return Err(codec::core::RunError::Finished.into());
        }
        let step = self.block.step.saturating_mul(self.block.channels).max(1);
        let (mut rest, mut written) = (pcm, 0);
        loop {
            let (now, later) = rest.split_at(step.min(rest.len()));
            rest = later;
            let most = self.block.most(now.len() / self.block.channels.max(1));
            let room = codes.zeroed(written * self.block.codebooks, most.saturating_mul(self.block.codebooks));
            written += self.plan.step_in(compute(), self.state, now, finish, room)?;
            if rest.is_empty() {
                return Ok(written);
            }
        }
    }

    fn segments(&self) -> &[codec::Segment] {
        &[]
    }

    fn reset(&mut self) -> Result<(), Failure> {
        Ok(pipeline::Encoder::reset_in(self.state)?)
    }
}

impl Decode for View<'_, pipeline::Decoder> {
    fn channels(&self) -> usize {
        self.block.channels
    }

    fn codebooks(&self) -> usize {
        self.block.codebooks
    }

    fn sizes(&self) -> Result<&[u32], Failure> {
        let sizes = self.plan.quantizer().sizes();
        let Block { first, codebooks, .. } = self.block;
        Ok(sizes.get(first..first.saturating_add(codebooks)).unwrap_or_default())
    }

    fn is_segmented(&self) -> bool {
        false
    }

    fn max_samples(&self, frames: usize) -> usize {
        self.block.most(frames)
    }

    fn run(&mut self, codes: &[u16], what: Part, pcm: Out<'_, f32>) -> Result<usize, Failure> {
        let step = self.block.step.saturating_mul(self.block.codebooks).max(1);
        let (mut rest, mut written) = (codes, 0);
        loop {
            let (now, later) = rest.split_at(step.min(rest.len()));
            rest = later;
            let made = self.plan.step_in(compute(), self.state, now, what == Part::End)?;
            pcm.fill_from(written, made, "pcm")?;
            written += made.len();
            if rest.is_empty() {
                return Ok(written / self.block.channels.max(1));
            }
        }
    }

    fn reset(&mut self) -> Result<(), Failure> {
        Ok(pipeline::Decoder::reset_in(self.state)?)
    }
}
