//! The model in the box: `nano-16k`, for speech at 16 kHz, as a deploy image (`models/nano-16k.md` says how it was made and
//! how it scores).

use std::sync::Arc;

use crate::{Error, Model};

/// An image is read where it lies, so it must lie right.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/nano-16k.bin"));

impl Model {
    /// The bytes of the model in the box, a deploy image aligned to [`IMAGE_ALIGN`](crate::core::image::IMAGE_ALIGN).
    pub fn built_in_image() -> &'static [u8] {
        &IMAGE.0
    }

    /// The model in the box. Nothing is copied or unpacked.
    ///
    /// # Errors
    /// None: the image is a part of the program, and a test opens it.
    pub fn built_in() -> Result<Self, Error> {
        Self::from_image(Arc::new(Self::built_in_image()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens() {
        let model = Model::built_in().unwrap();
        assert_eq!((model.spec().name.as_str(), model.spec().sample_rate), ("nano-16k", 16_000));
        model.verify().unwrap();
        assert!(Model::built_in_image().len() <= 3_000_000);
        let kbps: Vec<f64> = model.bitrates().unwrap().iter().map(|b| b.kbps).collect();
        assert_eq!(kbps, [1.5, 3.0, 6.0]);
    }
}
