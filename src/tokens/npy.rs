//! NumPy's array file (`numpy.lib.format`, versions 1 to 3).

use std::{
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    Arranger, Known, PartOfFile, Step, StreamInfo, TokenError, TokenReader, TokenWriter, frames_of,
    grid::{Array, Grid, Int},
    stated::arranger,
};
use crate::{Codes, mapped::map};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of the header that is written: the shape fits whatever the length.
const HEADER: usize = 128;

/// Writes `i32` codes of shape `[codebooks, frames]`, in Fortran order so that frames can be appended;
/// `numpy.load` gives the same array either way. In another [`Shape`](super::Shape) they are ids; a sequence has one axis.
pub struct NpyWriter<W> {
    out: W,
    arranger: Arranger,
    ids: Vec<u32>,
    /// Ids written.
    written: u64,
    bytes: Vec<u8>,
}

impl<W: Write + Seek> NpyWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`TokenError::NoPlaceForScales`] for a segmented stream; [`TokenError::Shape`]; [`TokenError::Io`].
    pub fn new(out: W, stream: &StreamInfo) -> Result<Self, TokenError> {
        if stream.segmented {
            return Err(TokenError::NoPlaceForScales);
        }
        let arranger = arranger(stream)?;
        let mut writer = Self { out, arranger, ids: Vec::new(), written: 0, bytes: Vec::new() };
        writer.header()?;
        Ok(writer)
    }

    fn header(&mut self) -> Result<(), TokenError> {
        let arrangement = self.arranger.arrangement();
        let rows = arrangement.codes();
        let shape = if arrangement.is_sequence() {
            format!("({},)", self.written)
        } else {
            format!("({rows}, {})", self.written / rows as u64)
        };
        let text = format!("{{'descr': '<i4', 'fortran_order': True, 'shape': {shape}, }}");
        let length = HEADER - MAGIC.len() - 4;
        self.out.write_all(MAGIC)?;
        self.out.write_all(&[1, 0])?;
        self.out.write_all(&(length as u16).to_le_bytes())?;
        writeln!(self.out, "{text:<width$}", width = length - 1)?;
        Ok(())
    }

    fn ids(&mut self) -> Result<(), TokenError> {
        self.written += self.ids.len() as u64;
        self.bytes.clear();
        self.bytes.extend(self.ids.drain(..).flat_map(u32::to_le_bytes));
        self.out.write_all(&self.bytes)?;
        Ok(())
    }
}

impl<W: Write + Seek> TokenWriter for NpyWriter<W> {
    fn write(&mut self, codes: &Codes) -> Result<(), TokenError> {
        if !codes.segments.is_empty() {
            return Err(TokenError::NoPlaceForScales);
        }
        frames_of(codes, self.arranger.arrangement().codes())?;
        self.arranger.push(&codes.data, &mut self.ids)?;
        self.ids()
    }

    fn finish(&mut self, _samples: u64) -> Result<(), TokenError> {
        self.arranger.finish(&mut self.ids);
        self.ids()?;
        self.out.seek(SeekFrom::Start(0))?;
        self.header()?;
        self.out.flush()?;
        Ok(())
    }
}

/// Reads integer codes of shape `[codebooks, frames]` (leading axes of length 1 are dropped; one axis is one
/// codebook), of any integer type and order. There is no sample count in such a file.
#[derive(Debug)]
pub struct NpyReader {
    grid: Grid,
    info: StreamInfo,
}

impl NpyReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Malformed`].
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        Self::open_with(path, &Known::default())
    }

    /// Opens a file of a known shape.
    ///
    /// # Errors
    /// As [`Self::open`]; [`TokenError::Shape`].
    pub fn open_with(path: &Path, known: &Known) -> Result<Self, TokenError> {
        let map = map(path)?;
        let (header, offset) = split(&map).map_err(malformed)?;
        let (int, column_major, axes) = parse(header).map_err(malformed)?;
        // The last two axes decide the order; of one axis both orders are one.
        let array = Array { kind: "npy", map, offset, int, axes: &axes, column_major };
        let grid = Grid::new(array, known, &PartOfFile::default())?;
        let info = StreamInfo {
            codebooks: grid.codebooks(),
            shape: grid.shape().clone(),
            frames: Some(grid.frames() as u64),
            ..StreamInfo::default()
        };
        Ok(Self { grid, info })
    }
}

impl TokenReader for NpyReader {
    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn next(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        self.grid.next_block(codes)
    }
}

fn malformed(reason: String) -> TokenError {
    TokenError::Malformed { kind: "npy", reason }
}

/// The header's text, and where the data begin.
fn split(bytes: &[u8]) -> Result<(&str, usize), String> {
    let cut = || "its header is cut off".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with NumPy's magic")?;
    let (length, start): (usize, usize) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 4),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 6),
        [version, ..] if !(1..=3).contains(&version) => return Err(format!("format version {version} is not known")),
        _ => return Err(cut()),
    };
    let text = start.checked_add(length).and_then(|end| rest.get(start..end)).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    Ok((text, MAGIC.len() + start + length))
}

/// Element type, Fortran order, shape.
fn parse(header: &str) -> Result<(Int, bool, Vec<usize>), String> {
    // A Python literal `{'descr': '<i4', 'fortran_order': False, 'shape': (8, 75), }` in any order of keys.
    let field = |key: &str| {
        let after = ['\'', '"'].into_iter().find_map(|q| header.split_once(&format!("{q}{key}{q}")));
        let value = after.and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
        value.map(str::trim_start).ok_or_else(|| format!("its header has no `{key}`"))
    };
    let descr = field("descr")?;
    let descr = descr
        .strip_prefix(['\'', '"'])
        .and_then(|rest| rest.split(['\'', '"']).next())
        .ok_or("its array has fields, and codes have none")?;
    let int = match descr.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), kind @ (b'i' | b'u'), size @ (b'1' | b'2' | b'4' | b'8')] => Int {
            bytes: usize::from(size - b'0'),
            signed: *kind == b'i',
            big_endian: *order == b'>' || (*order == b'=' && cfg!(target_endian = "big")),
        },
        _ => return Err(format!("its type is `{descr}`, and codes are integers (save it with `.astype('int32')`)")),
    };
    let fortran = match field("fortran_order")? {
        v if v.starts_with("True") => true,
        v if v.starts_with("False") => false,
        _ => return Err("`fortran_order` in its header is neither True nor False".into()),
    };
    let shape = field("shape")?;
    let shape = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or("`shape` is no tuple")?.0;
    let shape: Result<Vec<usize>, _> =
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect();
    let shape = shape.map_err(|_| "`shape` in its header is no tuple of sizes")?;
    Ok((int, fortran, shape))
}
