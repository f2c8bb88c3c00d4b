//! Counts executed instructions by the timers of QEMU's machines, which run on instructions under `-icount`.
//!
//! QEMU models neither caches nor dual issue, so these are instructions, not cycles; they repeat exactly.

#[cfg(target_arch = "riscv32")]
mod timer {
    pub fn start() {}

    #[inline(never)]
    pub fn ticks() -> u32 {
        let now: u32;
        // SAFETY: reads a counter.
        unsafe { core::arch::asm!("csrr {}, minstret", out(reg) now) };
        now
    }

    pub fn instructions(from: u32, to: u32) -> u64 {
        u64::from(to.wrapping_sub(from))
    }
}

/// 64 ns an instruction. A CMSDK timer (AN386, AN500) counts down from 2^32 at 25 MHz; AN547 counts with SysTick, 24 bits at
/// 32 MHz, and its turns are counted by an interrupt.
#[cfg(target_arch = "arm")]
mod timer {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    const SYSTICK: bool = cfg!(systick);
    const CMSDK: *mut u32 = 0x4000_0000 as *mut u32;
    const SYST: *mut u32 = 0xE000_E010 as *mut u32;
    static TURNS: AtomicU32 = AtomicU32::new(0);

    #[cortex_m_rt::exception]
    fn SysTick() {
        TURNS.store(TURNS.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub fn start() {
        // SAFETY: the board's timer registers: reload value, current value, control.
        unsafe {
            if SYSTICK {
                SYST.add(1).write_volatile(0xff_ffff);
                SYST.add(2).write_volatile(0);
                SYST.write_volatile(0b111);
            } else {
                CMSDK.add(2).write_volatile(u32::MAX);
                CMSDK.add(1).write_volatile(u32::MAX);
                CMSDK.write_volatile(1);
            }
        }
    }

    /// Counts up.
    #[inline(never)]
    pub fn ticks() -> u64 {
        // SAFETY: reads a timer's value.
        unsafe {
            if !SYSTICK {
                return u64::from(u32::MAX - CMSDK.add(1).read_volatile());
            }
            loop {
                let turns = TURNS.load(Relaxed);
                let value = SYST.add(2).read_volatile();
                if TURNS.load(Relaxed) == turns {
                    return (u64::from(turns) << 24) + u64::from(0xff_ffff - value);
                }
            }
        }
    }

    pub fn instructions(from: u64, to: u64) -> u64 {
        // 64 ns in ticks of 31.25 ns or 40 ns.
        let (ns_100, per) = if SYSTICK { (3125, 6400) } else { (4000, 6400) };
        (to.wrapping_sub(from) * ns_100 + per / 2) / per
    }
}

pub use timer::start;

/// Instructions that `f` takes, less those of measuring, and what it returns.
#[inline(never)]
pub fn count<R>(f: impl FnOnce() -> R) -> (u64, R) {
    let idle = (timer::ticks(), timer::ticks());
    let from = timer::ticks();
    let result = core::hint::black_box(f());
    let to = timer::ticks();
    (timer::instructions(from, to).saturating_sub(timer::instructions(idle.0, idle.1)), result)
}
