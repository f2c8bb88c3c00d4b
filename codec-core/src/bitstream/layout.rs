use super::{Error, bits, get_u16, put};

/// The most codes of a frame.
pub const MAX_CODES_PER_FRAME: usize = 1024;
/// Bytes of a [`CodeGroup`] in a header.
pub const GROUP_LEN: usize = 10;

/// Neighbouring codes of a frame, all of one size: `steps * books` of them, step by step and in a step book by book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeGroup {
    /// Rate level of the quantizer, 0 the coarsest.
    pub level: u8,
    /// The model's codebook of the first code.
    pub first_book: u16,
    /// Neighbouring codebooks, at least 1.
    pub books: u16,
    /// Times that they are coded in a frame, at least 1.
    pub steps: u16,
    /// Entries of each codebook, 2 to 65536.
    pub size: u32,
}

impl CodeGroup {
    /// A quantizer of one rate: codebooks 0 to `books - 1` of `size` entries, each once a frame.
    pub const fn single_rate(books: u16, size: u32) -> Self {
        Self { level: 0, first_book: 0, books, steps: 1, size }
    }

    /// Codes of the group in a frame.
    pub const fn codes(&self) -> usize {
        self.books as usize * self.steps as usize
    }

    /// The groups of a frame's `count` codes from `first` on of a quantizer.
    ///
    /// # Errors
    /// [`Error::Field`] where the file has no room for a number.
    #[cfg(feature = "alloc")]
    pub fn of(
        quantizer: &crate::quantizer::Quantizer,
        first: usize,
        count: usize,
    ) -> Result<alloc::vec::Vec<Self>, Error> {
        let levels = quantizer.levels(first, count);
        let fits = |name, n: usize| u16::try_from(n).map_err(|_| Error::Field { name, value: n as u64 });
        let group = |l: crate::quantizer::Level| {
            Ok(Self {
                level: u8::try_from(l.rate).map_err(|_| Error::Field { name: "rate level", value: l.rate as u64 })?,
                first_book: fits("first book of a code group", l.first_book)?,
                books: fits("books of a code group", l.books)?,
                steps: fits("steps of a code group", l.steps)?,
                size: l.size,
            })
        };
        levels.into_iter().map(group).collect()
    }

    /// Steps and codebook size of each code of a frame that has these groups.
    pub fn each(groups: &[Self]) -> impl Iterator<Item = (u16, u32)> {
        groups.iter().flat_map(|g| core::iter::repeat_n((g.steps, g.size), g.codes()))
    }

    /// The code of a frame at which a codebook begins; `None` if the groups have no such codebook.
    pub fn position(groups: &[Self], book: u16) -> Option<usize> {
        let mut code = 0;
        for group in groups {
            match book.checked_sub(group.first_book) {
                Some(within) if within < group.books => {
                    return Some(code + usize::from(within) * usize::from(group.steps));
                }
                _ => code += group.codes(),
            }
        }
        None
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |name, value| Err(Error::Field { name, value });
        match self {
            Self { books: 0, .. } => bad("books of a code group", 0),
            Self { steps: 0, .. } => bad("steps of a code group", 0),
            Self { size, .. } if !(2..=1 << 16).contains(size) => bad("size of a codebook", u64::from(*size)),
            Self { first_book, books, .. } if first_book.checked_add(books - 1).is_none() => {
                bad("last book of a code group", u64::from(*first_book) + u64::from(*books) - 1)
            }
            _ => Ok(()),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            level: *bytes.first()?,
            first_book: get_u16(bytes, 2)?,
            books: get_u16(bytes, 4)?,
            steps: get_u16(bytes, 6)?,
            size: u32::from(get_u16(bytes, 8)?) + 1,
        })
    }

    fn write(&self, bytes: &mut [u8]) -> Result<(), Error> {
        put(bytes, 0, &[self.level, 0])?;
        for (at, value) in [(2, self.first_book), (4, self.books), (6, self.steps), (8, (self.size - 1) as u16)] {
            put(bytes, at, &value.to_le_bytes())?;
        }
        Ok(())
    }
}

/// The codes of a frame: the code groups of a header, borrowed as they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    bytes: &'a [u8],
    codes: usize,
    bits: usize,
}

impl<'a> Layout<'a> {
    /// Writes `groups` into `storage`, which needs [`GROUP_LEN`] bytes for each.
    ///
    /// # Errors
    /// [`Error::Field`] if a group is out of its ranges, there are no groups or more than 1024 codes; [`Error::Buffer`] if the storage is short.
    pub fn new(groups: &[CodeGroup], storage: &'a mut [u8]) -> Result<Self, Error> {
        if groups.len() > MAX_CODES_PER_FRAME {
            return Err(Error::Field { name: "code groups", value: groups.len() as u64 });
        }
        let (needed, got) = (groups.len() * GROUP_LEN, storage.len());
        let bytes = storage.get_mut(..needed).ok_or(Error::Buffer { needed, got })?;
        for (group, bytes) in groups.iter().zip(bytes.chunks_exact_mut(GROUP_LEN)) {
            group.check()?;
            group.write(bytes)?;
        }
        Self::parse(bytes)
    }

    /// Reads the bytes of whole groups.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (mut codes, mut bits) = (0_usize, 0_usize);
        for group in bytes.chunks_exact(GROUP_LEN) {
            if let Some(&zero @ 1..) = group.get(1) {
                return Err(Error::Field { name: "zero byte of a code group", value: u64::from(zero) });
            }
            let Some(group) = CodeGroup::read(group) else { continue };
            group.check()?;
            // At most 1024 groups of 2^32 codes on a 64-bit machine; 32-bit ones saturate past the limit.
            codes = codes.saturating_add(group.codes());
            bits = bits.saturating_add(group.codes().saturating_mul(bits::width(group.size) as usize));
        }
        if !(1..=MAX_CODES_PER_FRAME).contains(&codes) {
            return Err(Error::Field { name: "codes of a frame", value: codes as u64 });
        }
        Ok(Self { bytes, codes, bits })
    }

    /// Codes of a frame, 1 to 1024.
    pub fn codes_per_frame(&self) -> usize {
        self.codes
    }

    /// Bits of a frame in the raw method, 1 to 16384.
    pub fn bits_per_frame(&self) -> usize {
        self.bits
    }

    /// The groups, in the order of the codes.
    pub fn groups(&self) -> impl Iterator<Item = CodeGroup> + use<'a> {
        self.bytes.chunks_exact(GROUP_LEN).filter_map(CodeGroup::read)
    }

    /// Bytes of `frames` frames in the raw method.
    pub(super) fn packed_len(&self, frames: usize) -> usize {
        frames.saturating_mul(self.bits).div_ceil(8)
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
