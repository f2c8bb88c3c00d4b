//! Rules that a quantizer follows as it runs.

use serde::{Deserialize, Serialize};

/// What a codebook search minimises. Ties go to the lowest index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Squared distance, by its expansion `|e|^2 - 2 x e`.
    #[default]
    Euclidean,
    /// Squared distance summed channel by channel, `(x - e)^2`, each step rounded to f32.
    EuclideanDirect,
    /// Distance between unit vectors; the entry taken is the one as stored.
    Cosine,
}

/// How a residual quantizer takes the chosen entry `e` off the residual `r`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResidualRounding {
    /// `r - e`.
    #[default]
    Plain,
    /// `r - (r + (e - r))`, the straight-through form that some graphs keep.
    StraightThrough,
}

/// How FSQ bounds a channel and rounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FsqBound {
    /// `round(tanh(z + shift) * half - offset) / floor(L / 2)` with `half = (L - 1) (1 + margin) / 2`, an offset
    /// of 0.5 for even `L` and none for odd, and `shift = atanh(offset / half)`; half to even (Mentzer et al.
    /// 2023, appendix A.1).
    Tanh,
    /// The symmetric form on `[-1, 1]`: a hard clamp, `2 / (L - 1) * floor((L - 1) * (z + 1) / 2 + 0.5) - 1`.
    Symmetric,
}
