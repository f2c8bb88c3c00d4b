//! What files say of their shape, and what is known beside it.

use codec_core::bitstream::CodeGroup;
use serde::{Deserialize, Serialize};

use super::{Arrangement, Arranger, Known, Levels, Pattern, Shape, ShapeError, StreamInfo};

/// A level as files state it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatedLevel {
    first_book: u16,
    books: u16,
    steps: u16,
    size: u32,
}

/// Levels as files state them.
pub(super) fn state(levels: &[CodeGroup]) -> Vec<StatedLevel> {
    let stated =
        |&CodeGroup { first_book, books, steps, size, .. }: &CodeGroup| StatedLevel { first_book, books, steps, size };
    levels.iter().map(stated).collect()
}

/// The shape and the levels that a file states.
#[derive(Default)]
pub(super) struct PartOfFile {
    pub shape: Option<Shape>,
    pub levels: Vec<CodeGroup>,
}

impl PartOfFile {
    pub fn new(shape: Option<Shape>, levels: &[StatedLevel]) -> Self {
        let mut rates: Vec<u16> = levels.iter().map(|l| l.steps).collect();
        rates.sort_unstable();
        rates.dedup();
        let group = |&StatedLevel { first_book, books, steps, size }: &StatedLevel| {
            let level = u8::try_from(rates.partition_point(|&r| r < steps)).unwrap_or(u8::MAX);
            CodeGroup { level, first_book, books, steps, size }
        };
        Self { shape, levels: levels.iter().map(group).collect() }
    }
}

impl Known {
    /// How the ids of a file lie. It has `rows` rows; of a sequence it may say how many codes a frame has.
    pub(super) fn resolve(
        &self,
        file: &PartOfFile,
        rows: usize,
        sequence: Option<usize>,
    ) -> Result<Arrangement, ShapeError> {
        let shape = file.shape.as_ref().or(self.shape.as_ref()).cloned().unwrap_or_default();
        let codes = match shape.pattern {
            Pattern::Flat | Pattern::Tree => sequence,
            Pattern::Grid | Pattern::Delay(_) => Some(rows),
        };
        let levels = match codes {
            _ if !file.levels.is_empty() => file.levels.clone(),
            _ if shape == Shape::default() => return Ok(Arrangement::plain(rows)),
            _ if self.levels.is_empty() => return Err(ShapeError::NoLevels(shape)),
            Some(codes) if self.part.iter().map(CodeGroup::codes).sum::<usize>() == codes => self.part.clone(),
            Some(codes) => first(&self.levels, codes)?,
            None => self.levels.clone(),
        };
        let arrangement = Arrangement::new(&shape, &levels)?;
        if let Some(codes) = codes.filter(|&n| n != arrangement.codes()) {
            return Err(ShapeError::Levels { codes, levels: Levels(levels) });
        }
        if let Some(given) = &self.shape {
            let given = Arrangement::new(given, &levels)?.shape().clone();
            if given != *arrangement.shape() {
                return Err(ShapeError::Other { file: arrangement.shape().clone(), given });
            }
        }
        Ok(arrangement)
    }
}

/// The levels of a frame's first codes.
fn first(levels: &[CodeGroup], codes: usize) -> Result<Vec<CodeGroup>, ShapeError> {
    let mut left = codes;
    let mut cut = Vec::new();
    for &group in levels {
        let taken = match group.steps {
            _ if left >= group.codes() => group,
            1 => CodeGroup { books: left as u16, ..group },
            _ => break,
        };
        left -= taken.codes();
        if taken.codes() > 0 {
            cut.push(taken);
        }
    }
    if left == 0 { Ok(cut) } else { Err(ShapeError::Levels { codes, levels: Levels(levels.to_vec()) }) }
}

/// Writes the codes of a stream as ids.
pub(super) fn arranger(stream: &StreamInfo) -> Result<Arranger, ShapeError> {
    let codes = stream.codebooks;
    let arrangement = match (&stream.shape, stream.levels.as_slice()) {
        (shape, []) if *shape == Shape::default() && codes > 0 => Arrangement::plain(codes),
        (shape, []) => return Err(ShapeError::NoLevels(shape.clone())),
        (shape, levels) => Arrangement::new(shape, levels)?,
    };
    if arrangement.codes() != codes {
        return Err(ShapeError::Levels { codes, levels: Levels(stream.levels.clone()) });
    }
    if stream.segmented && matches!(stream.shape.pattern, Pattern::Delay(_)) {
        return Err(ShapeError::Segments);
    }
    Ok(Arranger::new(arrangement))
}
