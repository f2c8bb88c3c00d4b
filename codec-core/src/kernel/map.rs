//! Pointwise functions, and the end of a matrix kernel: residual and activation over what was just stored.

use super::simd::{Op, Simd};
use super::{Pointwise, math};

/// A function of a vector of neighbouring channels.
trait Map: Copy {
    /// Whether it is the same for every channel.
    const UNIFORM: bool;
    /// # Safety
    /// The parameters reach to channel `n + lanes`, `lanes <= W`.
    unsafe fn map<S: Simd>(self, s: S, n: usize, lanes: usize, x: S::V) -> S::V;
}

/// `p[n..n + lanes]`.
/// # Safety
/// It can be read.
#[inline(always)]
unsafe fn channels<S: Simd>(s: S, p: &[f32], n: usize, lanes: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { load(s, p.as_ptr().add(n), lanes) }
}

/// # Safety
/// `lanes <= W` values can be read at `p`.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, p: *const f32, lanes: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if lanes == S::W { s.load(p) } else { s.load_some(p, lanes) } }
}

/// # Safety
/// `lanes <= W` values can be written at `p`.
#[inline(always)]
unsafe fn store<S: Simd>(s: S, p: *mut f32, v: S::V, lanes: usize) {
    // SAFETY: the caller's.
    unsafe { if lanes == S::W { s.store(p, v) } else { s.store_some(p, v, lanes) } }
}

macro_rules! maps {
    ($(
        $uniform:literal $name:ident [$($life:lifetime)?] ($($field:ident: $type:ty),*)
        |$s:ident, $n:ident, $lanes:ident, $x:ident| $e:expr;
    )*) => {
        $(
            #[derive(Clone, Copy)]
            struct $name<$($life)?> { $($field: $type),* }

            impl<$($life)?> Map for $name<$($life)?> {
                const UNIFORM: bool = $uniform;
                #[inline(always)]
                unsafe fn map<S: Simd>(self, $s: S, $n: usize, $lanes: usize, $x: S::V) -> S::V {
                    let Self { $($field),* } = self;
                    let _ = ($s, $n, $lanes);
                    // SAFETY: the caller's.
                    #[allow(unused_unsafe)]
                    unsafe { $e }
                }
            }
        )*
    };
}

maps! {
    true Identity[]() |s, n, lanes, x| x;
    true Elu[](alpha: f32) |s, n, lanes, x| {
        s.select_gt(x, s.splat(0.0), x, s.mul(s.splat(alpha), math::exp_m1(s, x)))
    };
    true LeakyRelu[](slope: f32) |s, n, lanes, x| s.select_gt(x, s.splat(0.0), x, s.mul(s.splat(slope), x));
    false Snake['a](alpha: &'a [f32], inverse: &'a [f32]) |s, n, lanes, x| {
        let y = math::sin(s, s.mul(channels(s, alpha, n, lanes), x));
        s.fma(s.mul(y, y), channels(s, inverse, n, lanes), x)
    };
    true Tanh[]() |s, n, lanes, x| math::tanh(s, x);
    true Gelu[]() |s, n, lanes, x| math::gelu(s, x);
    true Silu[]() |s, n, lanes, x| math::silu(s, x);
    false Multiply['a](factors: &'a [f32]) |s, n, lanes, x| s.mul(x, channels(s, factors, n, lanes));
    true Scale[](factor: f32) |s, n, lanes, x| s.mul(x, s.splat(factor));
    true Divide[](divisor: f32) |s, n, lanes, x| s.div(x, s.splat(divisor));
    false Requantize['a](multiplier: &'a [f32], low: f32, high: f32) |s, n, lanes, x| {
        math::clamp(s, s.round(s.mul(x, channels(s, multiplier, n, lanes))), low, high)
    };
    true Quantize[](inverse_scale: f32, low: f32, high: f32) |s, n, lanes, x| {
        s.round(math::clamp(s, s.mul(x, s.splat(inverse_scale)), low, high))
    };
    true LeakyReluInt8[](positive: f32, negative: f32, low: f32, high: f32) |s, n, lanes, x| {
        let slope = s.select_gt(s.splat(0.0), x, s.splat(negative), s.splat(positive));
        let y = s.add(s.mul(x, slope), s.splat(128.0));
        math::clamp(s, math::floor(s, s.mul(y, s.splat(1.0 / 256.0))), low, high)
    };
}

/// `out = then(out + residual)` over a block of an output.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) then: Pointwise<'a>,
    /// Row 0 of the block.
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    /// Row 0 of the block, and the values between two rows.
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) rows: usize,
    /// Channel of the first column.
    pub(super) first: usize,
    pub(super) columns: usize,
}

/// A [`Finish`] that describes memory that is there.
pub(super) struct FinishOp<'a>(Finish<'a>);

impl<'a> FinishOp<'a> {
    /// # Safety
    /// The block of `out` can be read and written by nobody else, that of the residual read, and the function's
    /// parameters reach to channel `first + columns`.
    pub(super) unsafe fn new(finish: Finish<'a>) -> Self {
        Self(finish)
    }

    #[inline(always)]
    fn each<S: Simd, M: Map>(&self, s: S, map: M) {
        let f = &self.0;
        match f.residual {
            None => self.block(s, map, f.out_stride, |_, _, x| x),
            Some((p, stride)) => {
                // SAFETY: `new`'s.
                let add = |at: usize, lanes, x| unsafe { s.add(x, load(s, p.add(at), lanes)) };
                self.block(s, map, stride, add);
            }
        }
    }

    /// `residual(offset, lanes, x)` adds what lies at that offset of the residual, whose rows are `stride` apart.
    #[inline(always)]
    fn block<S: Simd, M: Map>(&self, s: S, map: M, stride: usize, residual: impl Fn(usize, usize, S::V) -> S::V) {
        let f = &self.0;
        // Without gaps, and the same for every channel: one long row.
        let flat = M::UNIFORM && f.out_stride == f.columns && stride == f.columns;
        let (rows, columns) = if flat { (1, f.rows * f.columns) } else { (f.rows, f.columns) };
        for t in 0..rows {
            let mut n = 0;
            while n < columns {
                let lanes = (columns - n).min(S::W);
                // SAFETY: `new`'s; row and column are of the block.
                unsafe {
                    let o = f.out.add(t * f.out_stride + n);
                    let x = residual(t * stride + n, lanes, load(s, o, lanes));
                    store(s, o, map.map(s, f.first + n, lanes, x), lanes);
                }
                n += lanes;
            }
        }
    }
}

impl Op for FinishOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.0.then {
            Pointwise::Identity => self.each(s, Identity {}),
            Pointwise::Elu(alpha) => self.each(s, Elu { alpha }),
            Pointwise::LeakyRelu(slope) => self.each(s, LeakyRelu { slope }),
            Pointwise::Snake { alpha, inverse } => self.each(s, Snake { alpha, inverse }),
            Pointwise::Tanh => self.each(s, Tanh {}),
            Pointwise::Gelu => self.each(s, Gelu {}),
            Pointwise::Silu => self.each(s, Silu {}),
            Pointwise::Multiply(factors) => self.each(s, Multiply { factors }),
            Pointwise::Scale(factor) => self.each(s, Scale { factor }),
            Pointwise::Divide(divisor) => self.each(s, Divide { divisor }),
            Pointwise::Requantize { multiplier, low, high } => self.each(s, Requantize { multiplier, low, high }),
            Pointwise::Quantize { inverse_scale, low, high } => self.each(s, Quantize { inverse_scale, low, high }),
            Pointwise::LeakyReluInt8 { positive, negative, low, high } => {
                self.each(s, LeakyReluInt8 { positive, negative, low, high })
            }
        }
    }
}

/// One step of a long short-term memory over `hidden` units.
pub(super) struct LstmOp<'a> {
    /// Input, forget, cell and output gate: `4 * hidden.len()` sums.
    pub(super) gates: &'a [f32],
    pub(super) cell: &'a mut [f32],
    pub(super) hidden: &'a mut [f32],
}

impl Op for LstmOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let h = self.hidden.len().min(self.cell.len()).min(self.gates.len() / 4);
        let mut n = 0;
        while n < h {
            let lanes = (h - n).min(S::W);
            // SAFETY: `n + lanes <= h`, which all three reach.
            unsafe {
                let gate = |i: usize| load(s, self.gates.as_ptr().add(i * h + n), lanes);
                let cell = self.cell.as_mut_ptr().add(n);
                let new = s.mul(math::sigmoid(s, gate(0)), math::tanh(s, gate(2)));
                let c = s.fma(math::sigmoid(s, gate(1)), load(s, cell, lanes), new);
                store(s, cell, c, lanes);
                let y = s.mul(math::sigmoid(s, gate(3)), math::tanh(s, c));
                store(s, self.hidden.as_mut_ptr().add(n), y, lanes);
            }
            n += lanes;
        }
    }
}

/// `a += b` over the length of the shorter.
pub(super) struct AddOp<'a>(pub(super) &'a mut [f32], pub(super) &'a [f32]);

impl Op for AddOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.0.len().min(self.1.len());
        let mut n = 0;
        while n < len {
            let lanes = (len - n).min(S::W);
            // SAFETY: `n + lanes <= len`, which both reach.
            unsafe {
                let a = self.0.as_mut_ptr().add(n);
                store(s, a, s.add(load(s, a, lanes), load(s, self.1.as_ptr().add(n), lanes)), lanes);
            }
            n += lanes;
        }
    }
}

/// Logarithms of magnitudes and phases to real and imaginary parts.
pub(super) struct PolarOp<'a> {
    pub(super) log_magnitude: &'a [f32],
    pub(super) phase: &'a [f32],
    pub(super) most: f32,
    pub(super) re: &'a mut [f32],
    pub(super) im: &'a mut [f32],
}

impl Op for PolarOp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.log_magnitude.len().min(self.phase.len()).min(self.re.len()).min(self.im.len());
        let mut n = 0;
        while n < len {
            let lanes = (len - n).min(S::W);
            // SAFETY: `n + lanes <= len`, which all four reach.
            unsafe {
                let e = math::exp(s, load(s, self.log_magnitude.as_ptr().add(n), lanes));
                let magnitude = s.min(e, s.splat(self.most));
                let phase = load(s, self.phase.as_ptr().add(n), lanes);
                store(s, self.re.as_mut_ptr().add(n), s.mul(magnitude, math::cos(s, phase)), lanes);
                store(s, self.im.as_mut_ptr().add(n), s.mul(magnitude, math::sin(s, phase)), lanes);
            }
            n += lanes;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::{Compute, Isa, polar};

    #[test]
    fn polar_is_accurate_and_the_same_everywhere() {
        // Phases over many turns, not in step with the magnitudes; 20001 is no multiple of any vector.
        let magnitude: Vec<f32> = (0..20_001).map(|i| ((i * 7919) % 20_001) as f32 / 20_001.0 * 12.0 - 8.0).collect();
        for reach in [3.2f32, 100.0, 5000.0] {
            let phase: Vec<f32> = (0..20_001).map(|i| (i as f32 / 10_000.0 - 1.0) * reach).collect();
            let run = |isa| {
                let (mut re, mut im) = (vec![f32::NAN; phase.len()], vec![f32::NAN; phase.len()]);
                assert!(polar(Compute { isa, pool: None }, &magnitude, &phase, 30.0, &mut re, &mut im));
                (re, im)
            };
            let (re, im) = run(Isa::Scalar);
            let mut worst = 0.0f64;
            for (((m, p), re), im) in magnitude.iter().zip(&phase).zip(&re).zip(&im) {
                let m = f64::from(*m).exp().min(30.0);
                let (sin, cos) = f64::from(*p).sin_cos();
                worst = worst.max((f64::from(*re) - m * cos).abs() / m).max((f64::from(*im) - m * sin).abs() / m);
            }
            println!("polar up to {reach}: greatest error {worst:.2e} of the magnitude");
            assert!(worst < 3.5e-7);
            for isa in Isa::all_available() {
                assert_eq!(run(isa), (re.clone(), im.clone()), "{isa}");
            }
        }
    }

    #[test]
    fn polar_of_special_values() {
        for isa in Isa::all_available() {
            let cx = Compute { isa, pool: None };
            let magnitude = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            let (mut re, mut im) = ([7.0; 4], [7.0; 4]);
            assert!(polar(cx, &magnitude, &[0.0; 4], 100.0, &mut re, &mut im));
            assert_eq!((re[0], re[1], re[3]), (100.0, 100.0, 1.0));
            assert!(re[2].abs() < 2e-38 && im == [0.0; 4]);
            let phases = [f32::NAN, 1e20, f32::MAX, f32::INFINITY];
            assert!(polar(cx, &[0.0; 4], &phases, 100.0, &mut re, &mut im));
            assert!(re[0].is_nan() && im[0].is_nan());
            assert!(re[1..3].iter().chain(&im[1..3]).all(|v| v.abs() <= 1.0));
            assert!(!polar(cx, &magnitude, &phases[1..], 1.0, &mut re, &mut im));
            assert!(!polar(cx, &magnitude, &phases, 1.0, &mut re, &mut im[1..]));
        }
    }
}
