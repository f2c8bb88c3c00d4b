use alloc::{boxed::Box, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use super::{FsqBound, Metric, ResidualRounding};

/// How a latent becomes codes. Quantizers compose: a residual one of grouped ones of plain ones, say.
///
/// Codes of a frame are listed depth first in the order of the parts, so a prefix of a residual
/// quantizer's codes is the coding with fewer codebooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Quantizer {
    /// One codebook.
    Vq(Vq),
    /// Each stage quantises what the stages before left over.
    Residual {
        /// In order.
        stages: Vec<Quantizer>,
        /// Projection before the first stage.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_in: Option<Linear>,
        /// Projection after the sum of the stages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_out: Option<Linear>,
        /// How the residual is rounded.
        #[serde(default)]
        rounding: ResidualRounding,
    },
    /// The channels are cut into equal neighbouring groups, each with a quantizer of its own.
    Grouped {
        /// In order of the channels.
        groups: Vec<Quantizer>,
    },
    /// Each part quantises the same latent afresh, and their outputs are added (Mimi: Défossez et al. 2024,
    /// section 3.1.3, a semantic codebook beside acoustic residual ones).
    Split {
        /// In the order of their codes.
        parts: Vec<Quantizer>,
    },
    /// Quantises the averages of `stride` neighbouring rows, and repeats what it decodes that often. As a stage of a
    /// residual quantizer it is a level of its own rate (SNAC: Siuzdak et al. 2024, section 3.1).
    ///
    /// A *frame* of codes is then as many rows of the latent as the largest stride, which all others divide. This quantizer has
    /// `rows / stride` codes a codebook in it: in the order of time, and at one time in the order of the codebooks.
    Rated {
        /// Rows of the latent for a code.
        stride: u32,
        /// One without parts: not residual, grouped, split or rated.
        inner: Box<Quantizer>,
    },
    /// Finite scalar quantisation (Mentzer et al. 2023).
    Fsq(Fsq),
    /// Lookup-free quantisation: the sign of each channel (Yu et al. 2023), most significant bit first.
    Lfq {
        /// Channels and so bits of one codebook.
        bits: u32,
        /// Codebooks, each on `bits` channels of the projection.
        codebooks: u32,
        /// Projection to `bits * codebooks` channels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_in: Option<Linear>,
        /// Projection back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_out: Option<Linear>,
    },
    /// Random projection (BEST-RQ, Chiu et al. 2022): layer norm without affine, projection, unit length,
    /// largest dot product. It has no inverse. Tensors: `name.projection` `[input, dim]`,
    /// `name.codebook` `[size, dim]`.
    RandomProjection {
        /// Prefix of the tensors' names.
        name: String,
        /// Channels of the input.
        input: u32,
        /// Channels of the codebook.
        dim: u32,
        /// Entries.
        size: u32,
    },
    /// Multi-codebook quantisation with iterative refinement (Guo et al. 2022): the sum of one center a
    /// codebook. Tensors: `name.centers` `[codebooks, size, dim]` (scale folded in), `name.to_logits.weight`
    /// `[codebooks * size, dim]` (scale folded in), `name.to_logits.bias` `[codebooks * size]`.
    Mvq {
        /// Prefix of the tensors' names.
        name: String,
        /// Channels.
        dim: u32,
        /// Codebooks.
        codebooks: u32,
        /// Entries in each.
        size: u32,
        /// Refinement passes.
        refinements: u32,
    },
}

/// One codebook. Tensor: `name.codebook` `[size, dim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vq {
    /// Prefix of the tensor's name.
    pub name: String,
    /// Entries.
    pub size: u32,
    /// Channels of an entry.
    pub dim: u32,
    /// What "nearest" means.
    #[serde(default)]
    pub metric: Metric,
    /// Projection to `dim` channels, before the search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_in: Option<Box<Linear>>,
    /// Projection of the chosen entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_out: Option<Box<Linear>>,
}

/// Finite scalar quantisation. Codes are `sum level_i * prod(levels[..i])`: the first level is fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fsq {
    /// Levels of each channel.
    pub levels: Vec<u32>,
    /// How a channel is bounded and rounded.
    pub bound: FsqBound,
    /// Residual stages, each a code; 1 for plain FSQ. Stage `i` works at scale `levels^-i`
    /// ([`FsqBound::Symmetric`] only).
    #[serde(default = "one")]
    pub stages: u32,
    /// Before the first stage, `x = c tanh(x / c)` with `c = 1 + 1 / (L - 1)` ([`FsqBound::Symmetric`] only;
    /// ResidualFSQ of vector-quantize-pytorch 1.32).
    #[serde(default)]
    pub soft_clamp: bool,
    /// How far [`FsqBound::Tanh`] reaches beyond the outermost levels, relative to their distance from the
    /// middle; -0.001 in S3Tokenizer v2.
    #[serde(default = "margin")]
    pub margin: f32,
    /// Projection to `levels.len()` channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_in: Option<Linear>,
    /// Projection back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_out: Option<Linear>,
}

fn one() -> u32 {
    1
}

fn margin() -> f32 {
    1e-3
}

/// A dense layer. Tensors: `name.weight` `[output, input]`, `name.bias` `[output]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Input channels.
    pub input: u32,
    /// Output channels.
    pub output: u32,
    /// Whether there is a bias.
    pub bias: bool,
}
