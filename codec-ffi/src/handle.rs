//! What C holds: a head that tells what it is, and a body.

use std::{
    cell::{RefCell, UnsafeCell},
    ffi::{CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    args::{self, Args},
    codec_status::{self, *},
    status::Failure,
};

/// A kind of handle.
pub(crate) trait Kind: Sized {
    /// The type that C knows.
    type Opaque;
    /// Name in C.
    const NAME: &'static str;
    /// First word of every handle of the kind.
    const MAGIC: u64;

    /// Bytes that the kind takes, from the handle's first on.
    fn extent(&self) -> usize {
        size_of::<Handle<Self>>()
    }
}

/// Bytes of an error's text, with the zero at its end.
const TEXT: usize = 512;

/// A text that ends in a zero.
struct Text(UnsafeCell<[u8; TEXT]>);

impl Text {
    /// # Safety
    /// Nobody reads or writes it meanwhile.
    unsafe fn set(&self, text: &str) {
        // SAFETY: this function's condition.
        let bytes = unsafe { &mut *self.0.get() };
        let cut = (0..TEXT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        bytes.fill(0);
        // A zero inside would only cut it short.
        bytes.iter_mut().zip(text.as_bytes().iter().take(cut)).for_each(|(to, from)| *to = *from);
    }
}

/// What a handle begins with, whatever its kind.
#[repr(C)]
struct Head {
    magic: AtomicU64,
    busy: AtomicBool,
    /// A panic left the body as it was.
    broken: AtomicBool,
}

#[repr(C)]
pub(crate) struct Handle<T> {
    head: Head,
    error: Text,
    body: UnsafeCell<T>,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn remember(failure: &Failure) {
    let _ = LAST.try_with(|last| *last.borrow_mut() = c_text(&failure.text));
}

/// The text of the last error of this thread, for calls that have no handle yet, such as the creation of one; empty if there
/// was none. It stays until the next error on this thread. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn codec_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Calls `f` and makes a status of what it gives; a panic is one too.
fn guard(f: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let text = format!("internal error, please report it: {}", text.unwrap_or("a panic without a text"));
        // What was thrown may itself throw when it goes.
        std::mem::forget(panic);
        Err(Failure::new(CODEC_ERROR_INTERNAL, text))
    })
}

fn status(result: Result<(), Failure>) -> codec_status {
    match result {
        Ok(()) => CODEC_OK,
        Err(failure) => {
            remember(&failure);
            failure.status
        }
    }
}

/// A call without a handle.
pub(crate) fn call(f: impl FnOnce() -> Result<(), Failure>) -> codec_status {
    status(guard(f))
}

/// Makes a handle of what `f` gives; null where it fails.
///
/// # Safety
/// `out` is null, misaligned or valid for writing.
pub(crate) unsafe fn create<T: Kind>(out: *mut *mut T::Opaque, f: impl FnOnce() -> Result<T, Failure>) -> codec_status {
    call(|| {
        args::check(out, 1, T::NAME)?;
        // SAFETY: not null, aligned, and valid by this function's condition.
        unsafe { out.write(std::ptr::null_mut()) };
        let handle = Box::new(Handle::new(f()?));
        // SAFETY: as above.
        unsafe { out.write(Box::into_raw(handle).cast()) };
        Ok(())
    })
}

impl<T: Kind> Handle<T> {
    pub(crate) fn new(body: T) -> Self {
        let head =
            Head { magic: AtomicU64::new(T::MAGIC), busy: AtomicBool::new(false), broken: AtomicBool::new(false) };
        Self { head, error: Text(UnsafeCell::new([0; TEXT])), body: UnsafeCell::new(body) }
    }
}

/// Whether a pointer is a handle of this kind.
///
/// # Safety
/// As [`find`].
pub(crate) unsafe fn is<T: Kind>(ptr: *const T::Opaque) -> bool {
    let ptr = ptr.cast::<Handle<T>>();
    // SAFETY: not null, aligned, and readable by this function's condition.
    !ptr.is_null() && ptr.is_aligned() && unsafe { magic(ptr) } == T::MAGIC
}

/// The first word of a handle.
///
/// # Safety
/// The pointer is aligned and valid for reading it.
unsafe fn magic<T>(ptr: *const Handle<T>) -> u64 {
    // SAFETY: this function's condition; the first field of the first field of a `repr(C)` struct.
    unsafe { &*ptr.cast::<AtomicU64>() }.load(Ordering::Acquire)
}

/// The handle behind a pointer, if it is one of this kind.
///
/// # Safety
/// The pointer is null, misaligned, or valid for reading at least a head; with the magic word of the kind it is a
/// handle of the kind that lives for `'a`.
unsafe fn find<'a, T: Kind>(ptr: *const T::Opaque) -> Result<&'a Handle<T>, Failure> {
    let ptr = ptr.cast::<Handle<T>>();
    args::check(ptr, 1, T::NAME)?;
    // SAFETY: not null, aligned, and readable by this function's condition.
    if unsafe { magic(ptr) } != T::MAGIC {
        let text = format!("this is no {}, or a destroyed one", T::NAME);
        return Err(Failure::new(CODEC_ERROR_HANDLE, text));
    }
    // SAFETY: it has the magic word of its kind.
    Ok(unsafe { &*ptr })
}

/// A call that needs the handle for itself. The arguments that `f` gets know where the handle lies.
///
/// # Safety
/// As [`find`].
pub(crate) unsafe fn exclusive<T: Kind>(
    ptr: *const T::Opaque,
    f: impl FnOnce(&mut T, &mut Args) -> Result<(), Failure>,
) -> codec_status {
    // SAFETY: this function's condition.
    let handle = match unsafe { find::<T>(ptr) } {
        Ok(handle) => handle,
        Err(failure) => return status(Err(failure)),
    };
    if handle.head.busy.swap(true, Ordering::Acquire) {
        return status(Err(Failure::new(CODEC_ERROR_BUSY, "another call with this handle is under way")));
    }
    let result = if handle.head.broken.load(Ordering::Relaxed) {
        let text = "an internal error has left this handle unusable; destroy it";
        Err(Failure::new(CODEC_ERROR_INTERNAL, text))
    } else {
        guard(|| {
            // SAFETY: `busy` lets one call at a time come here.
            let body = unsafe { &mut *handle.body.get() };
            let mut args = Args::default();
            args.note(ptr.cast::<u8>(), body.extent(), T::NAME, true);
            f(body, &mut args)
        })
    };
    if let Err(failure) = &result {
        handle.head.broken.fetch_or(failure.status == CODEC_ERROR_INTERNAL, Ordering::Relaxed);
        // SAFETY: `busy` lets one call at a time come here; who reads the text owns the handle.
        unsafe { handle.error.set(&failure.text) };
    }
    handle.head.busy.store(false, Ordering::Release);
    status(result)
}

/// A call that shares the handle with other threads.
///
/// # Safety
/// As [`find`].
pub(crate) unsafe fn shared<T: Kind + Sync>(
    ptr: *const T::Opaque,
    f: impl FnOnce(&T, &mut Args) -> Result<(), Failure>,
) -> codec_status {
    call(|| {
        // SAFETY: this function's condition.
        let handle = unsafe { find::<T>(ptr)? };
        let mut args = Args::default();
        args.note(handle, 1, T::NAME, false);
        // SAFETY: the body of a handle that is shared is never written.
        f(unsafe { &*handle.body.get() }, &mut args)
    })
}

/// The body of a handle that is shared.
///
/// # Safety
/// As [`find`].
pub(crate) unsafe fn body<'a, T: Kind + Sync>(ptr: *const T::Opaque) -> Result<&'a T, Failure> {
    // SAFETY: this function's condition; the body of a handle that is shared is never written.
    unsafe { find::<T>(ptr).map(|handle| &*handle.body.get()) }
}

/// The last error of a handle; empty if there was none.
///
/// # Safety
/// As [`find`], and no call with the handle is under way.
pub(crate) unsafe fn error<T: Kind>(ptr: *const T::Opaque) -> *const c_char {
    // SAFETY: this function's condition.
    match unsafe { find::<T>(ptr) } {
        // SAFETY: nobody writes it now, by this function's condition.
        Ok(handle) => unsafe { &*handle.error.0.get() }.as_ptr().cast(),
        Err(_) => c"not a handle of this kind, or destroyed".as_ptr(),
    }
}

/// Ends a handle; null is none. `owned`: it is of the library's memory.
///
/// # Safety
/// As [`find`], and the handle is from [`create`] if it is `owned`.
pub(crate) unsafe fn destroy<T: Kind>(ptr: *mut T::Opaque, owned: bool) -> codec_status {
    if ptr.is_null() {
        return CODEC_OK;
    }
    call(|| {
        // SAFETY: this function's condition.
        let handle = unsafe { find::<T>(ptr)? };
        if handle.head.busy.swap(true, Ordering::Acquire) {
            return Err(Failure::new(CODEC_ERROR_BUSY, "a call with this handle is under way"));
        }
        handle.head.magic.store(0, Ordering::Release);
        if !owned {
            return Ok(());
        }
        // SAFETY: `create` made it of a box, and it had its magic word, so it was not destroyed.
        drop(unsafe { Box::from_raw(ptr.cast::<Handle<T>>()) });
        Ok(())
    })
}
