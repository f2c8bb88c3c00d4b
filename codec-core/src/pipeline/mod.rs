//! A planned chain of layers with its state.
