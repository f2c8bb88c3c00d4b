//! The linker script of the target's board, and what there is to run.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").unwrap();
    let board = match target.split('-').next() {
        Some("thumbv7em") => "mps2",
        Some("thumbv8m.main") => "an547",
        Some(arch) if arch.starts_with("riscv32") => "virt",
        _ => panic!("no board for {target}: see docs/embedded.md for the targets"),
    };
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
    for name in ["decoder.bin", "encoder.bin", "stream.nac", "pcm.s16", "codes.u16", "crc.u32"] {
        let from = payload.join(name);
        println!("cargo::rerun-if-changed={}", from.display());
        fs::copy(&from, out.join(name)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
}
