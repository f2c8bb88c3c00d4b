use serde::Serialize;

/// The mean of some scores and how far it is from that of all such signals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Scores.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval of the mean by Student's t; `None` of fewer than two.
    pub ci95: Option<f64>,
}

impl Summary {
    /// Of the scores that are finite; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let ci95 = (n > 1).then(|| {
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            t975(n - 1) * (variance / n as f64).sqrt()
        });
        Some(Self { n, mean, ci95 })
    }
}

/// The 97.5 % point of Student's t: a table, and from 13 degrees of freedom on the first terms of its expansion around the
/// normal distribution (Abramowitz and Stegun, 26.7.5), which are within 1e-4 there.
fn t975(degrees: usize) -> f64 {
    const TABLE: [f64; 12] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788];
    if let Some(value) = TABLE.get(degrees.wrapping_sub(1)) {
        return *value;
    }
    let (z, n) = (1.959_963_984_540_054_f64, degrees as f64);
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / n + g2 / n.powi(2) + g3 / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_t_distribution_is_that_of_tables() {
        for (degrees, expected) in [(1, 12.7062), (9, 2.2622), (12, 2.1788), (13, 2.1604), (30, 2.0423), (1000, 1.9623)]
        {
            assert!((t975(degrees) - expected).abs() < 1e-4, "{degrees}: {}", t975(degrees));
        }
    }

    #[test]
    fn a_mean_has_its_interval() {
        let s = Summary::of([1.0, 2.0, 3.0, f64::NAN]).unwrap();
        assert_eq!((s.n, s.mean), (3, 2.0));
        assert!((s.ci95.unwrap() - 4.3027 / 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(Summary::of([4.0]).unwrap().ci95, None);
        assert_eq!(Summary::of([f64::INFINITY]), None);
    }
}
