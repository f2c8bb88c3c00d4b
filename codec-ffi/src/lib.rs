//! The C ABI of `codec`. Its documentation is `include/codec.h`, which is generated from this crate, and
//! `docs/c-api.md`.
//!
//! Every function checks its arguments (`args`, `structs`), goes through a handle that knows its kind (`handle`), and
//! lets no panic out.

// The names are those of C, and what callers must hold to is said once, at the top of the header.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod args;
mod decoder;
mod encoder;
mod handle;
mod io;
mod model;
mod placed;
mod reader;
mod status;
mod structs;
mod version;
mod writer;

pub use decoder::*;
pub use encoder::*;
pub use handle::codec_last_error;
pub use model::*;
pub use placed::CODEC_STATE_ALIGN;
pub use reader::*;
pub use status::*;
pub use structs::*;
pub use version::*;
pub use writer::*;
