use serde::Serialize;

use crate::Codes;

/// How much of a codebook some codes use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BookUse {
    /// Entries.
    pub size: usize,
    /// Entries that occur.
    pub used: usize,
    /// Exponential of the entropy of the entries: as many equally likely ones would be as uncertain. 1 to `size`.
    pub perplexity: f64,
    /// Share of entries that occur.
    pub share: f64,
}

/// Counts of the codes of a frame.
#[derive(Clone, Debug)]
pub struct BookUses(Vec<Vec<u64>>);

impl BookUses {
    /// Nothing counted yet; `sizes` are the entries of each code of a frame.
    pub fn new(sizes: &[usize]) -> Self {
        Self(sizes.iter().map(|&size| vec![0; size]).collect())
    }

    /// Counts codes; what is beyond the codebooks is left out.
    pub fn add(&mut self, codes: &Codes) {
        for frame in codes.data.chunks_exact(codes.codebooks.max(1)) {
            for (counts, &code) in self.0.iter_mut().zip(frame) {
                if let Some(count) = counts.get_mut(usize::from(code)) {
                    *count += 1;
                }
            }
        }
    }

    /// The use of each code of a frame.
    pub fn uses(&self) -> Vec<BookUse> {
        let of = |counts: &Vec<u64>| {
            let total = counts.iter().sum::<u64>().max(1) as f64;
            let term = |&n: &u64| if n == 0 { 0.0 } else { -(n as f64 / total) * (n as f64 / total).ln() };
            let used = counts.iter().filter(|n| **n > 0).count();
            BookUse {
                size: counts.len(),
                used,
                perplexity: counts.iter().map(term).sum::<f64>().exp(),
                share: used as f64 / counts.len().max(1) as f64,
            }
        };
        self.0.iter().map(of).collect()
    }
}
