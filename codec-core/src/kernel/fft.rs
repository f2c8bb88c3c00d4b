//! Fourier transforms of real signals: `X[k] = Σ_t x[t] exp(-2πi kt / n)` and back.
//!
//! A real transform of `n` values is a complex one of `n / 2` (even values real, odd values imaginary) and a step
//! that takes the two apart. The complex one is Stockham's autosort form in radices 2, 3, 4 and 5 (Van Loan 1992,
//! section 1.7). Plain multiplications and additions, so every machine gives the same bits.

/// Even lengths up to this whose half has no prime factor above 5.
pub const MAX_FFT: usize = 1 << 16;

/// A transform of `n` real values, with its table borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RealFft<'a> {
    n: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

/// Cuts the next radix off a length.
fn radix(n: usize) -> Option<usize> {
    [4, 5, 3, 2].into_iter().find(|p| n.is_multiple_of(*p))
}

impl<'a> RealFft<'a> {
    /// Whether there is a transform of this length.
    pub fn supports(n: usize) -> bool {
        if n == 0 || n > MAX_FFT || !n.is_multiple_of(2) {
            return false;
        }
        let mut rest = n / 2;
        while let Some(p) = radix(rest) {
            rest /= p;
        }
        rest == 1
    }

    /// Values of the table.
    pub const fn table_len(n: usize) -> usize {
        2 * n
    }

    /// Values of scratch memory that a transform needs.
    pub const fn scratch_len(n: usize) -> usize {
        2 * n
    }

    /// Fills a table of [`RealFft::table_len`] values: the cosines of `2πk / n`, then the sines.
    pub fn fill_table(n: usize, table: &mut [f32]) {
        let (cos, sin) = table.split_at_mut(n.min(table.len()));
        for (k, (c, s)) in cos.iter_mut().zip(sin).enumerate() {
            let angle = 2.0 * core::f64::consts::PI * k as f64 / n as f64;
            (*c, *s) = (libm::cos(angle) as f32, libm::sin(angle) as f32);
        }
    }

    /// A transform of length `n` with a table from [`RealFft::fill_table`]; `None` if there is none of this length or
    /// the table is of another.
    pub fn new(n: usize, table: &'a [f32]) -> Option<Self> {
        if !Self::supports(n) || table.len() != Self::table_len(n) {
            return None;
        }
        let (cos, sin) = table.split_at_checked(n)?;
        Some(Self { n, cos, sin })
    }

    /// `spectrum` becomes the `n / 2 + 1` real parts and then as many imaginary parts of the transform of `x`.
    ///
    /// Returns `false`, and has written nothing, if `x` is not `n` long, `spectrum` not `n + 2`, or `scratch` is shorter
    /// than [`RealFft::scratch_len`].
    #[must_use]
    pub fn forward(&self, x: &[f32], spectrum: &mut [f32], scratch: &mut [f32]) -> bool {
        if x.len() != self.n || spectrum.len() != self.n + 2 || scratch.len() < Self::scratch_len(self.n) {
            return false;
        }
        let m = self.n / 2;
        let (z, other) = scratch[..2 * self.n].split_at_mut(self.n);
        let (re, im) = z.split_at_mut(m);
        for ((pair, re), im) in x.chunks_exact(2).zip(&mut *re).zip(&mut *im) {
            (*re, *im) = (pair[0], pair[1]);
        }
        let (other_re, other_im) = other.split_at_mut(m);
        let (re, im) = self.complex([re, im], [other_re, other_im]);
        let (out_re, out_im) = spectrum.split_at_mut(m + 1);
        for k in 0..=m {
            let (a, b) = ((re[k % m], im[k % m]), (re[(m - k) % m], im[(m - k) % m]));
            // Of the even and of the odd values, both doubled.
            let (even, odd) = ((a.0 + b.0, a.1 - b.1), (a.1 + b.1, b.0 - a.0));
            let (c, s) = (self.cos[k], self.sin[k]);
            out_re[k] = 0.5 * (even.0 + (odd.0 * c + odd.1 * s));
            out_im[k] = 0.5 * (even.1 + (odd.1 * c - odd.0 * s));
        }
        true
    }

    /// `x` becomes the signal whose transform is `spectrum`, laid out as [`RealFft::forward`] does. The imaginary parts of
    /// the first and the last value, zero in the transform of a real signal, are not looked at.
    ///
    /// Returns `false`, and has written nothing, if `x` is not `n` long, `spectrum` not `n + 2`, or `scratch` is shorter
    /// than [`RealFft::scratch_len`].
    #[must_use]
    pub fn inverse(&self, spectrum: &[f32], x: &mut [f32], scratch: &mut [f32]) -> bool {
        if x.len() != self.n || spectrum.len() != self.n + 2 || scratch.len() < Self::scratch_len(self.n) {
            return false;
        }
        let m = self.n / 2;
        let (z, other) = scratch[..2 * self.n].split_at_mut(self.n);
        let (re, im) = z.split_at_mut(m);
        let (in_re, in_im) = spectrum.split_at(m + 1);
        let imaginary = |k: usize| if k == 0 || k == m { 0.0 } else { in_im[k] };
        for k in 0..m {
            let (a, b) = ((in_re[k], imaginary(k)), (in_re[m - k], imaginary(m - k)));
            let (even, turned) = ((a.0 + b.0, a.1 - b.1), (a.0 - b.0, a.1 + b.1));
            let (c, s) = (self.cos[k], self.sin[k]);
            let odd = (turned.0 * c - turned.1 * s, turned.0 * s + turned.1 * c);
            (re[k], im[k]) = (even.0 - odd.1, even.1 + odd.0);
        }
        let (other_re, other_im) = other.split_at_mut(m);
        // A transform with real and imaginary parts swapped, before and after, is the inverse one.
        let (im, re) = self.complex([im, re], [other_im, other_re]);
        let scale = 1.0 / self.n as f32;
        for ((pair, re), im) in x.chunks_exact_mut(2).zip(&*re).zip(&*im) {
            (pair[0], pair[1]) = (re * scale, im * scale);
        }
        true
    }

    /// Complex transform of `n / 2` values, by turns from one memory to the other; where it ended.
    fn complex<'s>(&self, mut from: [&'s mut [f32]; 2], mut to: [&'s mut [f32]; 2]) -> (&'s mut [f32], &'s mut [f32]) {
        let mut len = self.n / 2;
        let mut stride = 1;
        while let Some(p) = radix(len) {
            match p {
                2 => self.stage::<2>(len, stride, &from, &mut to, two),
                3 => self.stage::<3>(len, stride, &from, &mut to, three),
                4 => self.stage::<4>(len, stride, &from, &mut to, four),
                _ => self.stage::<5>(len, stride, &from, &mut to, five),
            }
            (from, to) = (to, from);
            len /= p;
            stride *= p;
        }
        let [re, im] = from;
        (re, im)
    }

    /// One radix: `stride` interleaved transforms of `len` values become `P * stride` of `len / P`.
    fn stage<const P: usize>(
        &self,
        len: usize,
        stride: usize,
        from: &[&mut [f32]; 2],
        to: &mut [&mut [f32]; 2],
        butterfly: impl Fn([Complex; P]) -> [Complex; P],
    ) {
        let parts = len / P;
        let [re, im] = from;
        let [to_re, to_im] = to;
        for q in 0..parts {
            // The table is of the roots of twice as many values.
            let turn: [Complex; P] = core::array::from_fn(|r| {
                let at = 2 * q * r * stride;
                Complex(self.cos[at], -self.sin[at])
            });
            for k in 0..stride {
                let a = core::array::from_fn(|j| {
                    let at = k + stride * (q + parts * j);
                    Complex(re[at], im[at])
                });
                for (r, (value, turn)) in butterfly(a).into_iter().zip(turn).enumerate() {
                    let at = k + stride * (P * q + r);
                    let value = if q == 0 { value } else { value.times(turn) };
                    (to_re[at], to_im[at]) = (value.0, value.1);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Complex(f32, f32);

impl Complex {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1)
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(self.0 - other.0, self.1 - other.1)
    }

    #[inline(always)]
    fn scaled(self, by: f32) -> Self {
        Self(self.0 * by, self.1 * by)
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(self.0 * other.0 - self.1 * other.1, self.0 * other.1 + self.1 * other.0)
    }

    /// Times `-i`.
    #[inline(always)]
    fn turned(self) -> Self {
        Self(self.1, -self.0)
    }
}

#[inline(always)]
fn two([a, b]: [Complex; 2]) -> [Complex; 2] {
    [a.plus(b), a.minus(b)]
}

#[inline(always)]
fn three([a, b, c]: [Complex; 3]) -> [Complex; 3] {
    const SIN: f32 = 0.866_025_4;
    let sum = b.plus(c);
    let (middle, side) = (a.minus(sum.scaled(0.5)), b.minus(c).scaled(SIN).turned());
    [a.plus(sum), middle.plus(side), middle.minus(side)]
}

#[inline(always)]
fn four([a, b, c, d]: [Complex; 4]) -> [Complex; 4] {
    let (even, odd) = (a.plus(c), b.plus(d));
    let (cross, side) = (a.minus(c), b.minus(d).turned());
    [even.plus(odd), cross.plus(side), even.minus(odd), cross.minus(side)]
}

#[inline(always)]
fn five([a, b, c, d, e]: [Complex; 5]) -> [Complex; 5] {
    const COS: [f32; 2] = [0.309_017, -0.809_017];
    const SIN: [f32; 2] = [0.951_056_5, 0.587_785_25];
    let (outer, inner) = (b.plus(e), c.plus(d));
    let (far, near) = (b.minus(e), c.minus(d));
    let first = a.plus(outer.scaled(COS[0])).plus(inner.scaled(COS[1]));
    let second = a.plus(outer.scaled(COS[1])).plus(inner.scaled(COS[0]));
    let first_side = far.scaled(SIN[0]).plus(near.scaled(SIN[1])).turned();
    let second_side = far.scaled(SIN[1]).minus(near.scaled(SIN[0])).turned();
    [
        a.plus(outer).plus(inner),
        first.plus(first_side),
        second.plus(second_side),
        second.minus(second_side),
        first.minus(first_side),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(n: usize) -> Vec<f32> {
        let mut s = 7u64;
        let next = |_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(next).collect()
    }

    /// The sum that defines the transform, in f64.
    fn naive(x: &[f32]) -> Vec<f64> {
        let n = x.len();
        let part = |f: fn(f64) -> f64| {
            let term = move |k: usize, t: usize| f(2.0 * core::f64::consts::PI * ((k * t) % n) as f64 / n as f64);
            (0..=n / 2).map(move |k| x.iter().enumerate().map(|(t, &v)| f64::from(v) * term(k, t)).sum::<f64>())
        };
        part(f64::cos).chain(part(|a| -a.sin())).collect()
    }

    #[test]
    fn the_defining_sum_and_back() {
        let small = (2..=120).filter(|&n| RealFft::supports(n));
        for n in small.chain([400, 512, 600, 1000, 1280, 2048, 2400, 6480]) {
            let mut table = vec![0.0; RealFft::table_len(n)];
            RealFft::fill_table(n, &mut table);
            let fft = RealFft::new(n, &table).unwrap();
            let x = signal(n);
            let (mut spectrum, mut back) = (vec![f32::NAN; n + 2], vec![f32::NAN; n]);
            let mut scratch = vec![f32::NAN; RealFft::scratch_len(n)];
            assert!(fft.forward(&x, &mut spectrum, &mut scratch));
            let expected = naive(&x);
            // White noise has a spectrum of about this size everywhere.
            let size = (n as f64 / 3.0).sqrt();
            let worst = spectrum.iter().zip(&expected).fold(0.0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
            assert!(worst < 1e-6 * size, "{n}: {worst:e} of {size}");
            scratch.fill(f32::NAN);
            // What a real signal's transform does not have counts for nothing.
            (spectrum[n / 2 + 1], spectrum[n + 1]) = (3.0, -3.0);
            assert!(fft.inverse(&spectrum, &mut back, &mut scratch));
            let worst = back.iter().zip(&x).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 1e-6, "{n}: {worst:e} and back");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for n in [0, 1, 3, 14, 22, 1282, MAX_FFT + 2, usize::MAX, usize::MAX - 1] {
            assert!(!RealFft::supports(n), "{n}");
        }
        let mut table = vec![0.0; RealFft::table_len(8)];
        RealFft::fill_table(8, &mut table);
        assert!(RealFft::new(8, &table[1..]).is_none());
        let fft = RealFft::new(8, &table).unwrap();
        assert!(!fft.forward(&[0.0; 7], &mut [0.0; 10], &mut [0.0; 16]));
        assert!(!fft.forward(&[0.0; 8], &mut [0.0; 9], &mut [0.0; 16]));
        assert!(!fft.inverse(&[0.0; 10], &mut [0.0; 8], &mut [0.0; 15]));
    }
}
