//! The C functions from Rust, for tests.
#![allow(dead_code)]

pub mod models;

use std::{
    ffi::{CStr, CString, c_char},
    path::Path,
    ptr,
};

use codec_ffi::{codec_status::*, *};

/// A struct of zeros with its size set.
macro_rules! sized {
    ($type:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        // SAFETY: zeros are a value of every struct of the header.
        #[allow(unused_mut)]
        let mut value: codec_ffi::$type = unsafe { std::mem::zeroed() };
        value.struct_size = size_of::<codec_ffi::$type>();
        $(value.$field = $value;)*
        value
    }};
}
pub(crate) use sized;

pub fn text(text: *const c_char) -> String {
    assert!(!text.is_null());
    // SAFETY: texts of the library end in a zero.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}

/// A model of the tests.
pub struct Model(pub *mut codec_model);

impl Model {
    pub fn load(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        models::write(name, &path);
        Self::open(&path)
    }

    pub fn open(path: &Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut model = ptr::null_mut();
        // SAFETY: a text that ends in a zero, and a place for the handle.
        let status = unsafe { codec_model_from_file(path.as_ptr(), &mut model) };
        assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
        Self(model)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the handle is this one's.
        assert_eq!(unsafe { codec_model_destroy(self.0) }, CODEC_OK);
    }
}

/// A signal with some of everything, interleaved.
pub fn signal(samples: usize, channels: usize) -> Vec<f32> {
    let mut state = 7u32;
    (0..samples * channels)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let t = (i / channels) as f32 / 8000.0;
            0.4 * (t * 2765.0).sin() + 0.2 * (t * t * 900.0).sin() + 0.1 * noise
        })
        .collect()
}
