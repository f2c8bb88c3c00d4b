//! Lists of planned values: as they were built, or as they lie in a deploy image.

use core::fmt;

use serde::de::DeserializeOwned;

/// A list of values, borrowed.
pub(crate) enum Table<'a, T> {
    /// As they were built.
    Built(&'a [T]),
    /// Encoded, each in as many bytes as the longest needs.
    Stored(Stored<'a>),
}

/// Encoded values (in the postcard format), every `stride` bytes one.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Stored<'a> {
    /// `None` if `bytes` is not whole records.
    pub(crate) fn new(bytes: &'a [u8], stride: usize) -> Option<Self> {
        (stride > 0 && bytes.len().is_multiple_of(stride)).then_some(Self { bytes, stride })
    }
}

impl<T> Clone for Table<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<'_, T> {}

impl<T> fmt::Debug for Table<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.len())
    }
}

impl<T> Table<'_, T> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Built(values) => values.len(),
            Self::Stored(s) => s.bytes.len() / s.stride,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Copy + DeserializeOwned> Table<'a, T> {
    /// The value at `index`; `None` past the end, or if the record is damaged.
    pub(crate) fn get(&self, index: usize) -> Option<T> {
        match self {
            Self::Built(values) => values.get(index).copied(),
            Self::Stored(s) => {
                let start = index.checked_mul(s.stride)?;
                postcard::from_bytes(s.bytes.get(start..start.checked_add(s.stride)?)?).ok()
            }
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = T> + Clone {
        (0..self.len()).filter_map(move |i| self.get(i))
    }

    /// The values from `start` to `end`; none if there are not so many.
    pub(crate) fn range(self, start: usize, end: usize) -> Self {
        match self {
            Self::Built(values) => Self::Built(values.get(start..end).unwrap_or_default()),
            Self::Stored(s) => {
                let cut = start.checked_mul(s.stride).zip(end.checked_mul(s.stride));
                let bytes = cut.and_then(|(a, b)| s.bytes.get(a..b)).unwrap_or_default();
                Self::Stored(Stored { bytes, ..s })
            }
        }
    }

    /// The values before `at` and those from it on.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        (self.range(0, at), self.range(at, self.len()))
    }

    /// How many values at the start satisfy `f`, if all that do come before all that do not.
    pub(crate) fn partition_point(self, f: impl Fn(&T) -> bool) -> usize {
        self.iter().take_while(f).count()
    }
}

/// The records of a table, and their stride.
#[cfg(feature = "alloc")]
pub(crate) fn store<T: Copy + serde::Serialize + DeserializeOwned>(
    table: Table<'_, T>,
) -> Option<(alloc::vec::Vec<u8>, usize)> {
    let records = table.iter().map(|v| postcard::to_allocvec(&v)).collect::<Result<alloc::vec::Vec<_>, _>>().ok()?;
    let stride = records.iter().map(alloc::vec::Vec::len).max().unwrap_or(0).max(1);
    let mut bytes = alloc::vec::Vec::with_capacity(stride * records.len());
    for record in records {
        bytes.extend_from_slice(&record);
        bytes.resize(bytes.len().next_multiple_of(stride), 0);
    }
    Some((bytes, stride))
}
