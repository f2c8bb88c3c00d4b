//! Blocks of memory that hold a signal's state: plain bytes, position independent, whoever owns them.
//!
//! A block is words first (the first of which says that it was initialised) and values behind them, both from a
//! multiple of 64 bytes on.

use crate::RunError;

/// Bytes to which a block of state must be aligned. Blocks that start on a 64-byte boundary are faster.
pub const STATE_ALIGN: usize = 8;

/// Parts of a block start at multiples of this many bytes.
pub(super) const PART: usize = 64;

/// `count` elements of `size` bytes, rounded up to whole parts; `None` if that cannot be addressed.
pub(super) fn part(count: usize, size: usize) -> Option<usize> {
    count.checked_mul(size)?.checked_next_multiple_of(PART)
}

/// The sum of what a block's parts take; `None` if that cannot be addressed.
pub(super) fn sum(parts: &[Option<usize>]) -> Option<usize> {
    let total = parts.iter().try_fold(0usize, |sum, part| sum.checked_add((*part)?))?;
    (total <= isize::MAX as usize).then_some(total)
}

/// Cuts a part of `count` elements off the front of a block.
pub(super) fn take<'m, T: bytemuck::Pod>(memory: &mut &'m mut [u8], count: usize) -> Result<&'m mut [T], RunError> {
    let short = RunError::Internal("a block of state is shorter than it says");
    let bytes = part(count, size_of::<T>()).ok_or(short)?;
    let (head, rest) = core::mem::take(memory).split_at_mut_checked(bytes).ok_or(short)?;
    *memory = rest;
    // Parts are rounded up, not down: the values fit.
    let head = head.get_mut(..count * size_of::<T>()).ok_or(short)?;
    bytemuck::try_cast_slice_mut(head).map_err(|_| RunError::Misaligned { align: STATE_ALIGN })
}

/// Checks a caller's block before it is initialised.
pub(super) fn check(memory: &[u8], needed: Option<usize>) -> Result<usize, RunError> {
    let needed = needed.ok_or(RunError::BufferTooShort { needed: usize::MAX, got: memory.len() })?;
    if memory.as_ptr().align_offset(STATE_ALIGN) != 0 {
        return Err(RunError::Misaligned { align: STATE_ALIGN });
    }
    if memory.len() < needed {
        return Err(RunError::BufferTooShort { needed, got: memory.len() });
    }
    Ok(needed)
}
