/// Scale-invariant signal-to-distortion ratio in decibels, of signals of one length without their means (Le Roux et al., "SDR -
/// half-baked or well done?", ICASSP 2019): the best multiple of the reference against what is left. Silence is a sum of 1e-12.
pub fn si_sdr(reference: &[f64], degraded: &[f64]) -> f64 {
    let n = reference.len().min(degraded.len());
    let centred = |x: &[f64]| {
        let mean = x[..n].iter().sum::<f64>() / n.max(1) as f64;
        x[..n].iter().map(|v| v - mean).collect::<Vec<_>>()
    };
    let (r, d) = (centred(reference), centred(degraded));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let factor = dot(&r, &d) / (dot(&r, &r) + 1e-12);
    let target = factor * factor * dot(&r, &r);
    let rest: f64 = r.iter().zip(&d).map(|(r, d)| (d - factor * r).powi(2)).sum();
    10.0 * ((target + 1e-12) / (rest + 1e-12)).log10()
}
