//! Lookup-free quantisation (Yu et al. 2023): a code is the signs of its channels.

use serde::{Deserialize, Serialize};

use super::program::{CodesMut, CodesRef};

/// `codebooks` codes a row, each from `bits` neighbouring channels, most significant first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Lfq {
    pub bits: usize,
    pub codebooks: usize,
}

impl Lfq {
    /// Codes of `x`, `[rows, bits * codebooks]`; a bit is set where the channel is positive.
    pub fn encode(&self, x: &[f32], codes: &mut CodesMut<'_>) {
        for (t, row) in x.chunks_exact(self.bits * self.codebooks).enumerate() {
            for (i, channels) in row.chunks_exact(self.bits).enumerate() {
                let code = channels.iter().fold(0u32, |code, &x| code << 1 | u32::from(x > 0.0));
                codes.set(t, i, code as usize);
            }
        }
    }

    /// 1 for a set bit and -1 for another; 0 in the channels of a codebook that is left out.
    pub fn decode(&self, codes: CodesRef<'_>, out: &mut [f32]) {
        for (t, row) in out.chunks_exact_mut(self.bits * self.codebooks).enumerate() {
            for (i, channels) in row.chunks_exact_mut(self.bits).enumerate() {
                let code = codes.get(t, i);
                for (bit, o) in channels.iter_mut().rev().enumerate() {
                    *o = code.map_or(0.0, |code| if code >> bit & 1 == 1 { 1.0 } else { -1.0 });
                }
            }
        }
    }
}
