//! Pointers from C, checked.

use std::{marker::PhantomData, slice};

use crate::{
    codec_status::{self, *},
    status::Failure,
};

/// The arguments of a call, as far as they can touch each other.
#[derive(Default)]
pub(crate) struct Args {
    /// No call has more.
    spans: [Span; 6],
    count: usize,
}

#[derive(Clone, Copy, Default)]
struct Span {
    name: &'static str,
    start: usize,
    end: usize,
    written: bool,
}

/// Memory of the caller's to read. No reference to it is made before [`Args::disjoint`] has passed: it could lie in what
/// the handle is about to write.
pub(crate) struct In<'a, T> {
    ptr: *const T,
    len: usize,
    life: PhantomData<&'a T>,
}

/// Memory of the caller's to write to; it may hold anything before.
pub(crate) struct Out<'a, T> {
    ptr: *mut T,
    len: usize,
    life: PhantomData<&'a mut T>,
}

fn failure(status: codec_status, name: &str, what: &str) -> Failure {
    Failure::new(status, format!("`{name}` {what}"))
}

/// That a pointer is there and aligned, and that `len` elements from it on can exist.
pub(crate) fn check<T>(ptr: *const T, len: usize, name: &str) -> Result<(), Failure> {
    if ptr.is_null() {
        return Err(failure(CODEC_ERROR_NULL, name, "is null"));
    }
    if !ptr.is_aligned() {
        return Err(failure(
            CODEC_ERROR_MISALIGNED,
            name,
            &format!("does not lie at a multiple of {} bytes", align_of::<T>()),
        ));
    }
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    match bytes.and_then(|bytes| ptr.addr().checked_add(bytes)) {
        Some(_) => Ok(()),
        None => Err(failure(CODEC_ERROR_ARGUMENT, name, &format!("cannot have {len} elements"))),
    }
}

impl Args {
    /// Elements to read; null is none.
    ///
    /// # Safety
    /// A pointer that is neither null nor misaligned is valid for `len` elements, which nobody changes in `'a`. `T` is a
    /// plain number.
    pub(crate) unsafe fn input<'a, T>(
        &mut self,
        ptr: *const T,
        len: usize,
        name: &'static str,
    ) -> Result<In<'a, T>, Failure> {
        if len > 0 {
            check(ptr, len, name)?;
            self.note(ptr, len, name, false);
        }
        Ok(In { ptr, len, life: PhantomData })
    }

    /// Elements to write; null is none.
    ///
    /// # Safety
    /// A pointer that is neither null nor misaligned is valid for writing `len` elements in `'a`.
    pub(crate) unsafe fn output<'a, T>(
        &mut self,
        ptr: *mut T,
        len: usize,
        name: &'static str,
    ) -> Result<Out<'a, T>, Failure> {
        if len > 0 {
            check(ptr, len, name)?;
            self.note(ptr, len, name, true);
        }
        Ok(Out { ptr, len, life: PhantomData })
    }

    /// Memory that must not be written through another argument.
    pub(crate) fn note<T>(&mut self, ptr: *const T, len: usize, name: &'static str, written: bool) {
        let (start, bytes) = (ptr.addr(), len.saturating_mul(size_of::<T>()));
        if let Some(span) = self.spans.get_mut(self.count) {
            *span = Span { name, start, end: start.saturating_add(bytes), written };
        }
        self.count += 1;
    }

    /// Fails if something that is written overlaps something else.
    pub(crate) fn disjoint(&self) -> Result<(), Failure> {
        let spans = self.spans.get(..self.count);
        let spans = spans.ok_or_else(|| Failure::new(CODEC_ERROR_INTERNAL, "more arguments than thought of"))?;
        for (i, a) in spans.iter().enumerate() {
            for b in spans.iter().skip(i + 1) {
                if (a.written || b.written) && a.start < b.end && b.start < a.end {
                    return Err(Failure::new(CODEC_ERROR_OVERLAP, format!("`{}` and `{}` overlap", a.name, b.name)));
                }
            }
        }
        Ok(())
    }
}

impl<'a, T: Copy> In<'a, T> {
    /// The elements.
    ///
    /// # Safety
    /// [`Args::disjoint`] has passed, or the call writes nothing of the caller's.
    pub(crate) unsafe fn get(&self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: not null, aligned and of a length that can be; valid and unchanged by the condition of `Args::input`.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl<T: Copy> Out<'_, T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the first elements.
    pub(crate) fn fill(&self, values: &[T], name: &str) -> Result<(), Failure> {
        self.fill_from(0, values, name)
    }

    /// Writes elements from `start` on.
    pub(crate) fn fill_from(&self, start: usize, values: &[T], name: &str) -> Result<(), Failure> {
        let needed = start.saturating_add(values.len());
        if needed > self.len {
            let what = format!("has room for {} elements and needs {needed}", self.len);
            return Err(failure(CODEC_ERROR_BUFFER_TOO_SHORT, name, &what));
        }
        if !values.is_empty() {
            // SAFETY: `ptr` is valid for writing `len` elements by the condition of `Args::output`, and `values` is
            // memory of the library's or the handle's, which no caller's buffer overlaps (`Args::disjoint`).
            unsafe { values.as_ptr().copy_to_nonoverlapping(self.ptr.add(start), values.len()) };
        }
        Ok(())
    }

    /// At most `len` elements from `start` on, as zeros.
    pub(crate) fn zeroed(&mut self, start: usize, len: usize) -> &mut [T] {
        let len = len.min(self.len.saturating_sub(start));
        if len == 0 {
            return &mut [];
        }
        // SAFETY: `ptr` is not null, aligned and valid for writing `self.len` elements by the condition of `Args::output`,
        // nothing else uses them while `self` is borrowed (`Args::disjoint`), and zeros are a value of a plain number.
        unsafe {
            let ptr = self.ptr.add(start);
            ptr.write_bytes(0, len);
            slice::from_raw_parts_mut(ptr, len)
        }
    }
}
