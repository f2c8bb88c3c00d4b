//! Every instruction set and every split against plain loops, to the bit; the functions against `f64`.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

mod precision;

/// Threads, each number called on one of three, in a scrambled order, some twice.
struct Threads;

impl Pool for Threads {
    fn threads(&self) -> usize {
        3
    }
    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for first in [2, 0, 1] {
                scope.spawn(move || (first..count + 1).step_by(3).for_each(task));
            }
        });
    }
}

fn computes() -> impl Iterator<Item = Compute<'static>> {
    let pools: &[Option<&dyn Pool>] = if cfg!(target_arch = "wasm32") { &[None] } else { &[None, Some(&Threads)] };
    Isa::all_available().flat_map(|isa| pools.iter().map(move |&pool| Compute { isa, pool }))
}

const SCALAR: Compute<'static> = Compute { isa: Isa::Scalar, pool: None };

/// Equal bits; of NaN only that it is one.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

/// Values in (-2, 2) from a counter.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..len).map(|_| next()).collect()
}

fn function(kind: usize, parameters: &[f32]) -> Pointwise<'_> {
    match kind {
        0 => Pointwise::Identity,
        1 => Pointwise::Elu(0.75),
        2 => Pointwise::LeakyRelu(0.1),
        3 => Pointwise::Snake { alpha: parameters, inverse: parameters },
        4 => Pointwise::Tanh,
        5 => Pointwise::Scale(0.3),
        6 => Pointwise::Divide(3.0),
        7 => Pointwise::Requantize { multiplier: parameters, low: -3.0, high: 4.0 },
        8 => Pointwise::Quantize { inverse_scale: 7.5, low: -9.0, high: 8.0 },
        9 => Pointwise::Gelu,
        10 => Pointwise::Silu,
        11 => Pointwise::Multiply(parameters),
        _ => Pointwise::LeakyReluInt8 { positive: 200.0, negative: 60.0, low: -5.0, high: 5.0 },
    }
}
const FUNCTIONS: usize = 13;

/// The shape of a product or of a depthwise convolution.
#[derive(Clone, Debug)]
struct Shape {
    rows: usize,
    row_stride: usize,
    taps: usize,
    tap_stride: isize,
    depth: usize,
    columns: usize,
    gap: usize,
    start: usize,
    residual: bool,
    then: usize,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let wide = (0..40usize, 0..50usize, 1..5usize, -60..60isize, 0..40usize, 1..150usize);
    // Single rows, of many panels.
    let single = (1..4usize, 0..50usize, 1..3usize, -60..60isize, 1..40usize, 100..400usize);
    // Few columns over many rows that lie as a convolution's do.
    let narrow = (1..500usize, 1..40usize, 1..9usize, -4..5isize, 1..40usize, 1..10usize).prop_map(
        |(rows, stride, taps, step, depth, columns)| {
            (rows, stride, taps, step * stride as isize, depth.min(stride), columns)
        },
    );
    // Rows that overlap, without gaps: the first convolution of a codec.
    let overlap = (1..200usize, 1..5usize, 1..9usize, 1..20usize)
        .prop_map(|(rows, stride, taps, columns)| (rows, stride, 1, 0, stride * taps, columns));
    let merged = (1..30usize, 1..50usize, 1..5usize, 1..40usize, 1..40usize)
        .prop_map(|(rows, stride, taps, depth, columns)| (rows, stride, taps, depth as isize, depth, columns));
    let geometry = prop_oneof![3 => wide, 1 => single, 3 => narrow, 1 => overlap, 1 => merged];
    (geometry, 0..3usize, 0..3usize, any::<bool>(), 0..FUNCTIONS, any::<u64>()).prop_map(
        |((rows, row_stride, taps, tap_stride, depth, columns), gap, start, residual, then, seed)| Shape {
            rows,
            row_stride,
            taps,
            tap_stride,
            depth,
            columns,
            gap,
            start,
            residual,
            then,
            seed,
        },
    )
}

/// The slices of a shape.
struct Case {
    shape: Shape,
    x: Vec<f32>,
    origin: usize,
    w: Vec<f32>,
    bias: Vec<f32>,
    parameters: Vec<f32>,
    residual: Vec<f32>,
    before: Vec<f32>,
}

impl Case {
    /// `run` is how many values a tap reads, `weights` how many there are.
    fn new(shape: Shape, run: usize, weights: usize) -> Self {
        let Shape { rows, row_stride, taps, tap_stride, columns, gap, seed, .. } = shape;
        let span = (taps.max(1) - 1) as isize * tap_stride;
        let origin = span.min(0).unsigned_abs() + gap;
        let len = origin + rows.saturating_sub(1) * row_stride + span.max(0) as usize + run;
        let output = 5 + rows * (columns + gap);
        Self {
            x: noise(len, seed),
            origin,
            w: noise(weights, seed ^ 1),
            bias: noise(columns, seed ^ 2),
            parameters: noise(columns, seed ^ 3),
            residual: noise(output, seed ^ 4),
            before: noise(output, seed ^ 5),
            shape,
        }
    }
    fn rows(&self) -> Rows<'_> {
        let Shape { rows, row_stride, taps, tap_stride, depth, .. } = self.shape;
        Rows { data: &self.x, origin: self.origin, rows, row_stride, taps, tap_stride, depth }
    }
    fn start(&self) -> Start<'_> {
        [Start::Zero, Start::Bias(&self.bias), Start::Output][self.shape.start]
    }
    fn stride(&self) -> usize {
        self.shape.columns + self.shape.gap
    }
    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue {
            residual: self.shape.residual.then_some((&self.residual[..], 2, self.stride())),
            then: function(self.shape.then, &self.parameters),
        }
    }
    /// `term(t, n, k)`: the two factors of term `k`.
    fn expected(&self, terms: usize, term: impl Fn(usize, usize, usize) -> (f32, f32)) -> Vec<f32> {
        let mut out = self.before.clone();
        for t in 0..self.shape.rows {
            let row = 3 + t * self.stride();
            for n in 0..self.shape.columns {
                let mut acc = [0.0, self.bias[n], out[row + n]][self.shape.start];
                for k in 0..terms {
                    let (a, b) = term(t, n, k);
                    acc = if cfg!(target_arch = "wasm32") { a * b + acc } else { a.mul_add(b, acc) };
                }
                if self.shape.residual {
                    acc += self.residual[2 + t * self.stride() + n];
                }
                out[row + n] = acc;
            }
            let then = function(self.shape.then, &self.parameters);
            assert!(pointwise(SCALAR, then, self.shape.columns, &mut out[row..row + self.shape.columns]));
        }
        out
    }
    fn input(&self, t: usize, j: usize, c: usize) -> f32 {
        let at = self.origin as isize + (t * self.shape.row_stride + c) as isize + j as isize * self.shape.tap_stride;
        self.x[at as usize]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn matmul_equals_loops(shape in shapes()) {
        let Shape { taps, depth, columns, .. } = shape;
        let len = taps * depth;
        let case = Case::new(shape, depth, len * columns);
        let mut packed = vec![f32::NAN; panel_len(columns, len)];
        if len > 0 {
            pack(columns, len, |n, k| case.w[n * len + k], &mut packed);
        }
        let w = Panels { columns, depth: len, data: Weights::F32(&packed) };
        let expected = case.expected(len, |t, n, k| (case.input(t, k / depth, k % depth), case.w[n * len + k]));
        for cx in computes() {
            let mut out = case.before.clone();
            let to = Out { data: &mut out, origin: 3, row_stride: case.stride() };
            prop_assert!(matmul(cx, case.rows(), w, case.start(), case.epilogue(), to));
            prop_assert!(same(&out, &expected), "{} pool {}", cx.isa, cx.pool.is_some());
        }
    }

    #[test]
    fn depthwise_equals_loops(shape in shapes()) {
        let Shape { taps, columns, .. } = shape;
        let case = Case::new(shape, columns, taps * columns);
        let expected = case.expected(taps, |t, n, j| (case.input(t, j, n), case.w[j * columns + n]));
        for cx in computes() {
            let mut out = case.before.clone();
            let to = Out { data: &mut out, origin: 3, row_stride: case.stride() };
            prop_assert!(depthwise(cx, case.rows(), columns, &case.w, case.start(), case.epilogue(), to));
            prop_assert!(same(&out, &expected), "{} pool {}", cx.isa, cx.pool.is_some());
        }
    }

    /// Whatever one slice or number is short by, the answer is `false`, and nothing is written.
    #[test]
    fn short_slices_are_refused(shape in shapes(), cut in 0..8usize) {
        prop_assume!(shape.rows > 0 && shape.depth > 0);
        let Shape { taps, depth, columns, .. } = shape;
        let len = taps * depth;
        let case = Case::new(shape, depth, panel_len(columns, len));
        let mut out = case.before.clone();
        let (mut rows, mut w) = (case.rows(), Panels { columns, depth: len, data: Weights::F32(&case.w) });
        let mut start = case.start();
        let mut epilogue = case.epilogue();
        let mut to = Out { data: &mut out, origin: 3, row_stride: case.stride() };
        match cut {
            0 => rows.data = &rows.data[..rows.data.len() - 1],
            1 => w.data = Weights::F32(&case.w[..case.w.len() - 1]),
            2 => start = Start::Bias(&case.bias[..columns - 1]),
            3 => to.origin = to.data.len() + 1 - columns - (case.shape.rows - 1) * case.stride(),
            4 => epilogue.residual = Some((&case.residual[..columns - 1], 0, 0)),
            5 => w.depth += 1,
            6 => epilogue.then = Pointwise::Snake { alpha: &case.bias, inverse: &case.bias[1..] },
            _ => {
                rows.taps = 2;
                rows.tap_stride = -(rows.origin as isize) - 1;
                w.depth = 2 * depth;
            }
        }
        prop_assert!(!matmul(SCALAR, rows, w, start, epilogue, to));
        prop_assert!(same(&out, &case.before));
    }

    #[test]
    fn functions_are_the_same_everywhere(
        kind in 0..FUNCTIONS, channels in 1..70usize, rows in 0..20usize, bits in prop::collection::vec(any::<u32>(), 64),
        seed in any::<u64>(),
    ) {
        let parameters = noise(channels, seed);
        let mut x = noise(rows * channels, seed ^ 1);
        // Any bits at all among tame values.
        for (v, b) in x.iter_mut().step_by(3).zip(bits) {
            *v = f32::from_bits(b);
        }
        let mut expected = x.clone();
        for v in expected.chunks_mut(channels) {
            prop_assert!(pointwise(SCALAR, function(kind, &parameters), channels, v));
        }
        for cx in computes() {
            let mut y = x.clone();
            prop_assert!(pointwise(cx, function(kind, &parameters), channels, &mut y));
            prop_assert!(same(&y, &expected), "{}", cx.isa);
        }
        prop_assert!(!pointwise(SCALAR, Pointwise::Tanh, channels + 1, &mut vec![0.0; channels]));
    }

    #[test]
    fn lstm_cell_is_the_same_everywhere(hidden in 0..70usize, seed in any::<u64>()) {
        let gates: Vec<f32> = noise(4 * hidden, seed).iter().map(|x| x * 4.0).collect();
        let cell = noise(hidden, seed ^ 1);
        let sigmoid = |x: f32| 1.0 / (1.0 + f64::from(-x).exp());
        let (mut c0, mut h0) = (cell.clone(), vec![0.0; hidden]);
        prop_assert!(lstm_cell(SCALAR, &gates, &mut c0, &mut h0));
        for n in 0..hidden {
            let g = |i: usize| gates[i * hidden + n];
            let c = sigmoid(g(1)) * f64::from(cell[n]) + sigmoid(g(0)) * f64::from(g(2)).tanh();
            prop_assert!((f64::from(c0[n]) - c).abs() < 5e-7);
            prop_assert!((f64::from(h0[n]) - sigmoid(g(3)) * c.tanh()).abs() < 5e-7);
        }
        for cx in computes() {
            let (mut c, mut h) = (cell.clone(), vec![0.0; hidden]);
            prop_assert!(lstm_cell(cx, &gates, &mut c, &mut h));
            prop_assert!(same(&c, &c0) && same(&h, &h0), "{}", cx.isa);
            prop_assert!(!lstm_cell(cx, &gates, &mut c, &mut vec![0.0; hidden + 1]));
        }
    }

    #[test]
    fn distances_and_sums_equal_loops(columns in 0..300usize, depth in 0..40usize, seed in any::<u64>()) {
        let (x, w) = (noise(depth, seed), noise(columns * depth, seed ^ 1));
        let mut packed = vec![0.0; panel_len(columns, depth)];
        if depth > 0 {
            pack(columns, depth, |n, k| w[n * depth + k], &mut packed);
        }
        let panels = Panels { columns, depth, data: Weights::F32(&packed) };
        let expected: Vec<f32> = (0..columns)
            .map(|n| (0..depth).fold(0.0, |sum, c| sum + (x[c] - w[n * depth + c]) * (x[c] - w[n * depth + c])))
            .collect();
        let sums: Vec<f32> = w.iter().zip(&packed).map(|(a, b)| a + b).collect();
        for cx in computes() {
            let mut out = vec![0.0; columns];
            prop_assert!(square_distance(cx, &x, panels, &mut out));
            prop_assert!(same(&out, &expected), "{}", cx.isa);
            prop_assert!(!square_distance(cx, &x, panels, &mut vec![0.0; columns + 1]));
            let mut a = w.clone();
            prop_assert!(add(cx, &mut a, &packed[..w.len()]));
            prop_assert!(same(&a, &sums));
            prop_assert!(!add(cx, &mut a, &vec![0.0; w.len() + 1]));
        }
    }

    #[test]
    fn first_extremes_are_found(
        row in prop::collection::vec(prop_oneof![
            8 => (-9..9i8).prop_map(f32::from),
            1 => Just(f32::NAN), 1 => Just(-0.0), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY)
        ], 0..300),
    ) {
        let mut least: Option<usize> = None;
        let mut greatest: Option<usize> = None;
        for (i, x) in row.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
            least = if least.is_none_or(|j| *x < row[j]) { Some(i) } else { least };
            greatest = if greatest.is_none_or(|j| *x > row[j]) { Some(i) } else { greatest };
        }
        for cx in computes() {
            prop_assert_eq!(argmin(cx, &row), least);
            prop_assert_eq!(argmax(cx, &row), greatest);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn attention_is_plain_loops(
        heads in 1..5usize, dim in 1..40usize, blocks in 1..5usize, rows in 0..30usize, more in 0..3usize, seed in any::<u64>(),
    ) {
        let (slots, width) = (blocks * PANEL, heads * dim);
        let noise = |len: usize, salt: u64| noise(len, seed ^ salt);
        let (q, k, v) = (noise(rows * width, 1), noise(slots * width, 2), noise(slots * width, 3));
        let attended = |t: usize| ((t * 5 + seed as usize % 97) % slots, 1 + (t * 3 + seed as usize % 89) % slots);
        // Everything in `slots` slots, and again in more of which the last are not attended to.
        let run = |cx: Compute<'_>, room: usize| {
            let (key_len, value_len) = Heads::lens(dim, room);
            let (mut keys, mut values) = (vec![0.0; heads * key_len], vec![0.0; heads * value_len]);
            for h in 0..heads {
                let at = |x: &[f32], j: usize, c: usize| x.get(j * width + h * dim + c).copied().unwrap_or(7.0);
                pack(room, dim, |j, c| at(&k, j, c), &mut keys[h * key_len..][..key_len]);
                pack(dim, room, |c, j| at(&v, j, c), &mut values[h * value_len..][..value_len]);
            }
            let (mut scores, mut out) = (vec![0.0; heads * rows * room], vec![0.0; rows * width]);
            let of = Heads { heads, dim, slots: room, keys: &keys, values: &values };
            // Where there is room for more, a range that wraps would reach it.
            let clipped = |t: usize| {
                let (first, count) = attended(t);
                (first, if more > 0 { count.min(slots - first) } else { count })
            };
            assert!(attend(cx, &q, rows, of, &clipped, &mut scores, &mut out));
            if rows > 0 {
                let short = &mut scores[1..];
                assert!(!attend(cx, &q, rows, of, &clipped, short, &mut out.clone()));
                assert!(!attend(cx, &q, rows, Heads { slots: room - 1, ..of }, &clipped, &mut scores, &mut out.clone()));
                assert!(!attend(cx, &q, rows, Heads { heads: usize::MAX, ..of }, &clipped, &mut scores, &mut out.clone()));
            }
            out
        };
        let y = run(SCALAR, slots + more * PANEL);
        for cx in computes() {
            prop_assert!(same(&y, &run(cx, slots + more * PANEL)));
            if more > 0 {
                prop_assert!(same(&y, &run(cx, slots)), "slots that nobody attends to");
            }
        }
        for t in 0..rows {
            let (first, count) = attended(t);
            let count = if more > 0 { count.min(slots - first) } else { count };
            for h in 0..heads {
                let dot = |j: usize| -> f64 {
                    (0..dim).map(|c| f64::from(q[t * width + h * dim + c]) * f64::from(k[j * width + h * dim + c])).sum()
                };
                let slot = |i: usize| (first + i) % slots;
                let greatest = (0..count).map(|i| dot(slot(i))).fold(f64::MIN, f64::max);
                let weights: Vec<f64> = (0..count).map(|i| (dot(slot(i)) - greatest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for c in 0..dim {
                    let value = |i: usize| f64::from(v[slot(i) * width + h * dim + c]);
                    let exact: f64 = (0..count).map(|i| weights[i] / total * value(i)).sum();
                    prop_assert!((exact - f64::from(y[t * width + h * dim + c])).abs() < 4e-5);
                }
            }
        }
    }

    #[test]
    fn rows_are_normalised_and_turned_alike(
        rows in 0..20usize, heads in 1..4usize, half in 1..40usize, seed in any::<u64>(),
    ) {
        let (dim, width) = (2 * half, 2 * half * heads);
        let x: Vec<f32> = noise(rows * width, seed).iter().map(|v| v + 3.0).collect();
        let (weight, bias, turns) = (noise(width, seed ^ 1), noise(width, seed ^ 2), noise(rows * dim, seed ^ 3));
        let run = |cx| {
            let mut y = x.clone();
            assert!(layer_norm(cx, &weight, &bias, 1e-5, &mut y));
            let normal = y.clone();
            assert!(rotate(cx, heads, dim, &turns, &mut y));
            let mut angles = turns.clone();
            sine(cx, &mut angles);
            (normal, y, angles)
        };
        let (normal, turned, sines) = run(SCALAR);
        for cx in computes() {
            let (a, b, c) = run(cx);
            prop_assert!(same(&normal, &a) && same(&turned, &b) && same(&sines, &c));
        }
        for (i, x) in x.chunks(width).enumerate() {
            let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64;
            let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / width as f64;
            for (c, v) in x.iter().enumerate() {
                let exact = (f64::from(*v) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c]);
                // The mean of values up to 5 is rounded to some 1e-6, whatever it is then divided by.
                let bound = 4e-6 / (variance + 1e-5).sqrt();
                prop_assert!((exact - f64::from(normal[i * width + c])).abs() < bound);
                let (head, j) = (c / dim * dim, c % dim);
                let of = |j: usize| normal[i * width + head + j];
                let (cos, sin) = (turns[i * dim + j % half], turns[i * dim + half + j % half]);
                let exact = if j < half { of(j) * cos - of(j + half) * sin } else { of(j) * cos + of(j - half) * sin };
                prop_assert!(same(&[exact], &turned[i * width + c..][..1]));
            }
        }
        for (x, y) in turns.iter().zip(&sines) {
            prop_assert!((f64::from(*x).sin() - f64::from(*y)).abs() < 1.3e-7);
        }
        let mut y = x.clone();
        prop_assert!(!layer_norm(SCALAR, &weight, &bias[1..], 1e-5, &mut y));
        prop_assert!(rows == 0 || !rotate(SCALAR, heads, dim, &turns[1..], &mut y));
        prop_assert!(!rotate(SCALAR, heads, dim + 1, &turns, &mut y) || rows == 0);
        prop_assert!(same(&x, &y));
    }
}

/// Numbers that overflow on the way to a bound are refused as any others.
#[test]
fn hostile_sizes_are_refused() {
    const HUGE: usize = usize::MAX;
    let (x, w) = ([1.0f32; 64], [1.0f32; 64]);
    let rows = Rows { data: &x, origin: 0, rows: 2, row_stride: 2, taps: 2, tap_stride: 2, depth: 2 };
    let panels = Panels { columns: 3, depth: 4, data: Weights::F32(&w) };
    let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
    let run = |rows: Rows<'_>, w: Panels<'_>, residual, origin, row_stride| {
        let mut out = [0.0f32; 8];
        let to = Out { data: &mut out, origin, row_stride };
        let done = matmul(SCALAR, rows, w, Start::Zero, Epilogue { residual, ..epilogue }, to);
        assert!(done || out == [0.0; 8]);
        done
    };
    assert!(run(rows, panels, None, 0, 3));
    for bad in [
        Rows { rows: HUGE, ..rows },
        Rows { row_stride: HUGE, ..rows },
        Rows { tap_stride: isize::MAX, ..rows },
        Rows { tap_stride: isize::MIN, ..rows },
        Rows { origin: HUGE, ..rows },
        Rows { taps: HUGE, ..rows },
        Rows { depth: HUGE, ..rows },
    ] {
        assert!(!run(bad, panels, None, 0, 3));
        assert!(!depthwise(
            SCALAR,
            bad,
            HUGE,
            &w,
            Start::Zero,
            epilogue,
            Out { data: &mut [], origin: 0, row_stride: 0 }
        ));
    }
    assert!(!run(rows, Panels { columns: HUGE, ..panels }, None, 0, 3));
    assert!(!run(rows, Panels { depth: HUGE, ..panels }, None, 0, 3));
    assert!(!run(rows, panels, Some((&x[..], HUGE, 3)), 0, 3));
    assert!(!run(rows, panels, Some((&x[..], 0, HUGE)), 0, 3));
    assert!(!run(rows, panels, None, HUGE, 3));
    assert!(!run(rows, panels, None, 0, HUGE));
    assert!(!run(rows, panels, None, 0, 2), "rows of the output overlap");
}

/// The greatest of `error(value, exact)` over a sweep, printed.
fn worst(name: &str, f: Pointwise<'_>, exact: impl Fn(f64) -> f64, sweep: &[f32], relative: bool) -> f64 {
    let mut y = sweep.to_vec();
    assert!(pointwise(SCALAR, f, 1, &mut y));
    for cx in computes() {
        let mut z = sweep.to_vec();
        assert!(pointwise(cx, f, 1, &mut z));
        assert!(same(&y, &z), "{name} on {}", cx.isa);
    }
    let mut worst = (0.0, 0.0);
    for (x, y) in sweep.iter().zip(&y) {
        let exact = exact(f64::from(*x));
        let error = (f64::from(*y) - exact).abs() / if relative { exact.abs().max(1e-30) } else { 1.0 };
        if error > worst.0 {
            worst = (error, *x);
        }
    }
    println!("{name}: greatest error {:.2e} at {:e}", worst.0, worst.1);
    worst.0
}

/// Evenly over a range, and every exponent below it.
fn sweep(limit: f32) -> Vec<f32> {
    let even = (-200_000..=200_000).map(|i| i as f32 / 200_000.0 * limit);
    let small = (0..100_000).map(|i| limit * (-(i as f32) / 1500.0).exp());
    even.chain(small.clone()).chain(small.map(|x| -x)).collect()
}

#[test]
fn functions_are_accurate() {
    let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
    assert!(worst("ELU", Pointwise::Elu(1.0), elu, &sweep(40.0), true) < 1.6e-7);
    assert!(worst("tanh", Pointwise::Tanh, f64::tanh, &sweep(12.0), true) < 3.0e-7);
    // Where the factor 1 + erf cancels, its rounding stays: the error is relative to the argument.
    let gelu = |x: f64| x * 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2);
    assert!(worst("GELU", Pointwise::Gelu, gelu, &sweep(12.0), false) < 6.0e-7);
    assert!(worst("GELU up to 0.5", Pointwise::Gelu, gelu, &sweep(0.5), true) < 2.5e-7);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    assert!(worst("SiLU", Pointwise::Silu, silu, &sweep(40.0), true) < 3.0e-7);
    let snake = Pointwise::Snake { alpha: &[1.0], inverse: &[1.0] };
    // The sum's own rounding is left out by taking what Snake adds to a zero: sin(x)^2 at x itself is in it.
    let exact = |x: f64| x + x.sin() * x.sin();
    let near = sweep(4.0);
    assert!(worst("Snake near zero", snake, exact, &near, false) < 4.0e-7);
    struct Sine<'a>(&'a [f32], &'a mut [f32]);
    impl Op for Sine<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for (x, y) in self.0.chunks_exact(PANEL).zip(self.1.chunks_exact_mut(PANEL)) {
                for v in (0..PANEL).step_by(S::W) {
                    // SAFETY: `W` divides `PANEL`.
                    unsafe { s.store(y.as_mut_ptr().add(v), math::sin(s, s.load(x.as_ptr().add(v)))) };
                }
            }
        }
    }
    for (limit, bound) in [(3.2f32, 1.3e-7), (5000.0, 1.3e-7), (10_000.0, 1.5e-7)] {
        let mut x = sweep(limit);
        x.truncate(x.len() / PANEL * PANEL);
        let mut expected = vec![0.0; x.len()];
        dispatch(Isa::Scalar, Sine(&x, &mut expected));
        let error =
            x.iter().zip(&expected).map(|(x, y)| (f64::from(*x).sin() - f64::from(*y)).abs()).fold(0.0, f64::max);
        println!("sin up to {limit}: greatest error {error:.2e}");
        assert!(error < bound);
        for isa in Isa::all_available() {
            let mut y = vec![0.0; x.len()];
            dispatch(isa, Sine(&x, &mut y));
            assert!(same(&y, &expected));
        }
    }
}

#[test]
fn functions_of_special_values() {
    for cx in computes() {
        let f = |f: Pointwise<'_>, x: f32| {
            let mut x = [x];
            assert!(pointwise(cx, f, 1, &mut x));
            x[0]
        };
        let snake = Pointwise::Snake { alpha: &[1.0], inverse: &[1.0] };
        for g in [
            Pointwise::Elu(1.0),
            Pointwise::Tanh,
            snake,
            function(8, &[]),
            Pointwise::Gelu,
            Pointwise::Silu,
            function(12, &[]),
        ] {
            assert!(f(g, f32::NAN).is_nan());
        }
        assert_eq!(f(Pointwise::Elu(1.0), f32::NEG_INFINITY), -1.0);
        assert_eq!(f(Pointwise::Elu(1.0), f32::INFINITY), f32::INFINITY);
        assert_eq!(f(Pointwise::Tanh, f32::INFINITY), 1.0);
        assert_eq!(f(Pointwise::Tanh, f32::NEG_INFINITY), -1.0);
        assert_eq!(f(Pointwise::Tanh, 0.0).to_bits(), 0);
        assert!(f(snake, f32::INFINITY).is_nan());
        for x in [1e7, 1e9, 1e20, f32::MAX] {
            assert!((x..=x + x * 1e-6 + 1.0).contains(&f(snake, x)));
        }
        let quantize = Pointwise::Quantize { inverse_scale: 1.0, low: -128.0, high: 127.0 };
        for (x, y) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, 0.0), (-1.5, -2.0), (1e30, 127.0), (-1e30, -128.0)] {
            assert_eq!(f(quantize, x), y);
        }
        // In integers: (x * slope + 128) >> 8.
        let leaky = Pointwise::LeakyReluInt8 { positive: 256.0, negative: 77.0, low: -128.0, high: 127.0 };
        for x in -300..300i32 {
            let y = (x * if x >= 0 { 256 } else { 77 } + 128) >> 8;
            assert_eq!(f(leaky, x as f32), y.clamp(-128, 127) as f32);
        }
        let requantize = Pointwise::Requantize { multiplier: &[0.5], low: -128.0, high: 127.0 };
        for (x, y) in [(1.0, 0.0), (3.0, 2.0), (5.0, 2.0), (-3.0, -2.0), (1000.0, 127.0)] {
            assert_eq!(f(requantize, x), y);
        }
    }
}

#[test]
fn sets_have_names() {
    for isa in Isa::all_available() {
        assert_eq!(isa.name().parse(), Ok(isa));
    }
    assert!(Isa::all_available().any(|isa| isa == Isa::Scalar));
    assert!(Isa::detect().is_available());
    assert_eq!("mmx".parse::<Isa>(), Err(UnknownIsa));
    println!("available: {:?}", Isa::all_available().collect::<Vec<_>>());
}
