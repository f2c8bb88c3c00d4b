//! Named tensors, borrowed from bytes.

mod half;

use serde::{Deserialize, Serialize};

pub use half::{F16_MAX, f16_to_f32, f32_to_bf16, f32_to_f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integer.
    I8,
    /// 32-bit integer.
    I32,
}

impl Dtype {
    /// Bytes an element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }
}

/// How packed weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Precision {
    /// As they are stored: in f32, and tensors of f16 in f16, which changes no value.
    #[default]
    F32,
    /// In f16, rounded to nearest: half the memory, and close to twice the speed where reading weights is what takes
    /// the time (single frames, LSTMs).
    F16,
    /// In int8 with a scale for each output channel, and the layer's input rounded to 16 bits or as many as the sums have
    /// room for, with a scale for each output row. Results are the same on every machine, with and without fused
    /// multiply-add. LSTMs, and sums too deep for it, are held in f16.
    I8,
}

/// A tensor's type, shape and little-endian bytes, row-major.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// `dtype.size() * product(shape)` bytes.
    pub bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Element `index` as f32 (exact for every type but large i32); 0 out of range.
    pub fn get(&self, index: usize) -> f32 {
        let size = self.dtype.size();
        let Some(b) = self.bytes.get(index * size..(index + 1) * size) else { return 0.0 };
        match (self.dtype, b) {
            (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Dtype::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32,
            (Dtype::Bf16, &[a, b]) => f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16),
            (Dtype::F16, &[a, b]) => f16_to_f32(u16::from_le_bytes([a, b])),
            (Dtype::I8, &[a]) => f32::from(a as i8),
            _ => 0.0,
        }
    }

    /// All elements, where they lie if that is possible.
    #[cfg(feature = "alloc")]
    pub fn values(&self) -> alloc::borrow::Cow<'a, [f32]> {
        match self.as_f32() {
            Some(values) => values.into(),
            None => (0..self.len()).map(|i| self.get(i)).collect(),
        }
    }

    /// The elements as they lie, if they are f32, aligned, and the machine is little-endian.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        if self.dtype != Dtype::F32 || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes).ok()
    }
}

/// Where tensors come from: a model file, an image in flash, a trainer, a test.
pub trait Tensors {
    /// The tensor of this name.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;
}
