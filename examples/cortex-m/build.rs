//! The linker script of the target's board.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let target = env::var("TARGET").unwrap();
    let board = match target.split('-').next() {
        Some("thumbv7em") => "mps2",
        Some("thumbv8m.main") => "an547",
        Some(arch) if arch.starts_with("riscv32") => "virt",
        _ => panic!("no board for {target}: see docs/embedded.md for the targets"),
    };
    let from = format!("memory/{board}.x");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    fs::copy(&from, out.join("memory.x")).unwrap();
    println!("cargo::rerun-if-changed={from}");
    println!("cargo::rustc-check-cfg=cfg(systick)");
    if board == "an547" {
        println!("cargo::rustc-cfg=systick");
    }
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
