//! A codec whose latents are learned (distillation: Hinton et al. 2015; of what lies between, Romero et al. 2015).

use burn::tensor::{Device, Tensor};
use codec::model_file::{Fingerprint, ModelFile};
use codec_core::spec::{CodecSpec, Framing, layer_tensors};

use crate::{Store, Tracking, TrainError, Vars, loss::waveform_l2, net::Network, recipe::TeacherRecipe};

/// An encoder that stays as it is.
pub(super) struct Teacher {
    recipe: TeacherRecipe,
    name: String,
    encoder: Network,
    vars: Vars,
    fingerprint: Fingerprint,
}

impl Teacher {
    /// Opens the teacher of a codec of `spec`. `error` makes one of the recipe.
    pub(super) fn open(
        recipe: &TeacherRecipe,
        spec: &CodecSpec,
        device: &Device,
        error: &dyn Fn(String) -> TrainError,
    ) -> Result<Self, TrainError> {
        let model = ModelFile::open(&recipe.model)?;
        let theirs = model.spec();
        let named = |reason: String| error(format!("`teacher.model`, {}, {reason}", theirs.name));
        let layers = theirs.encoder.as_deref().ok_or_else(|| named("has no encoder".to_owned()))?;
        for (what, own, other) in [
            ("sample rate", spec.sample_rate, theirs.sample_rate),
            ("channel count", spec.channels, theirs.channels),
            ("hop", spec.hop, theirs.hop),
            ("latent", spec.latent, theirs.latent),
        ] {
            if own != other {
                return Err(named(format!(
                    "has a {what} of {other}, and the model one of {own}: take one that has the same"
                )));
            }
        }
        if matches!(theirs.framing, Framing::Segments { normalize: true, .. }) {
            return Err(named(
                "scales its segments, which the trainer does not: take one that codes signals as they are".to_owned(),
            ));
        }
        let cannot = |e: TrainError| named(format!("cannot be computed: {e}"));
        let encoder = Network::new(layers).map_err(cannot)?;
        let store = Store::read(&model, layer_tensors(layers, theirs.channels), false, device).map_err(cannot)?;
        let (name, vars) = (theirs.name.clone(), store.vars(Tracking::None));
        Ok(Self { recipe: recipe.clone(), name, encoder, vars, fingerprint: model.fingerprint() })
    }

    /// What identifies it.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether its latents are what is quantised.
    pub(super) fn forced(&self) -> bool {
        self.recipe.forced
    }

    /// Weight of the distance from its latents.
    pub(super) fn weight(&self) -> f32 {
        self.recipe.weight
    }

    /// Its latents `[items, channels, rows]` of a signal `[items, channels, samples]`.
    pub(super) fn latent(&self, signal: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        Ok(self.encoder.forward(&self.vars, signal)?.mul_scalar(self.recipe.scale))
    }

    /// Its latents, and the mean squared distance of a codec's own from them.
    ///
    /// # Errors
    /// [`TrainError::Teacher`]: they are of another shape.
    pub(super) fn teach(&self, own: &Tensor<3>, signal: Tensor<3>) -> Result<(Tensor<3>, Tensor<1>), TrainError> {
        let taught = self.latent(signal.inner())?.autodiff();
        let ([.., mine], [.., theirs]) = (own.dims(), taught.dims());
        if mine != theirs {
            return Err(TrainError::Teacher { name: self.name.clone(), theirs, own: mine });
        }
        let distance = waveform_l2(own.clone(), taught.clone());
        Ok((taught, distance))
    }
}
