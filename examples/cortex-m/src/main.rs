//! A codec without an operating system and without a heap, as a test that counts: what it decodes must be what the host
//! decodes, bit for bit. `docs/embedded.md` says how to run it.
#![no_std]
#![no_main]

mod coding;
mod counter;
#[cfg(feature = "kernels")]
mod kernels;
mod payload;
mod stack;

use core::ops::Range;

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
use riscv_rt::entry;
use semihosting::{println, process};

static mut MEMORY: coding::Memory = coding::Memory([0; payload::MEMORY]);

unsafe extern "C" {
    static __stext: u8;
    static __etext: u8;
    static __srodata: u8;
    static __erodata: u8;
}

fn bytes(range: Range<*const u8>) -> usize {
    range.end as usize - range.start as usize
}

#[entry]
fn main() -> ! {
    counter::start();
    let code = bytes(&raw const __stext..&raw const __etext);
    let tables = bytes(&raw const __srodata..&raw const __erodata);
    println!("program: {code} bytes of code, {tables} of constants, with this test's own and without the model");
    // SAFETY: there is one thread, and `main` runs once.
    let memory = unsafe { &mut *(&raw mut MEMORY) };
    let mut right = true;
    #[cfg(feature = "kernels")]
    {
        right &= kernels::check();
        println!("kernels: {}", if right { "exact" } else { "WRONG" });
    }
    let runs = [
        ("decode", coding::decode as fn(&mut _) -> _),
        #[cfg(feature = "encoder")]
        ("encode", coding::encode),
    ];
    for (name, run) in runs {
        let stack = stack::paint();
        if let Err(coding::Failure(why)) = run(memory) {
            println!("{name}: FAILED, {why}");
            right = false;
        }
        match stack.most() {
            Some(bytes) => println!("{name}: {bytes} bytes of stack"),
            None => println!("{name}: more stack than was measured"),
        }
    }
    println!("{}", if right { "ok" } else { "WRONG" });
    process::exit(i32::from(!right))
}
