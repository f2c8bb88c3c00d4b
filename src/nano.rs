//! `nano-16k`: the spec of a codec that a microcontroller runs in real time, both ways.
//!
//! 16 kHz, 50 frames a second, causal; five of its codebooks are 1.5 kbit/s, ten 3 kbit/s, all twenty 6 kbit/s. Both
//! networks work at frame rate, on 100 rows a second: a short-time Fourier transform turns samples into levels and compressed
//! values, magnitudes and phases become samples by the inverse transform (Siuzdak 2023), and between them are ConvNeXt blocks
//! (Liu et al. 2022). So the cost is about parameters times 100 a second, a tenth of what convolutions over samples take. The
//! decoder looks 10 ms ahead. The activation is SiLU, which costs less than a third of the exact GELU's instructions on a core
//! without vectors. What else was tried: docs/nano.md.

use crate::{
    core::spec::{
        Activation, CodecSpec, Conv, ConvTranspose, Framing, Istft, Layer, LayerNorm, Linear, Metric, PadMode, Padding,
        Quantizer, Residual, ResidualRounding, SPEC_VERSION, Stft, Vq,
    },
    model_file::{OwnedTensor, TensorMap},
};

/// Samples of a row of the networks: 10 ms.
const ROW: u32 = 160;
/// Rows of a frame of codes.
const ROWS: u32 = 2;
/// Samples of a transform, on both sides.
const WINDOW: u32 = 2 * ROW;
const CHANNELS: u32 = 160;
const HIDDEN: u32 = 416;
/// Blocks of the encoder and of the decoder, for which small codebooks leave more.
const ENCODER_BLOCKS: usize = 4;
const DECODER_BLOCKS: usize = 5;
/// Taps of a block's depthwise convolution.
const TAPS: u32 = 7;
const LATENT: u32 = 64;
const CODEBOOKS: usize = 20;
const ENTRIES: u32 = 64;

/// The spec. Tensors are named `encoder.…`, `quantizer.{stage}.codebook` and `decoder.…`.
pub fn spec() -> CodecSpec {
    let stage = |i| {
        let (name, metric) = (format!("quantizer.{i}"), Metric::Euclidean);
        Quantizer::Vq(Vq { name, size: ENTRIES, dim: LATENT, metric, project_in: None, project_out: None })
    };
    CodecSpec {
        version: SPEC_VERSION,
        name: "nano-16k".into(),
        sample_rate: 16_000,
        channels: 1,
        hop: ROW * ROWS,
        latent: LATENT,
        framing: Framing::Stream,
        codebook_choices: vec![5, 10, 20],
        encoder: Some(encoder()),
        quantizer: Quantizer::Residual {
            stages: (0..CODEBOOKS).map(stage).collect(),
            project_in: None,
            project_out: None,
            rounding: ResidualRounding::Plain,
        },
        decoder: Some(decoder()),
    }
}

fn encoder() -> Vec<Layer> {
    let mut layers = vec![
        Layer::Stft(Stft { n_fft: WINDOW, hop: ROW, floor: 1e-3, power: 0.3 }),
        linear("encoder.embed", 3 * (WINDOW / 2 + 1), CHANNELS),
        norm("encoder.norm_in"),
    ];
    layers.extend((0..ENCODER_BLOCKS).map(|i| block(&format!("encoder.blocks.{i}"), 0)));
    layers.push(norm("encoder.norm_out"));
    layers.push(conv("encoder.latent", CHANNELS, LATENT, 2 * ROWS, ROWS, 1));
    layers
}

fn decoder() -> Vec<Layer> {
    let mut layers = vec![
        conv("decoder.embed", LATENT, CHANNELS, 3, 1, 1),
        Layer::ConvTranspose(ConvTranspose {
            name: "decoder.up".into(),
            input: CHANNELS,
            output: CHANNELS,
            kernel: ROWS,
            stride: ROWS,
            groups: 1,
            bias: true,
            trim_left: 0,
            trim_right: 0,
            blocks: None,
        }),
        norm("decoder.norm_in"),
    ];
    layers.extend((0..DECODER_BLOCKS).map(|i| block(&format!("decoder.blocks.{i}"), u32::from(i == 0))));
    layers.push(norm("decoder.norm_out"));
    layers.push(linear("decoder.head", CHANNELS, WINDOW + 2));
    layers.push(Layer::Istft(Istft { n_fft: WINDOW, hop: ROW }));
    layers
}

/// A convolution that looks back only, and fills up the last hop of a signal.
fn conv(name: &str, input: u32, output: u32, kernel: u32, stride: u32, groups: u32) -> Layer {
    let padding = Padding { mode: PadMode::Zero, left: kernel - stride, right: 0, complete: true };
    let name = name.into();
    Layer::Conv(Conv { name, input, output, kernel, stride, dilation: 1, groups, bias: true, padding, int8: None })
}

fn linear(name: &str, input: u32, output: u32) -> Layer {
    Layer::Linear(Linear { name: name.into(), input, output, bias: true })
}

fn norm(name: &str) -> Layer {
    Layer::LayerNorm(LayerNorm {
        name: name.into(),
        channels: CHANNELS,
        epsilon: 1e-6,
        row: None,
        rows: None,
        affine: true,
    })
}

/// A block that looks `ahead` rows ahead.
fn block(name: &str, ahead: u32) -> Layer {
    let mut depthwise = conv(&format!("{name}.depthwise"), CHANNELS, CHANNELS, TAPS, 1, CHANNELS);
    if let Layer::Conv(l) = &mut depthwise {
        (l.padding.left, l.padding.right) = (TAPS - 1 - ahead, ahead);
    }
    Layer::Residual(Residual {
        body: vec![
            depthwise,
            norm(&format!("{name}.norm")),
            linear(&format!("{name}.expand"), CHANNELS, HIDDEN),
            Layer::Activation(Activation::Silu),
            linear(&format!("{name}.reduce"), HIDDEN, CHANNELS),
            Layer::Scale { name: format!("{name}.layer_scale"), channels: CHANNELS },
        ],
        shortcut: Vec::new(),
        int8: None,
    })
}

/// Weights that were not trained, for measurements of speed and size: what goes through keeps its magnitude about, so
/// that codes and samples are of ordinary sizes and all different.
pub fn random_tensors(spec: &CodecSpec, seed: u64) -> TensorMap {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let tensors = spec.tensors().into_iter().map(|t| {
        let inputs: usize = t.shape.iter().skip(1).product();
        // A uniform number's variance is a third; the scales of normalisations are near one.
        let (middle, reach) = match t.shape.len() {
            1 if t.name.ends_with(".weight") => (1.0, 0.2),
            1 => (0.0, 0.3),
            _ => (0.0, (3.0 / inputs as f32).sqrt()),
        };
        let values: Vec<f32> = (0..t.shape.iter().product()).map(|_| middle + reach * uniform()).collect();
        (t.name, OwnedTensor::f32(&t.shape, &values))
    });
    TensorMap(tensors.collect())
}
