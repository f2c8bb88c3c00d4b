use memmap2::Mmap;

use super::{BLOCK, Step, TokenError};
use crate::Codes;

/// Integers of a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int {
    /// 1, 2, 4 or 8.
    pub bytes: usize,
    pub signed: bool,
    pub big_endian: bool,
}

impl Int {
    fn get(self, bytes: &[u8]) -> i128 {
        let mut value = 0u64;
        for i in 0..self.bytes {
            let at = if self.big_endian { i } else { self.bytes - 1 - i };
            value = value << 8 | u64::from(bytes.get(at).copied().unwrap_or(0));
        }
        let unused = 64 - 8 * self.bytes;
        if self.signed { i128::from((value << unused) as i64 >> unused) } else { i128::from(value) }
    }
}

/// A matrix of codes `[codebooks, frames]` in a mapped file, read frame by frame.
#[derive(Debug)]
pub(super) struct Grid {
    map: Mmap,
    offset: usize,
    int: Int,
    pub codebooks: usize,
    pub frames: usize,
    /// Whether the codes of a frame are neighbours (Fortran order of `[codebooks, frames]`).
    frame_major: bool,
    next: usize,
}

impl Grid {
    /// Checks that the matrix lies in the file. The text of an error says what is wrong.
    pub fn new(map: Mmap, offset: usize, int: Int, shape: &[usize], frame_major: bool) -> Result<Self, String> {
        let (codebooks, frames) = match shape {
            [frames] => (1, *frames),
            [ones @ .., codebooks, frames] if ones.iter().all(|&n| n == 1) => (*codebooks, *frames),
            _ => return Err(format!("codes are [codebooks, frames] of one signal, and this array is {shape:?}")),
        };
        if codebooks == 0 {
            return Err("it has 0 codebooks".into());
        }
        let needed = codebooks.checked_mul(frames).and_then(|n| n.checked_mul(int.bytes)?.checked_add(offset));
        if needed.is_none_or(|n| n > map.len()) {
            return Err(format!("{shape:?} codes do not fit into its {} bytes: it is cut off or damaged", map.len()));
        }
        Ok(Self { map, offset, int, codebooks, frames, frame_major, next: 0 })
    }

    /// Replaces `codes` by up to `limit` frames; [`Step::End`] if there are none left.
    pub fn next(&mut self, limit: usize, codes: &mut Codes) -> Result<Step, TokenError> {
        codes.codebooks = self.codebooks;
        codes.data.clear();
        codes.segments.clear();
        let end = self.frames.min(self.next.saturating_add(limit));
        let bytes = self.int.bytes;
        for frame in self.next..end {
            for codebook in 0..self.codebooks {
                let index =
                    if self.frame_major { frame * self.codebooks + codebook } else { codebook * self.frames + frame };
                let at = self.offset + index * bytes;
                let value = self.int.get(self.map.get(at..at + bytes).unwrap_or(&[]));
                let code = u16::try_from(value).map_err(|_| TokenError::CodeOutOfRange {
                    frame: frame as u64,
                    codebook,
                    value,
                })?;
                codes.data.push(code);
            }
        }
        let step = if end > self.next { Step::Frames } else { Step::End };
        self.next = end;
        Ok(step)
    }

    /// As [`Self::next`] with the usual limit.
    pub fn next_block(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        self.next(BLOCK, codes)
    }

    /// Frames that were not read yet.
    pub fn left(&self) -> usize {
        self.frames - self.next
    }
}
