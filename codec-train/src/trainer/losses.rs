//! The losses that compare spectra.

use crate::{
    loss::{CompressedLoss, LoudnessLoss, MelLoss, SimilarityLoss, StftLoss},
    recipe::Recipe,
};

/// Those of a recipe, whether they have a weight or not.
pub(super) struct SpectralLosses {
    pub(super) mel: MelLoss,
    pub(super) stft: StftLoss,
    pub(super) compressed: CompressedLoss,
    pub(super) loudness: LoudnessLoss,
    pub(super) similarity: SimilarityLoss,
}

impl SpectralLosses {
    /// At a rate in Hz, for items of `samples`; without stated resolutions, those that these are long enough for.
    pub(super) fn new(recipe: &Recipe, rate: u32, samples: usize) -> Self {
        let l = &recipe.loss;
        let scales = if l.mel_scales.is_empty() {
            MelLoss::dac_scales().into_iter().filter(|s| s.window <= samples).collect()
        } else {
            l.mel_scales.clone()
        };
        let mut mel = MelLoss::new(rate, &scales);
        [mel.log, mel.linear, mel.square] = l.mel_terms;
        let usual = || StftLoss::usual_scales().into_iter().filter(|s| s.n_fft <= samples).collect();
        let stft = if l.stft_scales.is_empty() { usual() } else { l.stft_scales.clone() };
        let usual = || CompressedLoss::usual_scales().into_iter().filter(|s| s.n_fft <= samples).collect();
        let compressed = if l.compressed_scales.is_empty() { usual() } else { l.compressed_scales.clone() };
        Self {
            mel,
            stft: StftLoss::new(&stft),
            compressed: CompressedLoss::new(&compressed),
            loudness: LoudnessLoss::new(rate),
            similarity: SimilarityLoss::new(rate),
        }
    }

    /// The names of those with a weight, and the samples that each needs.
    pub(super) fn shortest(&self, recipe: &Recipe) -> impl Iterator<Item = (&'static str, usize)> {
        let l = &recipe.loss;
        [
            ("the mel loss", self.mel.shortest(), l.mel),
            ("the STFT loss", self.stft.shortest(), l.stft),
            ("the compressed loss", self.compressed.shortest(), l.compressed),
            ("the loudness loss", self.loudness.shortest(), l.loudness),
            ("the similarity loss", self.similarity.shortest(), l.similarity),
        ]
        .into_iter()
        .filter_map(|(name, shortest, weight)| (weight != 0.0).then_some((name, shortest)))
    }
}
