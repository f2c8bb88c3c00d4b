//! Deploy images from the command line.

use crate::support::Bench;

/// A C compiler's reading of the list of numbers, and Rust's of the escapes.
fn listed(c: &str) -> Vec<u8> {
    let list = c.split_once('{').unwrap().1.split_once('}').unwrap().0;
    let words = list.split(',').map(str::trim).filter(|n| !n.is_empty());
    let number = |n: &str| u64::from_str_radix(n.strip_prefix("0x").unwrap().strip_suffix('u').unwrap(), 16).unwrap();
    words.flat_map(|n| number(n).to_le_bytes()).collect()
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
    bench.codec(&["pack", "model.safetensors", "-o", "a", "--c", "a"]).fails(2, &["same name"]);
    bench.wav("fast.wav", 2 * crate::support::RATE, 1, &[0.1; 100]);
    bench.codec(&["pack", "model.safetensors", "-o", "a", "--compare", "fast.wav"]).fails(1, &["fast.wav"]);
    bench.assert_only(&["fast.wav"]);
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

#[test]
fn less_precision_is_smaller_and_close() {
    let bench = Bench::new();
    bench.steps("a.wav", 4321);
    bench.codec(&["encode", "a.wav", "a.nac"]).ok();
    bench.codec(&["pack", "model.safetensors", "-o", "full.bin"]).ok();
    let size = |name: &str| std::fs::metadata(bench.path(name)).unwrap().len();
    let mut least = size("full.bin");
    for dtype in ["f16", "i8"] {
        let image = format!("{dtype}.bin");
        let args = ["pack", "model.safetensors", "-o", &image, "--dtype", dtype, "--compare", "a.wav", "--json"];
        let packed = bench.codec(&args).ok().json();
        assert_eq!(packed["dtype"], dtype);
        let compared = &packed["comparisons"][0];
        // What the model computes with fits 16 bits, and nearly 8.
        assert!(compared["equal_codes"].as_f64().unwrap() > 0.9);
        assert_eq!(compared["encoder"].as_array().unwrap().len(), 1);
        assert!(size(&image) < least, "{dtype}: {} bytes", size(&image));
        least = size(&image);
        bench.codec(&["decode", "-m", &image, "a.nac", &format!("a.{dtype}.wav")]).ok();
        bench.codec(&["pack", &image, "-o", "again.bin"]).fails(1, &["packed already"]);
    }
}
