//! The header that is checked in is the one of this code.

use std::path::Path;

/// Set to write the header instead of comparing it.
const WRITE: &str = "CODEC_WRITE_HEADER";

#[test]
fn the_header_is_not_stale() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_crate(package).with_config(config).generate().unwrap();
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let path = package.join("../include/codec.h");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = stored.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        stored == generated,
        "include/codec.h is stale (line {}): run `{WRITE}=1 cargo test -p codec-ffi --test header`",
        differs.map_or_else(|| stored.lines().count().min(generated.lines().count()), |line| line + 1),
    );
}
