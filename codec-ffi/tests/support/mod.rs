//! The C functions from Rust, for tests.
#![allow(dead_code)]

pub mod models;

use std::{
    ffi::{CStr, CString, c_char},
    path::Path,
    ptr,
};

use codec_ffi::{codec_status::*, *};

/// A struct of the header, all zeros.
pub fn zeros<T: Copy>() -> T {
    // SAFETY: only used for structs of the header, of which zeros are a value.
    unsafe { std::mem::zeroed() }
}

/// A struct of zeros with its size set.
#[allow(unused_macros)]
macro_rules! sized {
    ($type:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut value: codec_ffi::$type = support::zeros();
        value.struct_size = size_of::<codec_ffi::$type>();
        $(value.$field = $value;)*
        value
    }};
}
#[allow(unused_imports)]
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
