//! Bit packing, checksums and the `.nac` container.
