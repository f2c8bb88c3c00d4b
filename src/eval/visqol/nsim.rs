//! Neurogram similarity (Hines and Harte, "Speech intelligibility prediction using a Neurogram Similarity Index Measure", Speech
//! Communication 54, 2012): intensity and structure of neighbourhoods of 3 by 3.

use super::{BANDS, Image};

/// The Gaussian of the neighbourhood: centre, edges, corners.
const CENTRE: f64 = 0.619_485_845_753_726;
const EDGE: f64 = 0.083_825_147_544_263_3;
const CORNER: f64 = 0.011_303_391_017_305_2;
const C1: f64 = 0.01 * 0.01;
const C3: f64 = 0.03 * 0.03 / 2.0;

/// How alike two patches are.
#[derive(Clone, Debug)]
pub struct Similarity {
    /// Mean over bands.
    pub mean: f64,
    /// Mean of each band.
    pub means: [f64; BANDS],
    /// Standard deviation of each band over time.
    pub deviations: [f64; BANDS],
    /// Mean level of each band of the decoded patch.
    pub energies: [f64; BANDS],
}

/// A column of a patch; `None` beyond the image, where everything is 0.
fn value(image: &Image, band: usize, column: usize) -> f64 {
    if column < image.columns { image.values[band * image.columns + column] } else { 0.0 }
}

/// Similarity at each place of two patches of `width` columns that begin at columns `x` and `y`, handed out band by band.
fn places(a: &Image, x: usize, b: &Image, y: usize, width: usize, mut each: impl FnMut(usize, &[f64])) {
    let mut row = vec![0.0; width];
    // Sums of a neighbourhood by column: weights of the row itself and of the rows beside it.
    let mut columns = vec![[[0.0; 5]; 2]; width];
    for band in 0..BANDS {
        for (i, sums) in columns.iter_mut().enumerate() {
            *sums = [[0.0; 5]; 2];
            for (near, source) in [(false, band.saturating_sub(1)), (true, band), (false, (band + 1).min(BANDS - 1))] {
                let (r, d) = (value(a, source, x + i), value(b, source, y + i));
                let [middle, side] = if near { [CENTRE, EDGE] } else { [EDGE, CORNER] };
                for (k, v) in [r, d, r * r, d * d, r * d].into_iter().enumerate() {
                    sums[0][k] += middle * v;
                    sums[1][k] += side * v;
                }
            }
        }
        for (i, out) in row.iter_mut().enumerate() {
            let (before, after) = (i.saturating_sub(1), (i + 1).min(width - 1));
            let [r, d, rr, dd, rd] =
                std::array::from_fn(|k| columns[before][1][k] + columns[i][0][k] + columns[after][1][k]);
            let intensity = (2.0 * r * d + C1) / (r * r + d * d + C1);
            let variances = (rr - r * r) * (dd - d * d);
            let spread = if variances < 0.0 { 0.0 } else { variances.sqrt() };
            *out = intensity * (rd - r * d + C3) / (spread + C3);
        }
        each(band, &row);
    }
}

/// The mean similarity of two patches.
pub fn mean(a: &Image, x: usize, b: &Image, y: usize, width: usize) -> f64 {
    let mut sum = 0.0;
    places(a, x, b, y, width, |_, row| sum += row.iter().sum::<f64>() / width as f64);
    sum / BANDS as f64
}

/// All of the similarity of two patches.
pub fn patch(a: &Image, x: usize, b: &Image, y: usize, width: usize) -> Similarity {
    let mut found = Similarity { mean: 0.0, means: [0.0; BANDS], deviations: [0.0; BANDS], energies: [0.0; BANDS] };
    places(a, x, b, y, width, |band, row| {
        let mean = row.iter().sum::<f64>() / width as f64;
        let squares: f64 = row.iter().map(|v| (v - mean).powi(2)).sum();
        found.means[band] = mean;
        found.deviations[band] = (squares / (width.max(2) - 1) as f64).sqrt();
        found.energies[band] = (0..width).map(|i| value(b, band, y + i)).sum::<f64>() / width as f64;
    });
    found.mean = found.means.iter().sum::<f64>() / BANDS as f64;
    found
}
