//! A state in memory of the caller's allocates nothing, from its first call on.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr,
};

use codec_ffi::{codec_status::*, *};
use support::{Model, models::signal, text};

thread_local! {
    static ALLOCATIONS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Counts what a thread allocates while it asks for that.
struct Counting;

// SAFETY: everything is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get().map(|n| n + 1)));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread in `f`.
fn allocations(f: impl FnOnce()) -> usize {
    ALLOCATIONS.set(Some(0));
    f();
    ALLOCATIONS.replace(None).unwrap()
}

#[test]
fn no_call_allocates() {
    let model = Model::load("stream");
    let pcm = signal(2000, 1);
    let (mut codes, mut out, mut frames, mut samples) = ([0u16; 900], vec![0.0f32; 30_000], 0, 0);
    // SAFETY: memory of the size and alignment that the library asks for, and buffers of the lengths given.
    unsafe {
        let encoder_size = codec_encoder_state_size(model.0, ptr::null());
        let decoder_size = codec_decoder_state_size(model.0, ptr::null());
        let line = [0u64; CODEC_STATE_ALIGN / 8];
        let mut memory = vec![line; (encoder_size + decoder_size) / CODEC_STATE_ALIGN + 4];
        let start = memory.as_mut_ptr().cast::<u8>();
        let start = start.add(start.align_offset(CODEC_STATE_ALIGN));
        let (mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut());
        let status = codec_encoder_init(start.cast(), encoder_size, model.0, ptr::null(), &mut encoder);
        assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
        let behind = start.add(encoder_size.next_multiple_of(CODEC_STATE_ALIGN));
        let status = codec_decoder_init(behind.cast(), decoder_size, model.0, ptr::null(), &mut decoder);
        assert_eq!(status, CODEC_OK, "{}", text(codec_last_error()));
        for _ in 0..2 {
            let mut statuses = [CODEC_ERROR_INTERNAL; 7];
            let (c, o) = (codes.as_mut_ptr(), out.as_mut_ptr());
            let made = allocations(|| {
                statuses = [
                    codec_encoder_max_frames(encoder, 2000, &mut frames),
                    codec_encoder_push(encoder, pcm.as_ptr(), 2000, c, 300, &mut frames),
                    codec_decoder_push(decoder, c, frames, o, 30_000, &mut samples),
                    codec_encoder_finish(encoder, c, 300, &mut frames),
                    codec_decoder_finish(decoder, o, 30_000, &mut samples),
                    codec_encoder_reset(encoder),
                    codec_decoder_reset(decoder),
                ];
            });
            assert_eq!(statuses, [CODEC_OK; 7]);
            assert_eq!(made, 0);
        }
        // The count counts.
        assert!(
            allocations(|| assert_eq!(codec_encoder_max_frames(encoder, 1, ptr::null_mut()), CODEC_ERROR_NULL)) > 0
        );
    }
}
