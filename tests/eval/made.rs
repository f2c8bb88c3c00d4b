//! A lattice of our own, in the layout of `examples/visqol_lattice.py`: its score is 1 and four times the mean similarity of the
//! lowest band.

const FEATURES: usize = 85;

fn ramp(out: &mut Vec<u8>, pieces: usize) {
    let mut floats = |first: f32| {
        out.extend(first.to_le_bytes());
        out.resize(out.len() + (pieces - 1) * 4, 0);
    };
    floats(0.0);
    floats(1.0);
}

pub fn lattice() -> Vec<u8> {
    let mut out = b"VISQOLv3".to_vec();
    for _ in 0..FEATURES {
        ramp(&mut out, 19);
        out.extend(1u32.to_le_bytes());
        out.extend([0.0f32, 1.0].map(f32::to_le_bytes).as_flattened());
        out.resize(out.len() + 18 * 4, 0);
    }
    for _ in 0..60 {
        // The slowest axis is the mean of the first band, the others are tau.
        out.extend([0, 0]);
        out.extend([84, 0].repeat(11));
    }
    out.extend([0.0f32, 1.0].map(f32::to_le_bytes).as_flattened());
    for corner in (0..60).flat_map(|_| 0..4096) {
        out.extend(u16::from(corner >= 2048).to_le_bytes());
    }
    out.extend([1.0f32 / 60.0; 60].map(f32::to_le_bytes).as_flattened());
    ramp(&mut out, 9);
    out.extend([1.0f32, 4.0].map(f32::to_le_bytes).as_flattened());
    out.resize(out.len() + 8 * 4, 0);
    out.extend([0; 4]);
    sealed(out)
}

/// The bytes with the checksum that they have at their end.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(4));
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}
