//! A whole codec for training: encoder, quantizer and decoder of one spec, from a model file and back to one.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use codec::model_file::{Fingerprint, ModelFile, OwnedTensor, Provenance, TensorMap, write_model};
use codec_core::spec::{CodecSpec, layer_tensors};

use crate::{
    Store, TrainError, Vars, host,
    net::{self, Network},
    quantizer::{Quantized, Rules, TrainQuantizer},
};

/// Encoder, quantizer and decoder.
#[derive(Clone, Debug)]
pub struct TrainCodec {
    spec: CodecSpec,
    encoder: Option<Network>,
    quantizer: TrainQuantizer,
    decoder: Option<Network>,
}

impl TrainCodec {
    /// Builds the networks of a spec.
    ///
    /// # Errors
    /// [`TrainError::Untrainable`] names the first layer that cannot be trained.
    pub fn new(spec: &CodecSpec, rules: Rules) -> Result<Self, TrainError> {
        let network = |layers: &Option<Vec<_>>| layers.as_deref().map(Network::new).transpose();
        Ok(Self {
            encoder: network(&spec.encoder)?,
            quantizer: TrainQuantizer::new(&spec.quantizer, rules)?,
            decoder: network(&spec.decoder)?,
            spec: spec.clone(),
        })
    }

    /// The spec.
    pub fn spec(&self) -> &CodecSpec {
        &self.spec
    }

    /// The quantizer.
    pub fn quantizer(&self) -> &TrainQuantizer {
        &self.quantizer
    }

    /// First values from a seed, see [`net::initialise`].
    ///
    /// # Errors
    /// The spec and its tensors do not make a codec.
    pub fn initialise(&self, device: &Device, seed: u64) -> Result<Store, TrainError> {
        let mut store = Store::new(device);
        net::initialise(&self.spec, &mut store, seed);
        self.check(&store)?;
        self.quantizer.prepare(&mut store)?;
        Ok(store)
    }

    /// The tensors of a model file.
    ///
    /// # Errors
    /// A tensor is missing or of another shape, or the spec is not this one's.
    pub fn load(&self, model: &ModelFile, device: &Device) -> Result<Store, TrainError> {
        let mut store = Store::read(model, self.spec.tensors(), true, device)?;
        self.check(&store)?;
        self.quantizer.prepare(&mut store)?;
        Ok(store)
    }

    /// Puts all convolutions and the quantizer's projections under weight norm.
    ///
    /// # Errors
    /// A weight is missing.
    pub fn add_weight_norm(&self, store: &mut Store) -> Result<(), TrainError> {
        let spec = &self.spec;
        let networks: Vec<_> = [(&spec.encoder, spec.channels), (&spec.decoder, spec.latent)]
            .into_iter()
            .filter_map(|(layers, input)| Some(layer_tensors(layers.as_deref()?, input)))
            .flatten()
            .collect();
        let all = spec.tensors();
        let convolutions = networks.iter().filter(|t| t.shape.len() == 3);
        let own = all.iter().filter(|t| t.shape.len() == 2 && !networks.contains(t));
        for tensor in convolutions.chain(own) {
            if let Some(name) = tensor.name.strip_suffix(".weight") {
                store.add_weight_norm(name)?;
            }
        }
        Ok(())
    }

    /// The latent of `[batch, channels, samples]`.
    ///
    /// # Errors
    /// There is no encoder, or the signal is too short.
    pub fn encode(&self, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        let network = self.encoder.as_ref();
        let none = || codec_core::BuildError::NoEncoder(self.spec.name.clone());
        network.ok_or_else(|| codec::Error::from(none()))?.forward(vars, x)
    }

    /// Quantises a latent, see [`TrainQuantizer::forward`].
    ///
    /// # Errors
    /// As there.
    pub fn quantize(&self, vars: &Vars, x: Tensor<3>, limits: Option<&[usize]>) -> Result<Quantized, TrainError> {
        self.quantizer.forward(vars, x, limits)
    }

    /// The signal of a latent.
    ///
    /// # Errors
    /// There is no decoder, or the latent is too short.
    pub fn decode(&self, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        let network = self.decoder.as_ref();
        let none = || codec_core::BuildError::NoDecoder(self.spec.name.clone());
        network.ok_or_else(|| codec::Error::from(none()))?.forward(vars, x)
    }

    /// The tensors that the spec names, as the engine takes them.
    ///
    /// # Errors
    /// One is missing.
    pub fn tensors(&self, store: &Store) -> Result<TensorMap, TrainError> {
        let mut plain = store.plain();
        let mut map = TensorMap::default();
        for wanted in self.spec.tensors() {
            let (shape, values) =
                plain.remove(&wanted.name).ok_or_else(|| TrainError::NoTensor(wanted.name.clone()))?;
            if shape != wanted.shape {
                return Err(TrainError::Shape { name: wanted.name, found: shape, expected: wanted.shape });
            }
            map.0.insert(wanted.name, OwnedTensor::f32(&shape, &values));
        }
        Ok(map)
    }

    /// Writes the model file.
    ///
    /// # Errors
    /// As [`TrainCodec::tensors`]; the file cannot be written.
    pub fn export(&self, store: &Store, path: &Path, provenance: &Provenance) -> Result<Fingerprint, TrainError> {
        Ok(write_model(path, &self.spec, &self.tensors(store)?, provenance)?)
    }

    /// Lets the engine plan spec and tensors, which finds what does not fit.
    fn check(&self, store: &Store) -> Result<(), TrainError> {
        let tensors = self.tensors(store)?;
        let planned = |e: codec_core::BuildError| TrainError::Codec(e.into());
        if self.spec.encoder.is_some() {
            codec_core::pipeline::Encoder::new(&self.spec, &tensors).map_err(planned)?;
        }
        if self.spec.decoder.is_some() {
            codec_core::pipeline::Decoder::new(&self.spec, &tensors).map_err(planned)?;
        }
        Ok(())
    }
}

/// The elements of a signal `[1, channels, samples]`, interleaved.
pub(crate) fn interleaved(x: Tensor<3>) -> Vec<f32> {
    host(x.swap_dims(1, 2))
}
