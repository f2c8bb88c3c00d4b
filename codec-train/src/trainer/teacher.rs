//! A codec whose latents are learned (distillation: Hinton et al. 2015; of latents, Romero et al. 2015).

use burn::tensor::{Device, Tensor};
use codec::model_file::{Fingerprint, ModelFile};
use codec_core::spec::CodecSpec;

use crate::{Tracking, TrainCodec, TrainError, Vars, quantizer::Rules, recipe::TeacherRecipe};

/// A codec that stays as it is.
pub(super) struct Teacher {
    recipe: TeacherRecipe,
    codec: TrainCodec,
    vars: Vars,
    fingerprint: Fingerprint,
}

impl Teacher {
    /// Opens the teacher of a codec of `spec`.
    pub(super) fn open(
        recipe: &TeacherRecipe,
        spec: &CodecSpec,
        device: &Device,
        error: &dyn Fn(String) -> TrainError,
    ) -> Result<Self, TrainError> {
        let model = ModelFile::open(&recipe.model)?;
        let theirs = model.spec();
        if theirs.encoder.is_none() {
            return Err(error(format!("`teacher.model`, {}, has no encoder", theirs.name)));
        }
        for (what, own, other) in [
            ("sample rate", spec.sample_rate, theirs.sample_rate),
            ("channel count", spec.channels, theirs.channels),
            ("hop", spec.hop, theirs.hop),
            ("latent", spec.latent, theirs.latent),
        ] {
            if own != other {
                let name = &theirs.name;
                return Err(error(format!(
                    "`teacher.model`, {name}, has a {what} of {other}, and the model one of {own}"
                )));
            }
        }
        let codec = TrainCodec::new(theirs, Rules::default())?;
        let vars = codec.load(&model, &device.clone().inner())?.vars(Tracking::None);
        Ok(Self { recipe: recipe.clone(), codec, vars, fingerprint: model.fingerprint() })
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
        Ok(self.codec.encode(&self.vars, signal)?.mul_scalar(self.recipe.scale))
    }
}
