use memmap2::Mmap;

use super::{BLOCK, Known, MAX_CODEBOOKS, PartOfFile, Restorer, ShapeError, Step, TokenError};
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

/// An array of ids in a mapped file, as the file describes it.
#[derive(Debug)]
pub(super) struct Array<'a> {
    /// What kind of file it is, for messages.
    pub kind: &'static str,
    pub map: Mmap,
    /// Where the ids begin.
    pub offset: usize,
    pub int: Int,
    pub axes: &'a [usize],
    /// Fortran order.
    pub column_major: bool,
}

/// A matrix of ids `[rows, columns]` in a mapped file, read column by column as frames of codes.
#[derive(Debug)]
pub(super) struct Grid {
    map: Mmap,
    offset: usize,
    int: Int,
    columns: usize,
    /// Whether the ids of a column are neighbours.
    column_major: bool,
    restorer: Restorer,
    next: usize,
    ended: bool,
}

impl Grid {
    /// Checks that the array lies in the file and has the shape that the file or the reader says.
    pub fn new(array: Array<'_>, known: &Known, file: &PartOfFile) -> Result<Self, TokenError> {
        let Array { kind, map, offset, int, axes, mut column_major } = array;
        let malformed = |reason| TokenError::Malformed { kind, reason };
        let (rows, mut columns) = match axes {
            [ids] => (1, *ids),
            [ones @ .., rows, columns] if ones.iter().all(|&n| n == 1) => (*rows, *columns),
            _ => {
                return Err(malformed(format!(
                    "codes are [codebooks, frames] of one signal, and this array is {axes:?}"
                )));
            }
        };
        if rows == 0 || rows > MAX_CODEBOOKS {
            return Err(malformed(format!("it has {rows} codebooks, and codes have 1 to {MAX_CODEBOOKS}")));
        }
        let needed = rows.checked_mul(columns).and_then(|n| n.checked_mul(int.bytes)?.checked_add(offset));
        if needed.is_none_or(|n| n > map.len()) {
            let text = format!("{axes:?} codes do not fit into its {} bytes: it is cut off or damaged", map.len());
            return Err(malformed(text));
        }
        let arrangement = known.resolve(file, rows, None)?;
        if arrangement.is_sequence() {
            if rows > 1 {
                let shape = arrangement.shape();
                return Err(malformed(format!("its shape is {shape}, one sequence, and this array is {axes:?}")));
            }
            let codes = arrangement.codes();
            if !columns.is_multiple_of(codes) {
                return Err(ShapeError::PartOfFrame { ids: columns as u64, codes }.into());
            }
            columns /= codes;
            column_major = true;
        }
        let restorer = Restorer::new(arrangement);
        Ok(Self { map, offset, int, columns, column_major, restorer, next: 0, ended: false })
    }

    /// Codes of a frame.
    pub fn codebooks(&self) -> usize {
        self.restorer.arrangement().codes()
    }

    /// All frames.
    pub fn frames(&self) -> usize {
        self.columns.saturating_sub(self.restorer.arrangement().longest_delay() as usize)
    }

    pub fn shape(&self) -> &super::Shape {
        self.restorer.arrangement().shape()
    }

    /// Replaces `codes` by the frames that up to `limit` columns complete, or more columns if those complete none;
    /// [`Step::End`] if there are none left.
    pub fn next(&mut self, limit: usize, codes: &mut Codes) -> Result<Step, TokenError> {
        let rows = self.codebooks();
        codes.codebooks = rows;
        codes.data.clear();
        codes.segments.clear();
        while codes.data.is_empty() {
            let end = self.columns.min(self.next.saturating_add(limit));
            if end == self.next {
                if !std::mem::replace(&mut self.ended, true) {
                    self.restorer.finish()?;
                }
                return Ok(Step::End);
            }
            let (map, int, offset, columns, major) =
                (&self.map, self.int, self.offset, self.columns, self.column_major);
            let ids =
                (self.next..end).flat_map(|column| (0..rows).map(move |row| (row, column))).map(|(row, column)| {
                    let index = if major { column * rows + row } else { row * columns + column };
                    let at = offset + index * int.bytes;
                    int.get(map.get(at..at + int.bytes).unwrap_or(&[]))
                });
            self.restorer.push(ids, &mut codes.data)?;
            self.next = end;
        }
        Ok(Step::Frames)
    }

    /// As [`Self::next`] with the usual limit.
    pub fn next_block(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        self.next(BLOCK, codes)
    }
}
