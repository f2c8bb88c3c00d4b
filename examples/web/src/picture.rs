//! Spectrograms.

use codec_core::kernel::RealFft;

/// Decibels below full scale that are black.
const FLOOR: f32 = 100.0;

/// The magnitudes of Hann-windowed transforms of `size` samples, centred on `columns` places spread evenly over `length`
/// samples (a channel): `[columns][size / 2 + 1]` bytes, low frequencies first, 255 for a sine of full scale and 0
/// for 100 dB less. Channels are averaged; beyond the signal is silence. `None` for sizes that cannot be.
pub fn spectrogram(pcm: &[f32], channels: usize, length: usize, columns: usize, size: usize) -> Option<Vec<u8>> {
    if channels == 0 || columns > 1 << 14 || !RealFft::supports(size) {
        return None;
    }
    let mut table = vec![0.0; RealFft::table_len(size)];
    RealFft::fill_table(size, &mut table);
    let fft = RealFft::new(size, &table)?;
    let window: Vec<f32> =
        (0..size).map(|i| 0.5 - 0.5 * (std::f32::consts::TAU * (i as f32 + 0.5) / size as f32).cos()).collect();
    let (mut x, mut spectrum) = (vec![0.0; size], vec![0.0; size + 2]);
    let mut scratch = vec![0.0; RealFft::scratch_len(size)];
    let mut picture = Vec::with_capacity(columns * (size / 2 + 1));
    for column in 0..columns {
        let middle = ((column as f64 + 0.5) * length as f64 / columns as f64) as isize;
        for (i, (x, w)) in x.iter_mut().zip(&window).enumerate() {
            let row = usize::try_from(middle - size as isize / 2 + i as isize).ok();
            let row = row.and_then(|row| pcm.get(row.checked_mul(channels)?..)?.get(..channels));
            *x = row.map_or(0.0, |row| row.iter().sum::<f32>() / channels as f32) * w;
        }
        if !fft.forward(&x, &mut spectrum, &mut scratch) {
            return None;
        }
        let (re, im) = spectrum.split_at(size / 2 + 1);
        picture.extend(re.iter().zip(im).map(|(re, im)| {
            // A sine of full scale gives a quarter of the window's length.
            let power = (re * re + im * im) / (size as f32 / 4.0).powi(2);
            ((10.0 * power.max(1e-20).log10() / FLOOR + 1.0) * 255.0) as u8
        }));
    }
    Some(picture)
}
