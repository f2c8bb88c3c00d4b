//! Finite scalar quantisation, plain and residual. In f32 whatever the network computes in: half precision cannot tell the levels
//! of neighbouring stages apart.

use burn::tensor::{FloatDType, Tensor};
use codec_core::spec::{Fsq, FsqBound};

use super::{BookUse, Coded, Pass, straight};
use crate::TrainError;

impl Pass<'_> {
    pub(super) fn fsq(&mut self, f: &Fsq, x: Tensor<2>) -> Result<Coded, TrainError> {
        let x = self.project(f.project_in.as_ref(), x)?.cast(FloatDType::F32);
        let levels: Vec<f32> = f.levels.iter().map(|l| *l as f32).collect();
        let channels = levels.len();
        if x.dims()[1] != channels {
            let found = x.dims().to_vec();
            return Err(TrainError::Shape { name: "fsq".into(), found, expected: vec![0, channels] });
        }
        let device = self.device.clone();
        let row = |of: &dyn Fn(f32) -> f32| {
            let values: Vec<f32> = levels.iter().map(|l| of(*l)).collect();
            Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, channels])
        };
        let out = match f.bound {
            FsqBound::Tanh => {
                let margin = f.margin;
                let half = move |l: f32| (l - 1.0) * (1.0 + margin) / 2.0;
                let offset = |l: f32| if l % 2.0 == 0.0 { 0.5 } else { 0.0 };
                let bounded = (x + row(&|l| (offset(l) / half(l)).atanh())).tanh() * row(&half) - row(&offset);
                let mask = self.mask();
                let width = row(&|l| (l / 2.0).floor());
                let rounded = bounded.clone().detach().round();
                self.count(f, rounded.clone() + width.clone(), mask.clone());
                masked(straight(bounded, rounded) / width, mask)
            }
            FsqBound::Symmetric => {
                let x = if f.soft_clamp {
                    let limit = row(&|l| 1.0 + 1.0 / (l - 1.0));
                    (x / limit.clone()).tanh() * limit
                } else {
                    x.clone()
                };
                let mut rest = x.clone().detach();
                let mut sum: Option<Tensor<2>> = None;
                for stage in 0..f.stages {
                    let scale = row(&|l| 1.0 / l.powi(stage as i32));
                    let steps = row(&|l| l - 1.0);
                    let z = (rest.clone() / scale.clone()).clamp(-1.0, 1.0);
                    let level = (steps.clone() * z.add_scalar(1.0)).div_scalar(2.0).add_scalar(0.5).floor();
                    let value = (level.clone() / steps).mul_scalar(2.0).sub_scalar(1.0) * scale;
                    let mask = self.mask();
                    self.count(f, level, mask.clone());
                    rest = rest - value.clone();
                    let value = masked(value, mask);
                    sum = Some(match sum {
                        Some(sum) => sum + value,
                        None => value,
                    });
                }
                straight(x.clone(), sum.unwrap_or(x))
            }
        };
        let rows = self.project(f.project_out.as_ref(), out)?;
        Ok(Coded { rows, plain: false })
    }

    /// Notes the codes of `[rows, channels]` of levels, first channel fastest.
    fn count(&mut self, f: &Fsq, levels: Tensor<2>, mask: Option<Tensor<2>>) {
        let mut basis = 1.0;
        let bases: Vec<f32> = f
            .levels
            .iter()
            .map(|l| {
                let own = basis;
                basis *= *l as f32;
                own
            })
            .collect();
        let bases = Tensor::<1>::from_floats(bases.as_slice(), &levels.device()).reshape([1, f.levels.len()]);
        let rows = levels.dims()[0];
        let codes = (levels * bases).sum_dim(1).reshape([rows]).inner().int();
        if let Some(coding) = &mut self.coding {
            coding.codes.push(codes);
            return;
        }
        let size = f.levels.iter().product::<u32>() as usize;
        let name = format!("fsq.{}", self.uses.len());
        let nothing = Tensor::zeros([rows, 1], &codes.device());
        self.uses.push(BookUse::of(&name, size, codes, nothing, mask.map(|m| m.inner())));
    }
}

fn masked(x: Tensor<2>, mask: Option<Tensor<2>>) -> Tensor<2> {
    match mask {
        Some(mask) => x * mask,
        None => x,
    }
}
