//! A walk over a pickle's opcodes that builds nothing: it bounds the work and memory of the reader that follows.

/// More opcodes than any real checkpoint has; each leaves at most one small object behind.
const MAX_OPCODES: usize = 4_000_000;

/// The number 0x1950a86a20f9469cfc6c, with which PyTorch's format before 1.6 begins, as its pickle holds it.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file is of PyTorch's format before 1.6: a pickle that begins with the magic number, in a `LONG1` after
/// the protocol (and, from protocol 4 on, a frame).
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    let head = bytes.get(..64.min(bytes.len())).unwrap_or_default();
    head.first() == Some(&0x80) && head.windows(LEGACY_MAGIC.len()).any(|window| window == LEGACY_MAGIC)
}

/// Walks over `count` pickles that follow each other.
pub(super) fn check(bytes: &[u8], count: usize) -> Result<(), String> {
    let mut rest = bytes;
    let mut opcodes = 0;
    for _ in 0..count {
        loop {
            let at = bytes.len() - rest.len();
            let opcode = take(&mut rest, 1).and_then(|b| b.first().copied());
            let opcode = opcode.ok_or_else(|| format!("its pickle ends at byte {at} without a STOP"))?;
            opcodes += 1;
            if opcodes > MAX_OPCODES {
                return Err(format!("its pickle has more than {MAX_OPCODES} operations"));
            }
            if opcode == b'.' {
                break;
            }
            skip_argument(opcode, &mut rest)
                .ok_or_else(|| format!("operation {opcode:#04x} at byte {at} of its pickle is unknown or cut off"))?;
        }
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn skip_line(rest: &mut &[u8]) -> Option<()> {
    let end = rest.iter().position(|b| *b == b'\n')?;
    take(rest, end + 1).map(|_| ())
}

/// Skips a little-endian length of `bytes` bytes and as many bytes as it says.
fn skip_counted(rest: &mut &[u8], bytes: usize) -> Option<()> {
    let count =
        take(rest, bytes)?.iter().rev().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add((*b).into()))?;
    take(rest, count).map(|_| ())
}

fn skip_argument(opcode: u8, rest: &mut &[u8]) -> Option<()> {
    let fixed = match opcode {
        b'(' | b'0' | b'1' | b'2' | b'N' | b'R' | b'b' | b'd' | b'l' | b't' | b's' | b'a' | b')' | b']' | b'}' => 0,
        b'e' | b'u' | b'Q' | 0x81 | 0x85..=0x89 | 0x8f..=0x94 => 0,
        b'K' | b'h' | b'q' | 0x80 => 1,
        b'M' => 2,
        b'J' | b'j' | b'r' => 4,
        b'G' | 0x95 => 8,
        b'I' | b'L' | b'F' | b'V' | b'S' | b'g' | b'p' | b'P' => return skip_line(rest),
        b'c' | b'i' => {
            skip_line(rest)?;
            return skip_line(rest);
        }
        b'U' | b'C' | 0x8a | 0x8c => return skip_counted(rest, 1),
        b'T' | b'X' | b'B' | 0x8b => return skip_counted(rest, 4),
        0x8d | 0x8e | 0x96 => return skip_counted(rest, 8),
        _ => return None,
    };
    take(rest, fixed).map(|_| ())
}
