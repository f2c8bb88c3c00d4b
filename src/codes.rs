//! Codes in memory.

/// Codes of a signal or of a part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Codes a frame.
    pub codebooks: usize,
    /// Frame-major, `[frames, codebooks]`.
    pub data: Vec<u16>,
    /// The segments that the frames belong to, for a model that cuts the signal; empty otherwise.
    pub segments: Vec<Segment>,
}

/// A segment of a signal ([`codec_core::spec::Framing::Segments`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Frames of the segment.
    pub frames: usize,
    /// What the decoded segment is multiplied by.
    pub scale: f32,
}

impl Codes {
    /// No frames yet.
    pub fn new(codebooks: usize) -> Self {
        Self { codebooks, ..Self::default() }
    }

    /// Frames.
    pub fn frames(&self) -> usize {
        self.data.len() / self.codebooks.max(1)
    }

    /// Drops all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.segments.clear();
    }
}
