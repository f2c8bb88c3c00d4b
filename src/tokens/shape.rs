//! The shapes in which language models want codes, and the way back.
//!
//! A frame's codes are written as ids, in columns:
//!
//! | pattern | array | column `t` |
//! |---|---|---|
//! | [`Pattern::Grid`] | `[codes a frame, frames]` | the codes of frame `t` |
//! | [`Pattern::Flat`] | `[frames * codes a frame]` | frame by frame, and in a frame book by book |
//! | [`Pattern::Delay`] | `[codes a frame, frames + longest delay]` | book `k` of frame `t - delay[k]`; a pad where there is none |
//! | [`Pattern::Tree`] | `[frames * codes a frame]` | a frame's levels depth first: each code before those of the next level in its time |
//!
//! Of a quantizer with levels of several rates a frame is a period of the slowest, with the codes of all levels.
//!
//! ```
//! use codec::{Codes, core::bitstream::CodeGroup};
//! use codec::tokens::{Arrangement, Pattern, Shape};
//!
//! // Three frames of two books with 1024 entries, as MusicGen takes them.
//! let codes = Codes { codebooks: 2, data: vec![1, 11, 2, 12, 3, 13], segments: vec![] };
//! let shape = Shape { pattern: Pattern::Delay(vec![]), ..Shape::default() };
//! let delayed = Arrangement::new(&shape, &[CodeGroup::single_rate(2, 1024)])?;
//! let ids = delayed.arrange(&codes)?;
//! // Column by column: book 0, book 1.
//! assert_eq!(ids, [1, 1024, 2, 11, 3, 12, 1024, 13]);
//! assert_eq!(delayed.restore(&ids)?, codes);
//!
//! // A frame of SNAC at 24 kHz, as Orpheus takes it: 1 + 2 + 4 codes.
//! let level = |level, book, steps| CodeGroup { level, first_book: book, books: 1, steps, size: 4096 };
//! let snac = [level(0, 0, 1), level(1, 1, 2), level(2, 2, 4)];
//! let shape = Shape { pattern: Pattern::Tree, offsets: true, ..Shape::default() };
//! let frame = Codes { codebooks: 7, data: vec![0, 10, 11, 20, 21, 22, 23], segments: vec![] };
//! let ids = Arrangement::new(&shape, &snac)?.arrange(&frame)?;
//! assert_eq!(ids, [0, 4096 + 10, 2 * 4096 + 20, 3 * 4096 + 21, 4 * 4096 + 11, 5 * 4096 + 22, 6 * 4096 + 23]);
//! # Ok::<(), codec::tokens::ShapeError>(())
//! ```

use std::fmt;

use codec_core::bitstream::{CodeGroup, MAX_CODES_PER_FRAME};
use serde::{Deserialize, Serialize};

use crate::Codes;

/// The longest delay, in frames.
pub const MAX_DELAY: u32 = 4096;
/// The largest id: files hold them as `i32`.
const MAX_ID: u32 = i32::MAX as u32;

/// The order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// A row for each code of a frame, a column for each frame.
    #[default]
    Grid,
    /// One sequence, frame by frame ("flattening" in Copet et al. 2023, section 2.2).
    Flat,
    /// Rows shifted right by so many frames each, a list for all codes of a frame. None: code `k` by `k` frames, the
    /// delay pattern of MusicGen (Copet et al. 2023, "Simple and Controllable Music Generation", arXiv 2306.05284, section 2.2). Moshi
    /// delays the acoustic books of Mimi by 1 or 2 and the semantic one by 0 (Défossez et al. 2024, arXiv 2410.00037, acoustic delay in "Audio modeling").
    /// Neither has here the column of pads that a model is given before the first one.
    Delay(Vec<u32>),
    /// One sequence, the levels of each frame depth first. For levels of 1, 2 and 4 codes the seven tokens of Orpheus: `c0[i]`, `c1[2i]`,
    /// `c2[4i]`, `c2[4i+1]`, `c1[2i+1]`, `c2[4i+2]`, `c2[4i+3]` (`redistribute_codes` of canopyai/Orpheus-TTS puts
    /// them back in this order); of four levels the published flattening of 15 tokens for SNAC at 32 and 44 kHz, `A B1 C1 D1 D2 C2 D3 D4 B2 C3 D5
    /// D6 C4 D7 D8`. Of one rate: as [`Pattern::Flat`].
    Tree,
}

/// How codes are laid out as ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// The order.
    pub pattern: Pattern,
    /// Whether the codes of a frame have ids of their own: each counts from where those of the one written before it end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offsets: bool,
    /// The id in cells without a code; `None`: the first that no code has. Of [`Pattern::Delay`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<u32>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Grid => f.write_str("grid")?,
            Pattern::Flat => f.write_str("flat")?,
            Pattern::Delay(delays) => write!(f, "delay {delays:?}")?,
            Pattern::Tree => f.write_str("tree")?,
        }
        if self.offsets {
            f.write_str(" with offsets")?;
        }
        self.pad.map_or(Ok(()), |pad| write!(f, " with pad {pad}"))
    }
}

/// Why codes have no such shape, or ids are not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// An id that the code of its cell cannot have.
    #[error("code {value} of frame {frame}, codebook {codebook} is out of range ({first} to {last})")]
    CodeOutOfRange {
        /// Frame, from 0.
        frame: u64,
        /// Code of the frame, from 0.
        codebook: usize,
        /// The id.
        value: i128,
        /// The first id of the code.
        first: u32,
        /// The last.
        last: u32,
    },
    /// A cell before the first frame of its row holds something else than the pad.
    #[error("column {column}, row {row} lies before the row's first frame and holds {value}, not the pad {pad}")]
    NotPad {
        /// Column, from 0.
        column: u64,
        /// Row, from 0.
        row: usize,
        /// What is there.
        value: i128,
        /// What should be.
        pad: u32,
    },
    /// A cell behind the last frame of its row holds something else than the pad.
    #[error(
        "of {columns} columns the last {longest} end the delays, and column {column}, row {row} holds {value}, not the pad \
         {pad}: the delay pattern was cut short, or its delays or its pad are others"
    )]
    DelayCutShort {
        /// Columns there are.
        columns: u64,
        /// The longest delay.
        longest: u64,
        /// Column, from 0.
        column: u64,
        /// Row, from 0.
        row: usize,
        /// What is there.
        value: i128,
        /// What should be.
        pad: u32,
    },
    /// Fewer columns than the delays are long.
    #[error("{columns} columns, and a delay pattern has at least {longest}: it was cut short")]
    DelayTooShort {
        /// Columns there are.
        columns: u64,
        /// The longest delay.
        longest: u64,
    },
    /// Ids that do not divide into frames.
    #[error("{ids} ids do not divide into frames of {codes}: the last {} are left over", ids % (*codes as u64))]
    PartOfFrame {
        /// Ids there are.
        ids: u64,
        /// Codes of a frame.
        codes: usize,
    },
    /// Delays for another number of rows.
    #[error("{given} delays, and a frame has {codes} codes")]
    Delays {
        /// Delays given.
        given: usize,
        /// Codes of a frame.
        codes: usize,
    },
    /// A delay that is too long.
    #[error("a delay of {0} frames, and the longest is {MAX_DELAY}")]
    LongDelay(u32),
    /// A pad that a code could be, or too large.
    #[error("a pad of {pad}, and it must be from {first} to {MAX_ID}: codes have the ids below")]
    Pad {
        /// The pad.
        pad: u32,
        /// The first id that no code has.
        first: u32,
    },
    /// A pad for a pattern without empty cells.
    #[error("a pad of {0}, and only a delay pattern has cells without a code")]
    PadWithoutDelay(u32),
    /// A tree of levels that are not faster and faster.
    #[error(
        "level {level} has {steps} codes a frame and the one before has {before}: in a tree each is a multiple of the one before"
    )]
    NoTree {
        /// Level, from 0.
        level: usize,
        /// Its codes a frame and book.
        steps: u16,
        /// Those of the level before.
        before: u16,
    },
    /// Levels that no file has.
    #[error(
        "levels of {levels}: books and steps are at least 1, sizes 2 to 65536, and a frame has 1 to {MAX_CODES_PER_FRAME} codes"
    )]
    BadLevels {
        /// The levels.
        levels: Levels,
    },
    /// Codes of another number a frame than the levels have.
    #[error("{codes} codes a frame, and its levels are {levels}")]
    Levels {
        /// Codes of a frame.
        codes: usize,
        /// The levels.
        levels: Levels,
    },
    /// The levels are needed and nothing tells them.
    #[error("the shape {0} needs the levels of the codes, and the file does not state them")]
    NoLevels(Shape),
    /// The file says that it has another shape.
    #[error("its shape is {file}, and not {given}")]
    Other {
        /// The file's.
        file: Shape,
        /// What was asked for.
        given: Shape,
    },
    /// A delay pattern of a signal in segments.
    #[error("codes in segments have no delay pattern: segments are coded by themselves")]
    Segments,
    /// The native container has a shape of its own.
    #[error("a .nac file has no shape to choose")]
    Native,
}

/// The levels of a frame's codes, to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(pub Vec<CodeGroup>);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, group) in self.0.iter().enumerate() {
            let CodeGroup { first_book, books, steps, size, .. } = group;
            let plural = if *books == 1 { "" } else { "s" };
            write!(f, "{}{books} book{plural} of {size} × {steps}", if i == 0 { "" } else { ", " })?;
            if i == 0 && *first_book > 0 {
                write!(f, " from book {first_book} on")?;
            }
        }
        if self.0.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// A code of a frame, where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Index in the frame.
    code: usize,
    /// First id.
    offset: u32,
    size: u32,
    delay: usize,
}

/// A [`Shape`] of codes with given levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    shape: Shape,
    /// In the order in which they are written.
    slots: Vec<Slot>,
    /// Index of each code's slot.
    order: Vec<usize>,
    longest: usize,
    pad: u32,
}

impl Arrangement {
    /// Lays out codes of these levels.
    ///
    /// # Errors
    /// [`ShapeError`]: levels, delays or pad do not fit.
    pub fn new(shape: &Shape, levels: &[CodeGroup]) -> Result<Self, ShapeError> {
        let codes = codes_of(levels)?;
        let sizes: Vec<u32> = levels.iter().flat_map(|g| std::iter::repeat_n(g.size, g.codes())).collect();
        let order = match shape.pattern {
            Pattern::Tree => tree(levels)?,
            _ => (0..codes).collect(),
        };
        let delays: Vec<u32> = match &shape.pattern {
            Pattern::Delay(list) if list.is_empty() => (0..codes as u32).collect(),
            Pattern::Delay(list) if list.len() != codes => {
                return Err(ShapeError::Delays { given: list.len(), codes });
            }
            Pattern::Delay(list) => list.clone(),
            _ => vec![0; codes],
        };
        let longest = delays.iter().copied().max().unwrap_or(0);
        if longest > MAX_DELAY {
            return Err(ShapeError::LongDelay(longest));
        }
        // At most 1024 codes of 65536 entries: no sum overflows.
        let mut next = 0;
        let mut slots = Vec::with_capacity(codes);
        for (&code, &delay) in order.iter().zip(&delays) {
            let size = sizes.get(code).copied().unwrap_or(0);
            slots.push(Slot { code, offset: if shape.offsets { next } else { 0 }, size, delay: delay as usize });
            next += size;
        }
        let first = slots.iter().map(|s| s.offset + s.size).max().unwrap_or(0);
        let mut shape = shape.clone();
        let pad = shape.pad.unwrap_or(first);
        match &mut shape.pattern {
            Pattern::Delay(list) => {
                *list = delays;
                shape.pad = Some(pad);
            }
            _ => {
                if let Some(pad) = shape.pad {
                    return Err(ShapeError::PadWithoutDelay(pad));
                }
            }
        }
        if !(first..=MAX_ID).contains(&pad) {
            return Err(ShapeError::Pad { pad, first });
        }
        let mut by_code = vec![0; codes];
        for (i, slot) in slots.iter().enumerate() {
            if let Some(at) = by_code.get_mut(slot.code) {
                *at = i;
            }
        }
        Ok(Self { shape, slots, order: by_code, longest: longest as usize, pad })
    }

    /// A grid of codes of which nothing is known but their number, at least 1.
    pub(super) fn plain(codes: usize) -> Self {
        let slots = (0..codes).map(|code| Slot { code, offset: 0, size: 1 << 16, delay: 0 }).collect();
        Self { shape: Shape::default(), slots, order: (0..codes).collect(), longest: 0, pad: 1 << 16 }
    }

    /// The shape, with delays and pad spelled out.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Codes of a frame, and ids of a column.
    pub fn codes(&self) -> usize {
        self.slots.len()
    }

    /// Whether the columns follow each other in one sequence.
    pub fn is_sequence(&self) -> bool {
        matches!(self.shape.pattern, Pattern::Flat | Pattern::Tree)
    }

    /// Columns beyond the frames.
    pub fn longest_delay(&self) -> u64 {
        self.longest as u64
    }

    /// The first id that no code has: how many a model's vocabulary needs, pads aside.
    pub fn ids(&self) -> u32 {
        self.slots.iter().map(|s| s.offset + s.size).max().unwrap_or(0)
    }

    /// All of a signal's ids, column by column. Segments are left away.
    ///
    /// # Errors
    /// [`ShapeError::Levels`], [`ShapeError::PartOfFrame`], [`ShapeError::CodeOutOfRange`].
    pub fn arrange(&self, codes: &Codes) -> Result<Vec<u32>, ShapeError> {
        if codes.codebooks != self.codes() {
            let group = |s: &Slot| CodeGroup::single_rate(1, s.size);
            let levels = Levels(self.order.iter().filter_map(|&i| self.slots.get(i)).map(group).collect());
            return Err(ShapeError::Levels { codes: codes.codebooks, levels });
        }
        let mut arranger = Arranger::new(self.clone());
        let mut ids = Vec::with_capacity(codes.data.len() + self.longest * self.codes());
        arranger.push(&codes.data, &mut ids)?;
        arranger.finish(&mut ids);
        Ok(ids)
    }

    /// The codes of all of a signal's ids.
    ///
    /// # Errors
    /// [`ShapeError`]: the ids are not of this shape.
    pub fn restore(&self, ids: &[u32]) -> Result<Codes, ShapeError> {
        let mut restorer = Restorer::new(self.clone());
        let mut codes = Codes::new(self.codes());
        restorer.push(ids.iter().map(|&id| id.into()), &mut codes.data)?;
        restorer.finish()?;
        Ok(codes)
    }
}

/// Codes a frame of levels that a file can have.
pub(super) fn codes_of(levels: &[CodeGroup]) -> Result<usize, ShapeError> {
    let valid = |g: &CodeGroup| g.books > 0 && g.steps > 0 && (2..=1 << 16).contains(&g.size);
    let codes = levels.iter().map(CodeGroup::codes).fold(0usize, usize::saturating_add);
    if !levels.iter().all(valid) || !(1..=MAX_CODES_PER_FRAME).contains(&codes) {
        return Err(ShapeError::BadLevels { levels: Levels(levels.to_vec()) });
    }
    Ok(codes)
}

/// The codes of a frame, depth first.
fn tree(levels: &[CodeGroup]) -> Result<Vec<usize>, ShapeError> {
    for (level, pair) in levels.windows(2).enumerate() {
        if let [a, b] = pair
            && b.steps % a.steps != 0
        {
            return Err(ShapeError::NoTree { level: level + 1, steps: b.steps, before: a.steps });
        }
    }
    // Level, its step of the frame, and the index of its first code; what is to come next is last.
    let mut order = Vec::new();
    let root = levels.first().map_or(0, |g| usize::from(g.steps));
    let mut ahead: Vec<(usize, usize, usize)> = (0..root).rev().map(|step| (0, step, 0)).collect();
    while let Some((level, step, start)) = ahead.pop() {
        let Some(group) = levels.get(level) else { continue };
        let books = usize::from(group.books);
        order.extend((0..books).map(|book| start + step * books + book));
        if let Some(next) = levels.get(level + 1) {
            let ratio = usize::from(next.steps / group.steps);
            let start = start + group.codes();
            ahead.extend((0..ratio).rev().map(|j| (level + 1, step * ratio + j, start)));
        }
    }
    Ok(order)
}

/// Turns frames into columns of ids, in pieces of any length.
#[derive(Clone, Debug)]
pub struct Arranger {
    to: Arrangement,
    /// The last frames, as many as a delay is long and one, by their number.
    recent: Vec<u16>,
    frames: u64,
}

impl Arranger {
    /// At the start of a signal.
    pub fn new(to: Arrangement) -> Self {
        let recent = vec![0; (to.longest + 1) * to.codes()];
        Self { to, recent, frames: 0 }
    }

    /// What the ids are arranged to.
    pub fn arrangement(&self) -> &Arrangement {
        &self.to
    }

    /// Takes whole frames, `[frames, codes]`, and appends as many columns to `ids`.
    ///
    /// # Errors
    /// [`ShapeError::PartOfFrame`], [`ShapeError::CodeOutOfRange`].
    pub fn push(&mut self, codes: &[u16], ids: &mut Vec<u32>) -> Result<(), ShapeError> {
        let width = self.to.codes();
        if !codes.len().is_multiple_of(width) {
            return Err(ShapeError::PartOfFrame { ids: codes.len() as u64, codes: width });
        }
        for frame in codes.chunks_exact(width) {
            for (slot, &code) in self.to.order.iter().filter_map(|&i| self.to.slots.get(i)).zip(frame) {
                if u32::from(code) >= slot.size {
                    let (frame, codebook, value) = (self.frames, slot.code, code.into());
                    return Err(ShapeError::CodeOutOfRange { frame, codebook, value, first: 0, last: slot.size - 1 });
                }
            }
            let at = (self.frames % (self.to.longest as u64 + 1)) as usize * width;
            self.recent[at..at + width].copy_from_slice(frame);
            self.frames += 1;
            self.column(self.frames - 1, ids);
        }
        Ok(())
    }

    /// Ends the signal: appends the columns that the delays are longer, and starts anew.
    pub fn finish(&mut self, ids: &mut Vec<u32>) {
        for t in self.frames..self.frames + self.to.longest_delay() {
            self.column(t, ids);
        }
        self.frames = 0;
    }

    fn column(&self, t: u64, ids: &mut Vec<u32>) {
        let Arrangement { slots, longest, pad, .. } = &self.to;
        ids.extend(slots.iter().map(|slot| match t.checked_sub(slot.delay as u64) {
            Some(frame) if frame < self.frames => {
                let at = (frame % (*longest as u64 + 1)) as usize * slots.len() + slot.code;
                slot.offset + u32::from(self.recent[at])
            }
            _ => *pad,
        }));
    }
}

/// Turns columns of ids back into frames, in pieces of any length.
#[derive(Clone, Debug)]
pub struct Restorer {
    from: Arrangement,
    /// The frames that delays hold back, by their number.
    open: Vec<i128>,
    columns: u64,
    /// Ids of the column that is not whole.
    at: usize,
}

impl Restorer {
    /// At the start of a signal.
    pub fn new(from: Arrangement) -> Self {
        let open = vec![0; (from.longest + 1) * from.codes()];
        Self { from, open, columns: 0, at: 0 }
    }

    /// What the ids are arranged to.
    pub fn arrangement(&self) -> &Arrangement {
        &self.from
    }

    /// Frames that came out.
    pub fn frames(&self) -> u64 {
        self.columns.saturating_sub(self.from.longest_delay())
    }

    fn place(&self, frame: u64, code: usize) -> usize {
        (frame % (self.from.longest as u64 + 1)) as usize * self.from.codes() + code
    }

    /// Takes ids, column by column but in any pieces, and appends the frames that they complete to `codes`.
    ///
    /// # Errors
    /// [`ShapeError::CodeOutOfRange`], [`ShapeError::NotPad`].
    pub fn push(&mut self, ids: impl IntoIterator<Item = i128>, codes: &mut Vec<u16>) -> Result<(), ShapeError> {
        for value in ids {
            let Some(slot) = self.from.slots.get(self.at) else { continue };
            match self.columns.checked_sub(slot.delay as u64) {
                Some(frame) => {
                    let place = self.place(frame, slot.code);
                    self.open[place] = value;
                }
                None if value == i128::from(self.from.pad) => {}
                None => {
                    let (column, row, pad) = (self.columns, self.at, self.from.pad);
                    return Err(ShapeError::NotPad { column, row, value, pad });
                }
            }
            self.at += 1;
            if self.at == self.from.codes() {
                self.at = 0;
                self.columns += 1;
                if let Some(frame) = self.columns.checked_sub(self.from.longest_delay() + 1) {
                    self.emit(frame, codes)?;
                }
            }
        }
        Ok(())
    }

    fn emit(&self, frame: u64, codes: &mut Vec<u16>) -> Result<(), ShapeError> {
        for slot in self.from.order.iter().filter_map(|&i| self.from.slots.get(i)) {
            let value = self.open[self.place(frame, slot.code)];
            let code = value.checked_sub(slot.offset.into()).filter(|c| (0..i128::from(slot.size)).contains(c));
            let (codebook, first) = (slot.code, slot.offset);
            let last = first + slot.size - 1;
            let code = code.and_then(|c| u16::try_from(c).ok());
            codes.push(code.ok_or(ShapeError::CodeOutOfRange { frame, codebook, value, first, last })?);
        }
        Ok(())
    }

    /// Ends the signal, and starts anew. All of its frames have come out before.
    ///
    /// A delay pattern that was cut short shows it by codes where pads should be at its end. Where all rows are delayed alike there
    /// are no such pads.
    ///
    /// # Errors
    /// [`ShapeError::PartOfFrame`], [`ShapeError::DelayTooShort`], [`ShapeError::DelayCutShort`].
    pub fn finish(&mut self) -> Result<(), ShapeError> {
        let (columns, left, longest) = (self.columns, self.at, self.from.longest_delay());
        let codes = self.from.codes();
        (self.columns, self.at) = (0, 0);
        if left > 0 {
            return Err(ShapeError::PartOfFrame { ids: columns * codes as u64 + left as u64, codes });
        }
        let Some(frames) = columns.checked_sub(longest) else {
            return Err(ShapeError::DelayTooShort { columns, longest });
        };
        for frame in frames..columns {
            for (row, slot) in self.from.slots.iter().enumerate() {
                let column = frame + slot.delay as u64;
                let (value, pad) = (self.open[self.place(frame, slot.code)], self.from.pad);
                if column < columns && value != i128::from(pad) {
                    return Err(ShapeError::DelayCutShort { columns, longest, column, row, value, pad });
                }
            }
        }
        Ok(())
    }
}
