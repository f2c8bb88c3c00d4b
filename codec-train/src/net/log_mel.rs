//! Samples to a log-mel spectrogram.

use burn::tensor::{Tensor, TensorData};
use codec_core::{pipeline::mel_filters, spec};

use crate::{
    TrainError,
    loss::{Ends, Spectrogram},
};

/// The power below which a band counts as silent, and how far below the loudest one is cut off, in tens of decibels
/// ([`spec::LogMel`]).
const SILENCE: f32 = 1e-10;
const RANGE: f32 = 8.0;

/// A log-mel spectrogram.
#[derive(Clone, Debug)]
pub(super) struct LogMel {
    spec: spec::LogMel,
    transform: Spectrogram,
    /// `[mels, bins]`.
    filters: Vec<f32>,
}

impl LogMel {
    pub fn new(l: &spec::LogMel) -> Self {
        let n = l.n_fft as usize;
        Self {
            spec: *l,
            transform: Spectrogram::new(n, l.hop as usize, n, Ends::Centred, 1.0),
            filters: mel_filters(l.sample_rate.into(), n, l.mels as usize),
        }
    }

    pub fn is(&self, l: &spec::LogMel) -> bool {
        self.spec == *l
    }

    /// `[batch, 1, samples]` to `[batch, mels, samples / hop]`.
    pub fn forward(&self, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
        let [batch, _, samples] = x.dims();
        let rows = samples / self.spec.hop as usize;
        let needed = self.transform.shortest().max(self.spec.hop as usize);
        if samples < needed {
            return Err(TrainError::TooShort { layer: "log-mel".into(), rows: samples, needed });
        }
        let (bins, mels) = (self.transform.bins(), self.spec.mels as usize);
        // What is one more frame at the end is not there.
        let spectrum = self.transform.complex(x.reshape([batch, samples])).slice_dim(1, 0..rows);
        let re = spectrum.clone().slice_dim(2, 0..bins);
        let im = spectrum.slice_dim(2, bins..2 * bins);
        let power = (re.square() + im.square()).swap_dims(1, 2);
        let filters = TensorData::new(self.filters.clone(), [1, mels, bins]);
        let bands = Tensor::<3>::from_data(filters, &power.device()).matmul(power);
        let log = bands.clamp_min(SILENCE).log().mul_scalar(std::f32::consts::LOG10_E);
        let floor = log.clone().reshape([batch, 1, mels * rows]).max_dim(2).sub_scalar(RANGE);
        Ok(log.max_pair(floor.expand([batch, mels, rows])).add_scalar(4.0).div_scalar(4.0))
    }
}
