//! Named tensors that are trained, and what is kept beside them.
//!
//! Every tensor is flat on the device and has its shape and its name, which is the engine's. So a checkpoint, an optimiser's
//! state, an average of weights and a model file are all lists by name.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Gradients, Shape, Tensor, TensorData};
use codec::model_file::ModelFile;
use codec_core::spec::TensorSpec;
use serde::{Deserialize, Serialize};

use crate::{TrainError, cpu::layers};

/// How far tensors take part in the recording of gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Gradients are wanted.
    Gradients,
    /// Constants in a graph that is recorded for others.
    Constant,
    /// Nothing is recorded.
    None,
}

/// In what the operands of products are multiplied: of convolutions and linear layers. Everything else has single precision:
/// weights, what an optimiser keeps, LSTMs, attention's scores, normalisations, the quantizer, spectra, and losses
/// (Micikevicius et al. 2018).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Half precision: 11 bits, up to 65 504. Losses are scaled, so that small gradients are not lost.
    F16,
    /// Brain floating point: 8 bits, the range of single precision.
    Bf16,
}

impl Precision {
    /// The type on a device.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

/// A tensor of a [`Store`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements, row-major, without autodiff.
    pub value: Tensor<1>,
    /// Whether an optimiser changes it; otherwise it is changed by rules of its own, or never.
    pub trained: bool,
}

/// Named tensors on one device.
#[derive(Clone, Debug)]
pub struct Store {
    device: Device,
    entries: BTreeMap<String, Entry>,
}

impl Store {
    /// An empty store. The device is used without autodiff; [`Store::vars`] adds it.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone().inner(), entries: BTreeMap::new() }
    }

    /// Those tensors of a model file that are wanted, in single precision.
    ///
    /// # Errors
    /// One is missing, or has another shape.
    pub fn read(
        file: &ModelFile,
        wanted: impl IntoIterator<Item = TensorSpec>,
        trained: bool,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let tensors: BTreeMap<_, _> = file.tensors().collect();
        let mut store = Self::new(device);
        for TensorSpec { name, shape, .. } in wanted {
            let Some(view) = tensors.get(name.as_str()) else { return Err(TrainError::NoTensor(name)) };
            if view.shape != shape {
                return Err(TrainError::Shape { name, found: view.shape.to_vec(), expected: shape });
            }
            store.insert(name, &shape, view.values().into_owned(), trained);
        }
        Ok(store)
    }

    /// The device, without autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, shape: &[usize], values: Vec<f32>, trained: bool) {
        let value = Tensor::from_data(TensorData::new(values, [shape.iter().product::<usize>()]), &self.device);
        self.entries.insert(name.into(), Entry { shape: shape.to_vec(), value, trained });
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none, or it has another number of dimensions than `D`.
    pub fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, TrainError> {
        let entry = self.get(name).ok_or_else(|| TrainError::NoTensor(name.to_owned()))?;
        shaped(name, &entry.shape, entry.value.clone())
    }

    /// Replaces the elements of a tensor that is there; of others nothing is stored.
    pub fn set(&mut self, name: &str, value: Tensor<1>) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.value = value.inner();
        }
    }

    /// Removes a tensor.
    pub fn remove(&mut self, name: &str) -> Option<Entry> {
        self.entries.remove(name)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Adds all tensors of another store.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Elements that are trained.
    pub fn parameters(&self) -> usize {
        let trained = self.entries.values().filter(|e| e.trained);
        trained.map(|e| e.shape.iter().product::<usize>()).sum()
    }

    /// The tensors as a network takes them.
    pub fn vars(&self, tracking: Tracking) -> Vars {
        let tracked = |e: &Entry| match tracking {
            Tracking::Gradients if e.trained => e.value.clone().autodiff().require_grad(),
            Tracking::Gradients | Tracking::Constant => e.value.clone().autodiff(),
            Tracking::None => e.value.clone(),
        };
        let tensors = self.entries.iter().map(|(name, e)| (name.clone(), (e.shape.clone(), tracked(e)))).collect();
        Vars { tensors, precision: Precision::F32 }
    }

    /// Puts a plain weight under weight norm (Salimans & Kingma 2016): `name.weight` becomes `name.weight_v` of the same shape
    /// and `name.weight_g` `[shape[0]]`, the norms over all but the first axis, so that nothing changes yet.
    ///
    /// # Errors
    /// There is no `name.weight`.
    pub fn add_weight_norm(&mut self, name: &str) -> Result<(), TrainError> {
        let weight = format!("{name}.weight");
        let entry = self.remove(&weight).ok_or(TrainError::NoTensor(weight))?;
        let rows = entry.shape.first().copied().unwrap_or(1);
        let g = norms(entry.value.clone().reshape([rows as i32, -1]));
        let g = Entry { shape: vec![rows], value: g, trained: entry.trained };
        self.entries.insert(format!("{name}.weight_g"), g);
        self.entries.insert(format!("{name}.weight_v"), entry);
        Ok(())
    }

    /// The tensors with every weight norm folded into a plain weight, and their elements on the host. A weight that was not
    /// trained since [`Store::add_weight_norm`] comes back to the bit.
    pub fn plain(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let vars = self.vars(Tracking::None);
        let mut out = BTreeMap::new();
        for (name, entry) in &self.entries {
            if let Some(layer) = name.strip_suffix(".weight_v") {
                if let Some(weight) = vars.folded(layer) {
                    out.insert(format!("{layer}.weight"), (entry.shape.clone(), host(weight)));
                }
            } else if !name.ends_with(".weight_g") {
                out.insert(name.clone(), (entry.shape.clone(), host(entry.value.clone())));
            }
        }
        out
    }
}

/// The elements of a flat tensor.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as::<f32>().expect("the device hands its memory out")
}

/// Norms of the rows.
fn norms(v: Tensor<2>) -> Tensor<1> {
    let rows = v.dims()[0];
    layers::row_norms(&v).unwrap_or_else(|| v.square().sum_dim(1).sqrt().reshape([rows]))
}

fn shaped<const D: usize>(name: &str, shape: &[usize], value: Tensor<1>) -> Result<Tensor<D>, TrainError> {
    if shape.len() != D {
        return Err(TrainError::Shape { name: name.to_owned(), found: shape.to_vec(), expected: vec![0; D] });
    }
    Ok(value.reshape(Shape::from(shape.to_vec())))
}

/// The tensors of a [`Store`] for one pass through a network.
#[derive(Clone, Debug)]
pub struct Vars {
    tensors: BTreeMap<String, (Vec<usize>, Tensor<1>)>,
    precision: Precision,
}

impl Vars {
    /// The same tensors, for products in this precision.
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// A product of a signal with a weight, in the precision of products; the result has single precision.
    pub(crate) fn product<const D: usize, const W: usize>(
        &self,
        x: Tensor<D>,
        weight: Tensor<W>,
        bias: Option<Tensor<1>>,
        product: impl FnOnce(Tensor<D>, Tensor<W>, Option<Tensor<1>>) -> Tensor<D>,
    ) -> Tensor<D> {
        let dtype = match self.precision {
            Precision::F32 => return product(x, weight, bias),
            precision => precision.dtype(),
        };
        product(x.cast(dtype), weight.cast(dtype), bias.map(|bias| bias.cast(dtype))).cast(FloatDType::F32)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none, or it has another number of dimensions than `D`.
    pub fn get<const D: usize>(&self, name: &str) -> Result<Tensor<D>, TrainError> {
        let (shape, value) = self.tensors.get(name).ok_or_else(|| TrainError::NoTensor(name.to_owned()))?;
        shaped(name, shape, value.clone())
    }

    /// `layer.weight`, folded where the layer is under weight norm.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn weight<const D: usize>(&self, layer: &str) -> Result<Tensor<D>, TrainError> {
        let name = format!("{layer}.weight_v");
        match (self.tensors.get(&name), self.folded(layer)) {
            (Some((shape, _)), Some(weight)) => shaped(&name, shape, weight),
            _ => self.get(&format!("{layer}.weight")),
        }
    }

    /// `layer.bias` if `wanted`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn bias(&self, layer: &str, wanted: bool) -> Result<Option<Tensor<1>>, TrainError> {
        if wanted { self.get(&format!("{layer}.bias")).map(Some) } else { Ok(None) }
    }

    /// `g v / |v|`, flat; the quotient `g / |v|` is exactly 1 before training.
    fn folded(&self, layer: &str) -> Option<Tensor<1>> {
        let (_, v) = self.tensors.get(&format!("{layer}.weight_v"))?;
        let (_, g) = self.tensors.get(&format!("{layer}.weight_g"))?;
        let rows = g.dims()[0];
        let v = v.clone().reshape([rows as i32, -1]);
        if let Some(weight) = layers::weight_norm(&v, g) {
            return Some(weight.reshape([-1]));
        }
        let factor = g.clone() / norms(v.clone());
        Some((v * factor.reshape([rows, 1])).reshape([-1]))
    }

    /// Takes the gradients of all tensors that have one.
    pub fn gradients(&self, gradients: &mut Gradients) -> Grads {
        let of = |(name, (_, value)): (&String, &(Vec<usize>, Tensor<1>))| {
            Some((name.clone(), value.grad_remove(gradients)?))
        };
        Grads(self.tensors.iter().filter_map(of).collect())
    }
}

/// Gradients by the names of their tensors, flat and without autodiff.
#[derive(Clone, Debug, Default)]
pub struct Grads(pub BTreeMap<String, Tensor<1>>);

impl Grads {
    /// Adds others, name by name.
    pub fn add(&mut self, other: Self) {
        for (name, grad) in other.0 {
            let sum = match self.0.remove(&name) {
                Some(own) => own + grad,
                None => grad,
            };
            self.0.insert(name, sum);
        }
    }

    /// Multiplies all.
    pub fn scale(&mut self, factor: f32) {
        if factor == 1.0 {
            return;
        }
        for grad in self.0.values_mut() {
            *grad = grad.clone().mul_scalar(factor);
        }
    }

    /// The Euclidean norm over all of them.
    pub fn norm(&self) -> f64 {
        let burns = |g: &Tensor<1>| f64::from(g.clone().square().sum().into_scalar::<f32>());
        let squares = self.0.values().map(|g| layers::sum_of_squares(g).unwrap_or_else(|| burns(g)));
        squares.sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_norm_changes_nothing_until_trained() {
        let mut store = Store::new(&crate::device::cpu());
        let values: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin() + 0.01).collect();
        store.insert("a.weight", &[4, 3, 2], values.clone(), true);
        store.add_weight_norm("a").unwrap();
        assert!(store.get("a.weight").is_none());
        assert_eq!(store.plain()["a.weight"], (vec![4, 3, 2], values));
    }

    #[test]
    fn weight_norm_has_a_gradient_for_length_and_direction() {
        let mut store = Store::new(&crate::device::cpu());
        store.insert("a.weight", &[2, 2], vec![3.0, 4.0, 1.0, 0.0], true);
        store.add_weight_norm("a").unwrap();
        let vars = store.vars(Tracking::Gradients);
        let coefficients = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &store.device().clone().autodiff());
        let loss = (vars.weight::<2>("a").unwrap() * coefficients).sum();
        let grads = vars.gradients(&mut loss.backward());
        // By hand: dg = <c, v> / |v|, dv = g / |v| (c - <c, v> v / |v|^2).
        let g = host(grads.0["a.weight_g"].clone());
        let v = host(grads.0["a.weight_v"].clone());
        let expected = [[2.2, 3.0].as_slice(), [1.0 - 11.0 * 3.0 / 25.0, 2.0 - 11.0 * 4.0 / 25.0, 0.0, 4.0].as_slice()];
        for (got, want) in g.iter().chain(&v).zip(expected.concat()) {
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
    }
}
