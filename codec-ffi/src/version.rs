use std::ffi::c_char;

/// Of the header. Another minor version of 0.x, and another major version from 1 on, is another ABI.
pub const CODEC_VERSION_MAJOR: u32 = 0;
/// Of the header.
pub const CODEC_VERSION_MINOR: u32 = 1;
/// Of the header.
pub const CODEC_VERSION_PATCH: u32 = 0;

/// The version of the library that is loaded, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn codec_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The same as a number: major * 65536 + minor * 256 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn codec_version_number() -> u32 {
    CODEC_VERSION_MAJOR << 16 | CODEC_VERSION_MINOR << 8 | CODEC_VERSION_PATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let header = format!("{CODEC_VERSION_MAJOR}.{CODEC_VERSION_MINOR}.{CODEC_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
