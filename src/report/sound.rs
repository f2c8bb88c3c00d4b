use codec::{
    audio::{SampleFormat, WavWriter},
    eval::{Signal, spectrogram},
};

use super::{HEAT, data_uri, escape, picture, plot, seconds};

const COLUMNS: usize = 900;
const ROWS: usize = 256;
/// Decibels below a sine of full scale that are black.
const FLOOR: f64 = 100.0;

/// A spectrogram and a player of a signal.
pub fn sound_figure(title: &str, note: &str, signal: &Signal) -> String {
    let rate = signal.sample_rate;
    // 20 to 40 ms.
    let size = (rate as usize / 40).next_power_of_two().clamp(64, 8192);
    let hop = (signal.samples.len() / COLUMNS).max(size / 8);
    let samples: Vec<f64> = signal.samples.iter().map(|v| f64::from(*v)).collect();
    let spectra = spectrogram(&samples, size, hop);
    // What is behind the signal is no part of the picture.
    let columns = (signal.samples.len() / hop + 1).min(spectra.magnitudes.len() / spectra.bins);
    let pixels: Vec<u8> = (0..ROWS)
        .rev()
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| {
            let bins = &spectra.magnitudes[column * spectra.bins..(column + 1) * spectra.bins];
            let bin = row * spectra.bins / ROWS;
            let level = 20.0 * (bins[bin].max(1e-9) / (size as f64 / 4.0)).log10() / FLOOR + 1.0;
            ((level - 0.15) * 1.3 * 255.0).clamp(0.0, 255.0) as u8
        })
        .collect();
    let picture = picture(columns, ROWS, &HEAT, &pixels).unwrap_or_default();
    let hertz: Vec<(f64, String)> = (0..=4)
        .map(|i| {
            let text = format!("{:.2}", f64::from(rate) / 8000.0 * f64::from(i));
            (f64::from(i) / 4.0, format!("{} kHz", text.trim_end_matches('0').trim_end_matches('.')))
        })
        .collect();
    let alt = format!("Spectrogram of {title}");
    format!(
        "<figure><figcaption>{} <span>{}</span></figcaption>{}<audio controls preload=\"none\" src=\"{}\"></audio></figure>",
        escape(title),
        escape(note),
        plot(&picture, "spectrum", &alt, &seconds(signal.seconds()), &hertz),
        data_uri("audio/wav", &wav(signal))
    )
}

fn wav(signal: &Signal) -> Vec<u8> {
    let frames = Some(signal.samples.len() as u64);
    let written = || {
        let mut writer = WavWriter::new(Vec::new(), SampleFormat::I16, signal.sample_rate, 1, frames).ok()?;
        writer.write(&signal.samples).ok()?;
        Some(writer.finish_stream().ok()?.0)
    };
    written().unwrap_or_default()
}
