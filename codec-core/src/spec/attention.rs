//! Layers of transformers.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Layer normalisation over the channels of each row (Ba et al. 2016). Tensors, if `affine`: `name.weight` and
/// `name.bias`, `[channels]`; with `rows`, tables `[rows, channels]` of which row `row` is taken, which is adaptive
/// layer normalisation with a fixed condition (such as WavTokenizer's bandwidth).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Channels.
    pub channels: u32,
    /// Added to the variance.
    pub epsilon: f32,
    /// The row of the tables to take; set if and only if `rows` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
    /// Rows of the tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u32>,
    /// Whether there are a weight and a bias.
    pub affine: bool,
}

/// Multi-head attention of a signal to itself (Vaswani et al. 2017, section 3.2); scores are divided by
/// `sqrt(head_dim)`.
///
/// Tensors: `name.q.weight`, `name.k.weight`, `name.v.weight` `[heads * head_dim, channels]`, `name.out.weight`
/// `[channels, heads * head_dim]`, and the `.bias` of those that have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Prefix of the tensors' names.
    pub name: String,
    /// Channels of input and output.
    pub channels: u32,
    /// Heads.
    pub heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Which projections have a bias.
    #[serde(default)]
    pub bias: AttentionBias,
    /// Rotation of queries and keys by their position, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary: Option<Rotary>,
    /// Which rows a row attends to.
    pub span: Span,
    /// What is added to the output beside the attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Fsmn>,
}

/// Which projections of an [`Attention`] have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionBias {
    /// `name.q.bias`.
    pub q: bool,
    /// `name.k.bias`.
    pub k: bool,
    /// `name.v.bias`.
    pub v: bool,
    /// `name.out.bias`.
    pub out: bool,
}

/// Rotary position embedding (Su et al. 2021): pair `j` of a head's channels is turned by `position * theta^(-2j /
/// head_dim)`. Positions count from the first row of the signal, or of the block in [`Span::Blocks`], without limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotary {
    /// Base of the angles, usually 10000.
    pub theta: f32,
    /// Which channels make a pair.
    pub pairing: Pairing,
}

/// Which channels of a head a rotation turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// `j` and `j + head_dim / 2`.
    Halves,
    /// `2j` and `2j + 1`.
    Interleaved,
}

/// Which rows a row attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Span {
    /// Itself and rows before it.
    Causal {
        /// How many rows at most, itself included. Without a limit the whole signal is needed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<u32>,
    },
    /// All rows of its block; blocks follow each other from the first row on, and the last may be shorter.
    Blocks {
        /// Rows in a block.
        length: u32,
    },
    /// Every row. Needs the whole signal.
    Full,
}

/// Memory of a feedforward sequential memory network (Zhang et al. 2018; with attention: Gao et al. 2020):
/// the values plus a depthwise convolution over them, zero-padded, are added to the projected output. Tensor:
/// `name.memory.weight` `[channels, 1, kernel]`; `heads * head_dim` must be `channels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fsmn {
    /// Taps.
    pub kernel: u32,
    /// Zeros before the first row.
    pub left: u32,
    /// Zeros after the last row; `left + right = kernel - 1`.
    pub right: u32,
}
