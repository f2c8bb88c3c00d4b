//! Deploy images as files: packed models that open without planning (`docs/image.md`).

use std::{path::Path, sync::Arc};

use codec_core::{
    image::{Cut, Image, ImageError, Meta, SharedBytes, pack},
    pipeline::{Decoder, Encoder},
    spec::{CodecSpec, Framing},
    weights::Precision,
};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Error, Model,
    mapped::map,
    model_file::{Fingerprint, Provenance},
};

/// Why an image could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageFileError {
    /// The engine cannot use it.
    #[error("{path}: {source}")]
    Image {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// It was packed without what this program needs to know of it.
    #[error("{path} holds no spec that this version understands: pack the model again ({reason})")]
    Spec {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is packed beside the networks.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    spec: CodecSpec,
    #[serde(flatten)]
    provenance: Provenance,
}

/// An image whose networks are ready to run.
#[derive(Debug)]
pub(crate) struct ImageFile {
    pub spec: CodecSpec,
    pub provenance: Provenance,
    pub fingerprint: Fingerprint,
    pub precision: Precision,
    pub encoder: Option<Encoder>,
    pub decoder: Option<Decoder>,
}

struct Mapped(Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a file starts as an image.
pub(crate) fn starts_as_image(start: &[u8]) -> bool {
    start.starts_with(b"CODECIMG")
}

impl ImageFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let map = map(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::from_bytes(Arc::new(Mapped(map)), &path.display().to_string())
    }

    pub(crate) fn from_bytes(bytes: SharedBytes, path: &str) -> Result<Self, Error> {
        let image_error = |source| ImageFileError::Image { path: path.to_owned(), source };
        let image = Image::open((*bytes).as_ref()).map_err(image_error)?;
        let spec_error = |reason: String| ImageFileError::Spec { path: path.to_owned(), reason };
        let json = image.spec_json().ok_or_else(|| spec_error("it has none".to_owned()))?;
        let About { spec, provenance } = serde_json::from_slice(json).map_err(|e| spec_error(e.to_string()))?;
        let Meta { sample_rate, channels, hop, precision, fingerprint, .. } = *image.meta();
        if (spec.sample_rate, spec.channels, spec.hop) != (sample_rate, channels, hop) {
            return Err(spec_error("its spec is that of another model".to_owned()).into());
        }
        let (encoder, decoder) = codec_core::image::load(&bytes).map_err(image_error)?;
        Ok(Self { spec, provenance, fingerprint: Fingerprint(fingerprint), precision, encoder, decoder })
    }
}

/// Which parts of a model an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackParts {
    /// What the model has.
    #[default]
    All,
    /// The decoder.
    Decoder,
    /// The encoder.
    Encoder,
}

/// How a model is packed.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// Encoder, decoder or both.
    pub parts: PackParts,
    /// Frames of one step where the image runs without a heap; behind a heap, steps are of any size.
    pub frames: u32,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { parts: PackParts::All, frames: 1 }
    }
}

impl Model {
    /// The deploy image of this model: its planned networks with their packed weights.
    ///
    /// # Errors
    /// The model does not have the parts asked for, or is too large for steps of so many frames.
    pub fn pack(&self, options: &PackOptions) -> Result<Vec<u8>, Error> {
        let mut spec = self.spec().clone();
        match options.parts {
            PackParts::All => {}
            PackParts::Decoder => spec.encoder = None,
            PackParts::Encoder => spec.decoder = None,
        }
        let encoder = match (&spec.encoder, options.parts) {
            (None, PackParts::All | PackParts::Decoder) => None,
            _ => Some(self.encoder_plan()?),
        };
        let decoder = match (&spec.decoder, options.parts) {
            (None, PackParts::All | PackParts::Encoder) => None,
            _ => Some(self.decoder_plan()?),
        };
        let meta = Meta {
            sample_rate: spec.sample_rate,
            channels: spec.channels,
            hop: spec.hop,
            frames: options.frames.max(1),
            delay: self.info()?.delay_samples.map(|samples| samples.ceil() as u32),
            cut: match spec.framing {
                Framing::Stream => Cut::Stream,
                Framing::Segments { length, stride, normalize } => Cut::Segments { length, stride, normalize },
                Framing::Windows { length, stride } => Cut::Windows { length, stride },
            },
            precision: self.precision(),
            fingerprint: self.fingerprint().0,
        };
        let about = About { spec, provenance: self.provenance().clone() };
        let about =
            serde_json::to_vec(&about).map_err(|e| Error::Build(codec_core::BuildError::Spec(e.to_string())))?;
        Ok(pack(&meta, Some(&about), encoder, decoder)?)
    }
}
