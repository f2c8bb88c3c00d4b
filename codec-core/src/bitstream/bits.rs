//! Fixed-width codes, most significant bit first.

use super::{Error, Layout};

/// Bits of a code of a book with `size` entries: `ceil(log2(size))`.
pub(super) const fn width(size: u32) -> u32 {
    if size <= 1 { 0 } else { u32::BITS - (size - 1).leading_zeros() }
}

/// Appends the low `width` bits (at most 16) of `value` at bit `at`. What lies behind the last bit written
/// in its byte becomes 0, so bytes need no clearing before. Bits that do not fit are dropped.
fn put(bytes: &mut [u8], at: usize, value: u16, width: u32) {
    let (mut at, mut left) = (at, width);
    while left > 0 {
        let free = 8 - (at % 8) as u32;
        let n = free.min(left);
        let piece = ((u32::from(value) >> (left - n)) & ((1 << n) - 1)) << (free - n);
        if let Some(byte) = bytes.get_mut(at / 8) {
            *byte = if free == 8 { piece as u8 } else { *byte | piece as u8 };
        }
        at += n as usize;
        left -= n;
    }
}

/// The `width` bits (at most 16) at bit `at`; bits past the end are 0.
fn get(bytes: &[u8], at: usize, width: u32) -> u16 {
    let first = at / 8;
    let byte = |i: usize| bytes.get(first + i).map_or(0, |&b| u32::from(b));
    let window = byte(0) << 16 | byte(1) << 8 | byte(2);
    (window >> (24 - (at % 8) as u32 - width) & ((1 << width) - 1)) as u16
}

/// Checks that every code of whole frames is below its book's size. `first_frame` is for the error.
pub(super) fn check(layout: &Layout<'_>, codes: &[u16], first_frame: u64) -> Result<(), Error> {
    let mut codes = codes.iter();
    check_each(layout, codes.len() / layout.codes_per_frame(), first_frame, |_| {
        codes.next().copied().unwrap_or_default()
    })
}

/// The same for packed codes.
pub(super) fn check_packed(layout: &Layout<'_>, bytes: &[u8], frames: usize, first_frame: u64) -> Result<(), Error> {
    if layout.groups().all(|group| group.size.is_power_of_two()) {
        return Ok(());
    }
    let mut at = 0;
    check_each(layout, frames, first_frame, |width| {
        at += width as usize;
        get(bytes, at - width as usize, width)
    })
}

fn check_each(
    layout: &Layout<'_>,
    frames: usize,
    first_frame: u64,
    mut next: impl FnMut(u32) -> u16,
) -> Result<(), Error> {
    for frame in 0..frames {
        let mut position = 0;
        for group in layout.groups() {
            let width = width(group.size);
            for _ in 0..group.codes() {
                let code = next(width);
                if u32::from(code) >= group.size {
                    let frame = first_frame.saturating_add(frame as u64);
                    return Err(Error::Code { frame, position, code, size: group.size });
                }
                position += 1;
            }
        }
    }
    Ok(())
}

/// Packs whole frames of codes, which [`check`] has passed, from bit `at` on.
pub(super) fn pack(layout: &Layout<'_>, codes: &[u16], bytes: &mut [u8], at: usize) {
    let mut at = at;
    for codes in codes.chunks_exact(layout.codes_per_frame()) {
        let mut codes = codes.iter();
        for group in layout.groups() {
            let width = width(group.size);
            for &code in codes.by_ref().take(group.codes()) {
                put(bytes, at, code, width);
                at += width as usize;
            }
        }
    }
}

/// Unpacks as many whole frames as `codes` holds, from bit `at` on.
pub(super) fn unpack(layout: &Layout<'_>, bytes: &[u8], at: usize, codes: &mut [u16]) {
    let mut at = at;
    for codes in codes.chunks_exact_mut(layout.codes_per_frame()) {
        let mut codes = codes.iter_mut();
        for group in layout.groups() {
            let width = width(group.size);
            for code in codes.by_ref().take(group.codes()) {
                *code = get(bytes, at, width);
                at += width as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        for (size, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (65535, 16), (65536, 16)] {
            assert_eq!(width(size), bits, "size {size}");
        }
    }

    #[test]
    fn most_significant_bit_first() {
        let mut bytes = [0xff; 4];
        put(&mut bytes, 0, 0b101, 3);
        put(&mut bytes, 3, 0b01_1001_1001, 10);
        put(&mut bytes, 13, 0xffff, 16);
        assert_eq!(bytes, [0b1010_1100, 0b1100_1111, 0xff, 0b1111_1000]);
        assert_eq!((get(&bytes, 0, 3), get(&bytes, 3, 10), get(&bytes, 13, 16)), (0b101, 0b01_1001_1001, 0xffff));
    }
}
