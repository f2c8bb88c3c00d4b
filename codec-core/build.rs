//! Says which targets have a fused multiply-add that the kernels reach by assembly: `cfg` on a stable compiler does
//! not show the floating-point features of Arm and RISC-V.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(embedded_fma)");
    println!("cargo::rustc-check-cfg=cfg(fpu_double)");
    let target = env::var("TARGET").unwrap_or_default();
    let arch = target.split('-').next().unwrap_or_default();
    if target.ends_with("eabihf") && (arch == "thumbv7em" || arch == "thumbv8m.main") {
        println!("cargo::rustc-cfg=embedded_fma");
        // Only with a double-precision unit does the compiler hand out floating-point registers to assembly.
        let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
        let double = |cpu: &&str| flags.split('\u{1f}').any(|flag| flag.ends_with(&format!("target-cpu={cpu}")));
        if ["cortex-m7", "cortex-m55", "cortex-m85"].iter().any(double) {
            println!("cargo::rustc-cfg=fpu_double");
        }
    }
    let extensions = arch.strip_prefix("riscv32").or_else(|| arch.strip_prefix("riscv64"));
    if extensions.is_some_and(|letters| letters.contains(['f', 'g'])) {
        println!("cargo::rustc-cfg=embedded_fma");
    }
}
