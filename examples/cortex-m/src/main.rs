//! A codec without an operating system and without a heap, as a test that counts: what it decodes must be what the host
//! decodes, bit for bit. `docs/embedded.md` says how to run it.
#![no_std]
#![no_main]

mod counter;
mod kernels;
mod stack;

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
use riscv_rt::entry;
use semihosting::{println, process};

#[entry]
fn main() -> ! {
    counter::start();
    let stack = stack::paint();
    let right = kernels::check();
    match stack.most() {
        Some(bytes) => println!("stack: {bytes} bytes"),
        None => println!("stack: more than was measured"),
    }
    println!("{}", if right { "ok" } else { "WRONG" });
    process::exit(i32::from(!right))
}
