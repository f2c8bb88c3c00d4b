//! Deploy images from the command line.

use crate::support::Bench;

/// A C compiler's reading of the list of numbers, and Rust's of the escapes.
fn listed(c: &str) -> Vec<u8> {
    let list = c.split_once('{').unwrap().1.split_once('}').unwrap().0;
    list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect()
}

fn escaped(rust: &str) -> Vec<u8> {
    let text = rust.split_once("*b\"").unwrap().1.split_once("\");").unwrap().0;
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(&digits[..2], 16).unwrap()).collect()
}

#[test]
fn an_image_does_what_its_model_does() {
    let bench = Bench::new();
    bench.steps("a.wav", 4321);
    bench.codec(&["encode", "a.wav", "a.nac"]).ok();
    bench.codec(&["decode", "a.nac", "a2.wav"]).ok();
    let args = ["pack", "model.safetensors", "-o", "image.bin", "--rust", "image.rs", "--c", "image.c", "--json"];
    let packed: serde_json::Value = serde_json::from_slice(&bench.codec(&args).ok().out).unwrap();
    let read = |name: &str| std::fs::read(bench.path(name)).unwrap();
    let image = read("image.bin");
    assert_eq!(packed["bytes"], image.len());
    assert_eq!(listed(std::str::from_utf8(&read("image.c")).unwrap()), image);
    assert_eq!(escaped(std::str::from_utf8(&read("image.rs")).unwrap()), image);

    bench.codec(&["encode", "-m", "image.bin", "a.wav", "b.nac"]).ok();
    bench.codec(&["decode", "-m", "image.bin", "a.nac", "b2.wav"]).ok();
    assert_eq!(read("b.nac"), read("a.nac"));
    assert_eq!(read("b2.wav"), read("a2.wav"));
    let info = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&bench.codec(&["info", name, "--verify", "--json"]).ok().out).unwrap()
    };
    assert_eq!(info("image.bin"), info("model.safetensors"));
}

#[test]
fn images_of_less_precision_are_smaller_and_run() {
    let bench = Bench::new();
    bench.steps("a.wav", 4321);
    bench.codec(&["encode", "a.wav", "a.nac"]).ok();
    let mut sizes = Vec::new();
    for dtype in ["f32", "f16", "i8"] {
        let image = format!("{dtype}.bin");
        bench.codec(&["pack", "model.safetensors", "-o", &image, "--dtype", dtype]).ok();
        sizes.push(std::fs::metadata(bench.path(&image)).unwrap().len());
        bench.codec(&["decode", "-m", &image, "a.nac", &format!("{dtype}.wav")]).ok();
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    bench.codec(&["pack", "i8.bin", "-o", "again.bin", "--dtype", "f16"]).fails(2, &["is an image"]);
}

#[test]
fn an_image_without_an_encoder_says_so() {
    let bench = Bench::new();
    bench.steps("a.wav", 1000);
    bench.codec(&["encode", "a.wav", "a.nac"]).ok();
    bench.codec(&["pack", "model.safetensors", "-o", "image.bin", "--decoder-only"]).ok();
    bench.codec(&["decode", "-m", "image.bin", "a.nac", "a2.wav"]).ok();
    bench.codec(&["encode", "-m", "image.bin", "a.wav", "b.nac"]).fails(1, &["has no encoder"]);
}

#[test]
fn what_cannot_be_packed_or_read_is_an_error() {
    let bench = Bench::new();
    bench.codec(&["pack", "model.safetensors"]).fails(2, &["nothing to write"]);
    bench.codec(&["pack", "model.safetensors", "-o", "image.bin"]).ok();
    bench.codec(&["pack", "model.safetensors", "-o", "image.bin"]).fails(1, &["exists already"]);
    let mut image = std::fs::read(bench.path("image.bin")).unwrap();
    let middle = image.len() / 2;
    image[middle] ^= 1;
    std::fs::write(bench.path("damaged.bin"), &image).unwrap();
    image.truncate(middle);
    std::fs::write(bench.path("short.bin"), &image).unwrap();
    for (name, says) in [("damaged.bin", "checksum"), ("short.bin", "of which")] {
        bench.codec(&["info", name]).fails(1, &[name, says]);
    }
}
