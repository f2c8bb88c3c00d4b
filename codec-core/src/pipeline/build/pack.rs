//! Tensors to packed weights.

use alloc::{borrow::Cow, format, string::ToString};

use super::*;

impl<'t> Builder<'t> {
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'t>, BuildError> {
        tensor(self.tensors, name, shape)
    }

    pub(super) fn slot(&mut self, len: usize) -> Slot {
        Slot { offset: self.arena.extend(len), len }
    }

    pub(super) fn fill(&mut self, values: &[f32]) -> Slot {
        let slot = self.slot(values.len());
        self.arena.as_mut()[slot.offset..slot.offset + slot.len].copy_from_slice(values);
        slot
    }

    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<Slot, BuildError> {
        let values = self.tensor(name, &[len])?.values();
        Ok(self.fill(&values))
    }

    /// What a tensor is packed in.
    pub(super) fn precision(&self, w: &Source<'_>) -> Precision {
        if w.half && self.precision == Precision::F32 { Precision::F16 } else { self.precision }
    }

    /// As [`Builder::precision`], for products that int8 cannot do.
    pub(super) fn float(&self, w: &Source<'_>) -> Precision {
        if self.precision == Precision::I8 { Precision::F16 } else { self.precision(w) }
    }

    /// Packs the matrix of some columns over (tap, channel) into panels.
    pub(super) fn pack(
        &mut self,
        precision: Precision,
        columns: usize,
        at: &Strides,
        column: impl Fn(usize) -> usize,
        w: &Source<'_>,
    ) -> Result<Weight, BuildError> {
        self.pack_groups(precision, (1, columns), at, |_, o| column(o), w)
    }

    /// Packs a matrix for each of some groups of as many columns: the panels of one after those of the other.
    pub(super) fn pack_groups(
        &mut self,
        precision: Precision,
        (groups, columns): (usize, usize),
        at: &Strides,
        column: impl Fn(usize, usize) -> usize,
        w: &Source<'_>,
    ) -> Result<Weight, BuildError> {
        let depth = at.taps * at.channels;
        let len = kernel::PANEL * depth;
        let panels = columns.div_ceil(kernel::PANEL);
        let deep = precision == Precision::I8 && kernel::int8_levels(depth) < LEAST_LEVELS;
        let precision = if deep { Precision::F16 } else { precision };
        let words = match precision {
            Precision::F32 => len,
            Precision::F16 => len / 2,
            Precision::I8 => depth.next_multiple_of(2) * kernel::PANEL / 4,
        };
        let slot = self.slot(groups * panels * words);
        let mut scales = vec![0.0; if precision == Precision::I8 { groups * panels * kernel::PANEL } else { 0 }];
        let out = &mut self.arena.as_mut()[slot.offset..slot.offset + slot.len];
        let mut panel = vec![0.0f32; len];
        for (p, out) in out.chunks_exact_mut(words).enumerate() {
            let (group, from) = (p / panels, p % panels * kernel::PANEL);
            let lanes = kernel::PANEL.min(columns - from);
            let mut first = [0; kernel::PANEL];
            (0..lanes).for_each(|l| first[l] = column(group, from + l));
            for (k, row) in panel.chunks_exact_mut(kernel::PANEL).enumerate() {
                let offset = k / at.channels * at.tap + k % at.channels * at.channel;
                for (v, f) in row.iter_mut().zip(&first[..lanes]) {
                    *v = w[f + offset];
                }
                row[lanes..].fill(0.0);
            }
            match precision {
                Precision::F32 => out.copy_from_slice(&panel),
                Precision::F16 => {
                    if let Some(value) = panel.iter().find(|v| v.abs() > F16_MAX) {
                        return Err(BuildError::WeightRange { name: w.name.clone(), value: *value, most: F16_MAX });
                    }
                    let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                    out.iter_mut().zip(&panel).for_each(|(h, v)| *h = f32_to_f16(*v));
                }
                Precision::I8 => {
                    if let Some(value) = panel.iter().find(|v| !v.is_finite()) {
                        return Err(BuildError::WeightRange { name: w.name.clone(), value: *value, most: f32::MAX });
                    }
                    let scales = &mut scales[p * kernel::PANEL..(p + 1) * kernel::PANEL];
                    kernel::pack_int8(&panel, bytemuck::cast_slice_mut(out), scales);
                }
            }
        }
        let scales = if scales.is_empty() { None } else { Some(self.fill(&scales)) };
        Ok(Weight { slot, precision, scales })
    }
}

/// A tensor of a given shape.
pub(super) fn tensor<'t>(tensors: &'t dyn Tensors, name: &str, shape: &[usize]) -> Result<TensorView<'t>, BuildError> {
    let view = tensors.tensor(name).ok_or_else(|| BuildError::MissingTensor(name.to_string()))?;
    let bytes = shape.iter().try_fold(view.dtype.size(), |n, &s| n.checked_mul(s));
    if view.shape != shape || bytes != Some(view.bytes.len()) {
        return Err(BuildError::TensorMismatch {
            name: name.to_string(),
            expected: format!("{shape:?}"),
            found: format!("{:?} of {:?} in {} bytes", view.shape, view.dtype, view.bytes.len()),
        });
    }
    Ok(view)
}

/// The values of a weight, where they lie if possible.
pub(super) struct Source<'t> {
    pub(super) name: String,
    pub(super) values: Cow<'t, [f32]>,
    /// Whether they are stored as f16.
    pub(super) half: bool,
}

impl core::ops::Deref for Source<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

pub(super) fn weight<'t>(tensors: &'t dyn Tensors, name: &str, shape: &[usize]) -> Result<Source<'t>, BuildError> {
    let view = tensor(tensors, name, shape)?;
    Ok(Source { name: name.to_string(), values: view.values(), half: view.dtype == Dtype::F16 })
}

/// How the values of a weight lie: index = column's first + tap * `tap` + channel * `channel`.
pub(super) struct Strides {
    pub(super) taps: usize,
    pub(super) channels: usize,
    pub(super) tap: usize,
    pub(super) channel: usize,
}
