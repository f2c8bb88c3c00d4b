use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use super::{Attention, LayerNorm, Linear};

/// One layer of an encoder or decoder. A `Vec<Layer>` runs in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Layer {
    /// Convolution over time.
    Conv(Conv),
    /// Transposed convolution over time.
    ConvTranspose(ConvTranspose),
    /// A pointwise function.
    Activation(Activation),
    /// `shortcut(x) + body(x)`.
    Residual(Residual),
    /// A running sum over branches of the same input.
    Parallel(Parallel),
    /// Long short-term memory over time.
    Lstm(Lstm),
    /// Group normalisation over time and the channels of a group. Needs the whole signal.
    GroupNorm(GroupNorm),
    /// Layer normalisation over the channels of each row.
    LayerNorm(LayerNorm),
    /// A linear map of each row. Tensors: `name.weight` `[output, input]`, `name.bias` `[output]`.
    Linear(Linear),
    /// Each channel times a value of its own (layer scale). Tensor: `name.scale` `[channels]`.
    Scale {
        /// Prefix of the tensor's name.
        name: String,
        /// Channels.
        channels: u32,
    },
    /// Multi-head attention of the signal to itself.
    Attention(Attention),
    /// At the end of the signal, append zeros until its length is a multiple of `multiple` rows.
    PadEnd {
        /// Rows.
        multiple: u32,
    },
    /// Cut rows off the ends of the signal.
    Trim {
        /// Rows cut off before the first.
        left: u32,
        /// Rows cut off after the last.
        right: u32,
    },
    /// Spectra to samples: an inverse short-time Fourier transform.
    Istft(Istft),
    /// Samples to a log-mel spectrogram. Needs the whole signal.
    LogMel(LogMel),
    /// Samples to the levels and compressed values of a spectrum.
    Stft(Stft),
    /// Noise added in proportion to a projection of the input.
    Noise(Noise),
    /// Real values onto an int8 grid.
    Quantize {
        /// The grid.
        grid: Grid,
    },
    /// An int8 grid back to real values.
    Dequantize {
        /// The grid.
        grid: Grid,
    },
}

/// An asymmetric int8 grid: `real = (q - zero_point) * scale`, q in `-128..=127`.
///
/// Between layers the engine carries `q - zero_point`, so that the real zero of padding and of initial
/// state is zero here too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Step between two neighbours.
    pub scale: f32,
    /// The integer that stands for zero, `-128..=127`.
    pub zero_point: i32,
}

/// Convolution over time. Tensors: `name.weight` `[output, input / groups, kernel]`, `name.bias`
/// `[output]`; an int8 convolution has i8 weights, i32 bias and `name.weight_scale` `[output]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Input channels.
    pub input: u32,
    /// Output channels.
    pub output: u32,
    /// Taps.
    pub kernel: u32,
    /// Input rows between two output rows.
    #[serde(default = "one")]
    pub stride: u32,
    /// Input rows between two taps.
    #[serde(default = "one")]
    pub dilation: u32,
    /// Channel groups; equal to `input` for a depthwise convolution.
    #[serde(default = "one")]
    pub groups: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// What is put before and after the signal.
    pub padding: Padding,
    /// Set for a statically quantised convolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8>,
}

/// The grids of a statically quantised int8 layer. Sums are exact integers; the result is
/// `round_half_even(sum * (input.scale * weight_scale[c] / output.scale))`, clamped to the grid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Int8 {
    /// Grid of the input.
    pub input: Grid,
    /// Grid of the output.
    pub output: Grid,
}

/// Padding of a convolution, in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Padding {
    /// What the rows hold.
    pub mode: PadMode,
    /// Rows before the first.
    pub left: u32,
    /// Rows after the last.
    pub right: u32,
    /// Complete the last hop: pad further on the right until the last window is full, so that no row
    /// of the input is dropped.
    #[serde(default)]
    pub complete: bool,
}

/// What padding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PadMode {
    /// Zeros.
    Zero,
    /// The signal mirrored at its end rows, these not repeated. A signal no longer than the padding is
    /// first extended by zeros, and what the zeros added is cut off again (EnCodec's rule).
    Reflect,
    /// The end row repeated.
    Replicate,
}

/// Transposed convolution over time. Tensors: `name.weight` `[input, output / groups, kernel]`,
/// `name.bias` `[output]`.
///
/// The full result has `(T - 1) * stride + kernel` rows; `trim_left` and `trim_right` are cut off.
/// A negative `trim_right` (output padding) appends rows that hold the bias alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Input channels.
    pub input: u32,
    /// Output channels.
    pub output: u32,
    /// Taps.
    pub kernel: u32,
    /// Output rows between two input rows.
    pub stride: u32,
    /// Channel groups.
    #[serde(default = "one")]
    pub groups: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// Rows cut off before the first.
    pub trim_left: u32,
    /// Rows cut off after the last; negative for output padding.
    pub trim_right: i32,
    /// Set where the result is defined block by block, see [`Blocks`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// A transposed convolution that is *defined* as overlap-add over blocks of input rows, so that its
/// rounding follows the blocks: each block gives `(rows - 1) * stride + kernel` rows, bias included; the
/// first `kernel - stride` get the tail of the block before added, and the new tail less the bias is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// Input rows in a block.
    pub rows: u32,
    /// Set for a statically quantised layer: weights i8, bias i32, `name.weight_scale` `[groups]`,
    /// and `name.state_bias` `[output]`, what is taken off the tail. The output of the layer is real.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<BlocksInt8>,
}

/// Grids of a statically quantised [`Blocks`] layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlocksInt8 {
    /// Grid of the input.
    pub input: Grid,
    /// Grid of each group's output, which is turned to real values before the overlap-add.
    pub outputs: Vec<Grid>,
}

/// A pointwise function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Activation {
    /// `x` where positive, else `alpha * (exp(x) - 1)`.
    Elu {
        /// Usually 1.
        alpha: f32,
    },
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        /// Slope below zero.
        slope: f32,
    },
    /// `x + sin(a x)^2 / (a + 1e-9)` with `a` from the tensor `name.alpha` `[channels]`
    /// (Ziyin et al. 2020; Kumar et al. 2023).
    Snake {
        /// Prefix of the tensor's name.
        name: String,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks & Gimpel 2016), the exact form.
    Gelu,
    /// `x / (1 + exp(-x))`, also called swish (Elfwing et al. 2018).
    Silu,
    /// [`Activation::LeakyRelu`] between two int8 grids, in XNNPACK's fixed point with 8 fraction bits.
    LeakyReluInt8 {
        /// Slope below zero.
        slope: f32,
        /// Grid of the input.
        input: Grid,
        /// Grid of the output.
        output: Grid,
    },
}

/// `shortcut(x) + body(x)`; an empty shortcut is the identity. Both must keep the number of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// The main path.
    pub body: Vec<Layer>,
    /// The other path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcut: Vec<Layer>,
    /// Set when both paths carry int8 grids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<AddInt8>,
}

/// Addition of two int8 grids onto a third, in XNNPACK's fixed point with 20 fraction bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddInt8 {
    /// Grid of the body's result.
    pub body: Grid,
    /// Grid of the shortcut's result.
    pub shortcut: Grid,
    /// Grid of the sum.
    pub output: Grid,
}

/// `s = 0; for b in branches { s = b.then(s + b.body(x)) }; s / divisor`. All paths keep the number of
/// rows. With an empty `then` and `divisor = branches.len()` it is the mean of parallel branches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    /// In the order in which they are added.
    pub branches: Vec<Branch>,
    /// What the sum is divided by.
    pub divisor: f32,
}

/// A branch of [`Parallel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// Applied to the input.
    pub body: Vec<Layer>,
    /// Applied to the running sum after this branch was added to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Layer>,
}

/// Long short-term memory, gates in the order input, forget, cell, output, zero initial state. Tensors of
/// layer `l`: `name.weight_ih_l{l}` `[4 * hidden, in]`, `name.weight_hh_l{l}` `[4 * hidden, hidden]`,
/// `name.bias_ih_l{l}`, `name.bias_hh_l{l}` `[4 * hidden]`; the backward half has the suffix `_reverse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lstm {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Input channels.
    pub input: u32,
    /// Hidden channels a direction.
    pub hidden: u32,
    /// Stacked layers.
    pub layers: u32,
    /// Forward and backward halves, concatenated in this order. Needs the whole signal.
    pub bidirectional: bool,
    /// Add the input to the output (repeated along channels where the output is wider).
    pub skip: bool,
}

/// Group normalisation (Wu & He 2018) over all of time. Tensors: `name.weight`, `name.bias` `[channels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNorm {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Channels.
    pub channels: u32,
    /// Groups of neighbouring channels.
    pub groups: u32,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Inverse short-time Fourier transform (Vocos: Siuzdak 2023, section 3.3). The input has `n_fft + 2` channels:
/// first the logarithms of the `n_fft / 2 + 1` magnitudes (`min(exp(x), 100)`), then their phases in radians. The
/// output is one channel of `hop` rows a frame.
///
/// Each frame's inverse transform is windowed (Hann, periodic, `n_fft` long) and overlap-added, `(n_fft - hop) / 2`
/// rows are cut off at both ends, and what is left is divided by the sum of the squared windows there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Istft {
    /// Length of the transform and of the window: even, with no prime factor above 5.
    pub n_fft: u32,
    /// Output rows a frame, at most `n_fft`; `n_fft - hop` is even.
    pub hop: u32,
}

/// Short-time Fourier transform of one channel, for a causal encoder: a row of `3 (n_fft / 2 + 1)` channels every `hop`
/// samples, a hop that the signal begins being filled up with zeros. Frame `t` is the `n_fft` samples that end with those
/// of hop `t` (zeros before the signal), under a periodic Hann window, not scaled. Of its values `X`, with
/// `p = |X|^2 + floor^2`, the channels are first all levels `log10(p) / 2`, then the real and then the imaginary parts of
/// `X p^((power - 1) / 2)`: the spectrum with its magnitudes raised to `power` (power-law compression as in Braun & Tashev
/// 2021, section 3), so that quiet parts count too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stft {
    /// Length of the transform and of the window: even, with no prime factor above 5.
    pub n_fft: u32,
    /// Samples between two frames, at most `n_fft`.
    pub hop: u32,
    /// The magnitude that counts as silence, `1.1e-19..=1.8e19`.
    pub floor: f32,
    /// The power of magnitudes, `0..=1`.
    pub power: f32,
}

/// Log-mel spectrogram of one channel, `mels` channels and one row every `hop` samples (Whisper: Radford et al. 2022,
/// section 2.2; S3Tokenizer): short-time Fourier transform with a periodic Hann window, centred, the signal mirrored
/// at its ends, the last frame dropped (so `rows = floor(samples / hop)`); power; triangular mel filters of equal area
/// (Slaney 1998) from 0 Hz to half the sample rate; `y = log10(max(x, 1e-10))`; `(max(y, max over all y - 8) + 4) / 4`.
///
/// The greatest value is that of the whole signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMel {
    /// Samples a second, for the filters.
    pub sample_rate: u32,
    /// Length of the transform and of the window: even, with no prime factor above 5.
    pub n_fft: u32,
    /// Samples between two frames, at most `n_fft / 2`.
    pub hop: u32,
    /// Filters.
    pub mels: u32,
}

/// `x + noise(t) * (weight · x)`, the noise one value a row (SNAC: Siuzdak et al. 2024). Tensor: `name.weight`
/// `[channels, channels, 1]`.
///
/// Without a seed, here or of the signal ([`crate::pipeline::Decoding::noise_seed`]), the noise is zero and the
/// layer is the identity. With one, row `t` (from the start of the
/// signal) of the layer with index `k` gets, in wrapping 64-bit arithmetic, `noise = u * sqrt(3)`, of unit variance, with
/// `u = (h >> 40) / 2^23 - 1`, `h = splitmix64(fnv1a64("noise.{k}") + t * 0x9E3779B97F4A7C15 + seed)`
/// (Steele et al. 2014; FNV-1a). So what a signal decodes to depends on its codes and on the seed alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Prefix of the tensor's name.
    pub name: String,
    /// Channels.
    pub channels: u32,
    /// Which of the model's noise layers this is, from 0 in the order in which they run.
    pub index: u32,
    /// Seed of the noise, where the signal has none of its own; none for no noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

fn one() -> u32 {
    1
}
