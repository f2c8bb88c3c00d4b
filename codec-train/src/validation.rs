//! Fixed items, coded by the weights as they stand.

use std::{fs, io::BufWriter, path::Path};

use burn::tensor::{Tensor, TensorData};
use codec::audio::{SampleFormat, WavWriter};
use serde::Serialize;

use crate::{
    Store, Tracking, TrainCodec, TrainError,
    data::{Corpus, Cut},
    host,
    loss::MelLoss,
    model::interleaved,
    recipe::Recipe,
};

/// What a validation gave; a line of `validation.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Steps done.
    pub step: u64,
    /// The recipe's mel loss, the mean over items.
    pub mel: f64,
    /// Mean absolute difference of samples.
    pub waveform_l1: f64,
    /// Scale-invariant signal-to-distortion ratio in decibels (Le Roux et al. 2019), the mean over items.
    pub si_sdr: f64,
}

/// Codes the validation's items one by one and writes them as `validation/step-N/ITEM.wav`, the originals once as
/// `validation/reference/ITEM.wav`. Items are cut as for training, from a seed of their own and without gain.
#[allow(clippy::too_many_arguments)]
pub(crate) fn run(
    codec: &TrainCodec,
    weights: &Store,
    corpus: &Corpus,
    cut: &Cut,
    mel: &MelLoss,
    recipe: &Recipe,
    run: &Path,
    step: u64,
) -> Result<Report, TrainError> {
    let spec = codec.spec();
    let channels = spec.channels as usize;
    let folder = run.join("validation");
    let (originals, decoded) = (folder.join("reference"), folder.join(format!("step-{step:09}")));
    for path in [&originals, &decoded] {
        fs::create_dir_all(path).map_err(TrainError::io(path))?;
    }
    let vars = weights.vars(Tracking::None);
    let mut report = Report { step, mel: 0.0, waveform_l1: 0.0, si_sdr: 0.0 };
    let items = recipe.run.validation_items.max(1);
    let cut = Cut {
        items: 1,
        part: (0, 1),
        gain_db: [0.0, 0.0],
        speed: [1.0; 2],
        noise: None,
        seed: cut.seed ^ 0x7661_6c69_6461_7465,
        ..cut.clone()
    };
    for item in 0..items {
        let batch = cut.batch(corpus, item as u64)?;
        let shape = [1, channels, batch.data.len() / channels];
        let real = Tensor::<3>::from_data(TensorData::new(batch.data, shape), weights.device());
        let latent = codec.encode(&vars, real.clone())?;
        let fake = codec.decode(&vars, codec.quantize(&vars, latent, None)?.latent)?;
        let samples = fake.dims()[2].min(shape[2]);
        let (fake, real) = (fake.slice_dim(2, 0..samples), real.slice_dim(2, 0..samples));
        let scalar = |t: Tensor<1>| f64::from(t.into_scalar::<f32>()) / items as f64;
        report.mel += scalar(mel.forward(fake.clone(), real.clone()));
        report.waveform_l1 += scalar(crate::loss::waveform_l1(fake.clone(), real.clone()));
        report.si_sdr += si_sdr(&host(fake.clone()), &host(real.clone())) / items as f64;
        write(&decoded.join(format!("{item}.wav")), spec.sample_rate, channels, &interleaved(fake))?;
        let original = originals.join(format!("{item}.wav"));
        if !original.exists() {
            write(&original, spec.sample_rate, channels, &interleaved(real))?;
        }
    }
    Ok(report)
}

fn write(path: &Path, rate: u32, channels: usize, pcm: &[f32]) -> Result<(), TrainError> {
    let data = |e: codec::audio::AudioError| TrainError::Data { path: path.to_path_buf(), reason: e.to_string() };
    let file = fs::File::create(path).map_err(TrainError::io(path))?;
    let frames = (pcm.len() / channels) as u64;
    let out = BufWriter::new(file);
    let writer = WavWriter::new(out, SampleFormat::I16, rate, channels as u16, Some(frames));
    let mut writer = writer.map_err(TrainError::io(path))?;
    writer.write(pcm).map_err(data)?;
    writer.finish_stream().map_err(TrainError::io(path))?;
    Ok(())
}

/// Scale-invariant signal-to-distortion ratio in decibels, kept within ±100.
fn si_sdr(fake: &[f32], real: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let energy = dot(real, real);
    if energy == 0.0 {
        return 0.0;
    }
    let factor = dot(fake, real) / energy;
    let target = factor * factor * energy;
    let noise = (dot(fake, fake) - target).max(0.0);
    (10.0 * (target.max(1e-30) / noise.max(1e-30)).log10()).clamp(-100.0, 100.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn si_sdr_knows_no_scale() {
        let real: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.1).sin()).collect();
        let noise: Vec<f32> = (0..1000).map(|i| (i as f32 * 1.7).cos()).collect();
        let fake: Vec<f32> = real.iter().zip(&noise).map(|(r, n)| 3.0 * (r + 0.1 * n)).collect();
        let got = super::si_sdr(&fake, &real);
        assert!((got - 20.0).abs() < 0.3, "{got}");
        assert_eq!(super::si_sdr(&real, &[0.0; 1000]), 0.0);
    }
}
