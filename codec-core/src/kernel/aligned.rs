//! Memory for weights and activations, aligned to cache lines.

use alloc::{sync::Arc, vec, vec::Vec};
use core::{fmt, ops::Range};

/// A cache line of values.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: 16 f32 fill the 64 bytes exactly, and zero bytes are zeros.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: no padding, no invalid bit patterns, `Copy`, `repr(C)`.
unsafe impl bytemuck::Pod for Line {}

/// Values whose first lies on a 64-byte boundary.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }

    /// Makes room for `len` more values, zeros, at the next 64-byte boundary; returns where they start.
    pub fn extend(&mut self, len: usize) -> usize {
        let start = self.lines.len() * 16;
        self.lines.resize(self.lines.len() + len.div_ceil(16), Line([0.0; 16]));
        self.len = start + len;
        start
    }
}

impl AsRef<[f32]> for Aligned {
    fn as_ref(&self) -> &[f32] {
        let all: &[f32] = bytemuck::cast_slice(&self.lines);
        &all[..self.len]
    }
}

impl AsMut<[f32]> for Aligned {
    fn as_mut(&mut self) -> &mut [f32] {
        let all: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
        &mut all[..self.len]
    }
}

/// Packed weights.
pub(crate) enum Arena {
    /// Packed when the chain was built.
    Packed(Aligned),
    /// As [`Arena::Packed`], where alignment does not matter.
    Plain(Vec<f32>),
    /// In an image that somebody else keeps.
    Image(Arc<dyn AsRef<[u8]> + Send + Sync>, Range<usize>),
}

impl AsRef<[f32]> for Arena {
    fn as_ref(&self) -> &[f32] {
        match self {
            Self::Packed(values) => values.as_ref(),
            Self::Plain(values) => values,
            Self::Image(owner, range) => {
                let bytes = (**owner).as_ref().get(range.clone()).unwrap_or_default();
                bytemuck::try_cast_slice(bytes).unwrap_or_default()
            }
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.as_ref().len())
    }
}
