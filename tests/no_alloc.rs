//! No step allocates: while one runs, the allocator ends the program if it is called.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use codec::{
    core::{
        image::{Cut, Image, Meta, pack},
        kernel::{Aligned, Compute, Isa},
        pipeline::{Decoder, Encoder},
        spec::CodecSpec,
        weights::Precision,
    },
    nano,
};

// Of this thread: what runs the tests has threads of its own.
thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

struct Guard;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        called("alloc");
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        called("dealloc");
        // SAFETY: the caller's.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        called("realloc");
        // SAFETY: the caller's.
        unsafe { System.realloc(p, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Guard = Guard;

fn called(what: &str) {
    CALLS.set(CALLS.get() + 1);
    if FORBIDDEN.replace(false) {
        eprintln!("{what} in a step");
        std::process::abort();
    }
}

/// Runs `f`, in which nothing may be allocated.
fn without<R>(f: impl FnOnce() -> R) -> R {
    FORBIDDEN.set(true);
    let result = f();
    FORBIDDEN.set(false);
    result
}

/// Most kinds of layers, and quantizers in each other.
fn mixed() -> CodecSpec {
    let conv = |name: &str, input: u32, output: u32, kernel: u32, stride: u32| {
        format!(
            r#"{{"type":"conv","name":"{name}","input":{input},"output":{output},"kernel":{kernel},"stride":{stride},
            "bias":true,"padding":{{"mode":"reflect","left":{},"right":0,"complete":true}}}}"#,
            kernel - stride
        )
    };
    let vq = |name: &str| format!(r#"{{"type":"vq","name":"{name}","size":16,"dim":6}}"#);
    let text = format!(
        r#"{{"version":1,"name":"mixed","sample_rate":800,"channels":1,"hop":8,"latent":12,"framing":{{"type":"stream"}},
        "codebook_choices":[4],
        "encoder":[{},{{"type":"activation","function":"elu","alpha":1.0}},{},
            {{"type":"activation","function":"snake","name":"s"}},
            {{"type":"residual","body":[{},{{"type":"activation","function":"gelu"}}]}},
            {{"type":"attention","name":"t","channels":12,"heads":2,"head_dim":6,
              "rotary":{{"theta":100.0,"pairing":"halves"}},"span":{{"type":"causal","window":5}}}},
            {{"type":"lstm","name":"l","input":12,"hidden":12,"layers":2,"bidirectional":false,"skip":true}}],
        "quantizer":{{"type":"grouped","groups":[
            {{"type":"residual","stages":[{},{}]}},{{"type":"residual","stages":[{},{}]}}]}},
        "decoder":[{},{{"type":"layer-norm","name":"n","channels":10,"epsilon":1e-5,"affine":true}},
            {{"type":"conv-transpose","name":"up","input":10,"output":10,"kernel":4,"stride":2,"groups":1,"bias":true,
              "trim_left":0,"trim_right":2}},
            {{"type":"istft","n_fft":8,"hop":4}}]}}"#,
        conv("a", 1, 5, 4, 2),
        conv("b", 5, 12, 7, 4),
        conv("c", 12, 12, 3, 1),
        vq("q0"),
        vq("q1"),
        vq("q2"),
        vq("q3"),
        conv("d", 12, 10, 3, 1),
    );
    serde_json::from_str(&text).unwrap()
}

fn in_image(image: &Image<'_>, pcm: &[f32]) -> Vec<f32> {
    let cx = Compute { isa: Isa::detect(), pool: None };
    let (encoder, decoder, books) = (image.encoder().unwrap(), image.decoder().unwrap(), image.codebooks());
    let mut state = [Aligned::zeroed(encoder.state_bytes() / 4), Aligned::zeroed(decoder.state_bytes() / 4)];
    let [encode, decode] = &mut state;
    let (encode, decode): (&mut [u8], &mut [u8]) =
        (bytemuck::cast_slice_mut(encode.as_mut()), bytemuck::cast_slice_mut(decode.as_mut()));
    let mut codes = vec![0; encoder.max_frames() * books];
    let mut samples = Vec::with_capacity(2 * pcm.len() + 4096);
    without(|| {
        encoder.init(encode, books).unwrap();
        decoder.init(decode, books).unwrap();
        for piece in pcm.chunks(encoder.max_samples()) {
            let frames = encoder.step(cx, encode, piece, false, &mut codes).unwrap();
            for frame in codes[..frames * books].chunks(books) {
                samples.extend_from_slice(decoder.step(cx, decode, frame, false).unwrap());
            }
        }
        samples.extend_from_slice(decoder.step(cx, decode, &[], true).unwrap());
        encoder.reset(encode).unwrap();
        decoder.reset(decode).unwrap();
    });
    samples
}

fn in_memory(encoder: &Encoder, decoder: &Decoder, pcm: &[f32], beam: usize) -> Vec<f32> {
    let books = encoder.quantizer().codebooks();
    let hop = decoder.hop();
    let mut encode = encoder.state(1, books, beam).unwrap();
    let mut decode = decoder.state(1, books).unwrap();
    let mut codes = vec![0; encoder.max_frames(hop) * books];
    let mut samples = Vec::with_capacity(2 * pcm.len() + 4096);
    for isa in Isa::all_available() {
        let cx = Compute { isa, pool: None };
        samples.clear();
        without(|| {
            for piece in pcm.chunks(hop) {
                let frames = encoder.step(cx, &mut encode, piece, false, &mut codes).unwrap();
                for frame in codes[..frames * books].chunks(books) {
                    samples.extend_from_slice(decoder.step(cx, &mut decode, frame, false).unwrap());
                }
            }
            samples.extend_from_slice(decoder.step(cx, &mut decode, &[], true).unwrap());
            encode.reset();
            decode.reset();
        });
    }
    samples
}

#[test]
fn no_step_allocates() {
    for spec in [mixed(), nano::spec()] {
        let tensors = nano::random_tensors(&spec, 2);
        let (encoder, decoder) = (Encoder::new(&spec, &tensors).unwrap(), Decoder::new(&spec, &tensors).unwrap());
        let pcm: Vec<f32> = (0..40 * spec.hop).map(|i| (i as f32 * 0.05).sin() * 0.5).collect();
        let meta = Meta {
            sample_rate: spec.sample_rate,
            channels: spec.channels,
            hop: spec.hop,
            frames: 1,
            delay: Some(0),
            cut: Cut::Stream,
            precision: Precision::F32,
            fingerprint: [0; 16],
        };
        let bytes = pack(&meta, None, Some(&encoder), Some(&decoder)).unwrap();
        let mut memory = Aligned::zeroed(bytes.len().div_ceil(4));
        bytemuck::cast_slice_mut(memory.as_mut())[..bytes.len()].copy_from_slice(&bytes);
        let image: &[u8] = &bytemuck::cast_slice(memory.as_ref())[..bytes.len()];
        let image = without(|| Image::open(image).unwrap());
        let greedy = in_memory(&encoder, &decoder, &pcm, 1);
        assert!(greedy.len() >= pcm.len() - 2 * spec.hop as usize && greedy.iter().any(|v| *v != 0.0));
        assert_eq!(in_image(&image, &pcm), greedy);
        in_memory(&encoder, &decoder, &pcm, 4);
    }
    // The guard works: it saw what was allocated here.
    let before = CALLS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(CALLS.get(), before + 2);
}
