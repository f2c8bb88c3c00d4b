//! The linker script of the target's board, and what there is to run.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BOARD");
    let (target, board) = (env::var("TARGET").unwrap(), env::var("BOARD").unwrap_or_default());
    let fits = match board.as_str() {
        "an386" | "an500" => target.starts_with("thumbv7em"),
        "an547" => target.starts_with("thumbv8m.main"),
        "virt" => target.starts_with("riscv32"),
        _ => panic!("BOARD must be one of an386, an500, an547 and virt"),
    };
    assert!(fits, "{board} is no board for {target}: see docs/embedded.md");
    println!("cargo::rustc-check-cfg=cfg(systick)");
    if board == "an547" {
        println!("cargo::rustc-cfg=systick");
    }
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    let (memory, model) = (format!("memory/{board}.x"), "memory/model.x");
    let script = fs::read_to_string(&memory).unwrap() + &fs::read_to_string(model).unwrap();
    fs::write(out.join("memory.x"), script).unwrap();
    println!("cargo::rerun-if-changed={memory}");
    println!("cargo::rerun-if-changed={model}");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");

    println!("cargo::rerun-if-env-changed=CODEC_PAYLOAD");
    let Some(payload) = env::var_os("CODEC_PAYLOAD").map(PathBuf::from) else {
        panic!("CODEC_PAYLOAD must name the folder that the example `firmware_payload` wrote");
    };
    let decoder = ["model.bin", "stream.nac", "crc.u32", "state.u32"].as_slice();
    let encoder = ["pcm.s16", "codes.u16"].as_slice();
    let encoder = if env::var_os("CARGO_FEATURE_ENCODER").is_some() { encoder } else { &[] };
    for name in decoder.iter().chain(encoder) {
        let from = payload.join(name);
        println!("cargo::rerun-if-changed={}", from.display());
        fs::copy(&from, out.join(name)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
}
