//! The `codec` program, run as its users run it.

mod audio_in;
mod batch;
mod books;
#[cfg(feature = "default-model")]
mod built_in;
mod eval;
mod hostile;
mod info;
mod options;
mod pack;
mod roundtrip;
mod salvage;
mod shapes;
mod support;
mod tokens_in;
#[cfg(unix)]
mod train;
