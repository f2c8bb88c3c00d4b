//! How deep the stack gets: memory below it is painted, and looked through afterwards.

const PAINT: u32 = 0x5354_4b21;
/// Bytes below the painting function's frame that are painted, and left alone next to it.
const REACH: usize = 64 << 10;
const MARGIN: usize = 256;

/// A painted stretch of stack.
pub struct Painted {
    low: *mut u32,
    words: usize,
}

/// Paints the memory below the stack.
#[inline(never)]
pub fn paint() -> Painted {
    let here = 0u32;
    let top = (&raw const here as usize - MARGIN) & !7;
    let painted = Painted { low: (top - REACH) as *mut u32, words: REACH / 4 };
    for i in 0..painted.words {
        // SAFETY: free memory below the stack: both boards' linker scripts leave more than this.
        unsafe { painted.low.add(i).write_volatile(PAINT) };
    }
    painted
}

impl Painted {
    /// The most bytes of stack in use since; [`None`] if that is more than was painted.
    #[inline(never)]
    pub fn most(&self) -> Option<usize> {
        // SAFETY: as above.
        let clean = (0..self.words).take_while(|&i| unsafe { self.low.add(i).read_volatile() } == PAINT).count();
        (clean > 0).then(|| REACH - 4 * clean + MARGIN)
    }
}
