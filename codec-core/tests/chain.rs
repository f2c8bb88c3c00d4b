//! A chain gives the same bits at any chunking, and what the plain formulas give.

#[path = "support/signal.rs"]
mod signal;
#[path = "support/tensors.rs"]
mod tensors;

use codec_core::{
    pipeline::Chain,
    spec::{
        Activation, Blocks, Branch, Conv, ConvTranspose, Layer, Lstm, PadMode, Padding, Parallel, Residual,
        layer_tensors,
    },
    weights::Tensors,
};
use proptest::prelude::*;
use signal::{close, noise, rows, run};
use tensors::MapTensors;

fn conv(name: &str, input: u32, output: u32, kernel: u32, stride: u32, dilation: u32, padding: Padding) -> Conv {
    Conv { name: name.into(), input, output, kernel, stride, dilation, groups: 1, bias: true, padding, int8: None }
}

/// The textbook form, in f64: pad, then slide.
fn conv_reference(l: &Conv, t: &dyn Tensors, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (w, b) = (t.tensor(&format!("{}.weight", l.name)).unwrap(), t.tensor(&format!("{}.bias", l.name)).unwrap());
    let (k, s, d) = (l.kernel as usize, l.stride as usize, l.dilation as usize);
    let span = (k - 1) * d + 1;
    let (left, mut right) = (l.padding.left as usize, l.padding.right as usize);
    let n = x.len();
    if l.padding.complete {
        let frames = ((n + left + right) as f64 - span as f64) / s as f64 + 1.0;
        // A signal that ends before a first window would begin has none.
        if frames > 0.0 {
            let ideal = (frames.ceil() as usize - 1) * s + span;
            right += ideal.saturating_sub(n + left + right);
        }
    }
    let zero = vec![0.0; l.input as usize];
    let mut extended = x.to_vec();
    if l.padding.mode == PadMode::Reflect {
        extended.resize(n.max(left.max(right) + 1), zero.clone());
    }
    let m = extended.len() as i64;
    let at = |i: i64| match l.padding.mode {
        PadMode::Zero => {
            if (0..m).contains(&i) {
                extended[i as usize].clone()
            } else {
                zero.clone()
            }
        }
        PadMode::Replicate => extended[i.clamp(0, m - 1) as usize].clone(),
        PadMode::Reflect => {
            let i = i.abs();
            extended[if i >= m { 2 * (m - 1) - i } else { i } as usize].clone()
        }
    };
    let padded: Vec<Vec<f64>> = (0..left + n + right).map(|i| at(i as i64 - left as i64)).collect();
    let frames = if padded.len() >= span { (padded.len() - span) / s + 1 } else { 0 };
    let (ci, groups) = (l.input as usize / l.groups as usize, l.groups as usize);
    let co = l.output as usize / groups;
    (0..frames)
        .map(|f| {
            (0..l.output as usize)
                .map(|o| {
                    let mut sum = f64::from(b.get(o));
                    for c in 0..ci {
                        for j in 0..k {
                            let channel = o / co * ci + c;
                            sum += padded[f * s + j * d][channel] * f64::from(w.get((o * ci + c) * k + j));
                        }
                    }
                    sum
                })
                .collect()
        })
        .collect()
}

fn transpose_reference(l: &ConvTranspose, t: &dyn Tensors, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (w, b) = (t.tensor(&format!("{}.weight", l.name)).unwrap(), t.tensor(&format!("{}.bias", l.name)).unwrap());
    let (k, s, groups) = (l.kernel as usize, l.stride as usize, l.groups as usize);
    let (gi, go) = (l.input as usize / groups, l.output as usize / groups);
    if x.is_empty() {
        return Vec::new();
    }
    let full = ((x.len() - 1) * s + k) as i64 - i64::from(l.trim_right.min(0));
    let bias: Vec<f64> = (0..l.output as usize).map(|o| f64::from(b.get(o))).collect();
    let mut y = vec![bias; full as usize];
    for (i, row) in x.iter().enumerate() {
        for (c, v) in row.iter().enumerate() {
            for o in 0..go {
                for j in 0..k {
                    y[i * s + j][c / gi * go + o] += v * f64::from(w.get((c * go + o) * k + j));
                }
            }
        }
    }
    y[l.trim_left as usize..(full - i64::from(l.trim_right.max(0))) as usize].to_vec()
}

fn padding() -> impl Strategy<Value = (PadMode, bool)> {
    (prop_oneof![Just(PadMode::Zero), Just(PadMode::Reflect), Just(PadMode::Replicate)], any::<bool>())
}

/// A residual body or branch that keeps the number of rows.
fn keeping(name: &str, channels: u32, k: u32, d: u32, left: u32, mode: PadMode) -> Conv {
    let span = (k - 1) * d;
    let left = left.min(span);
    conv(name, channels, channels, k, 1, d, Padding { mode, left, right: span - left, complete: false })
}

fn elu() -> Layer {
    Layer::Activation(Activation::Elu { alpha: 1.0 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn conv_is_the_formula_at_any_chunking(
        (mode, complete) in padding(), k in 1u32..8, s in 1u32..5, d in 1u32..4, left in 0u32..9, right in 0u32..9,
        shape in 0usize..3, n in 0usize..60, pieces in prop::collection::vec(1usize..12, 1..8), seed in any::<u64>(),
    ) {
        let (input, output, groups) = [(3, 5, 1), (4, 6, 2), (4, 4, 4)][shape];
        let l = Conv { groups, ..conv("c", input, output, k, s, d, Padding { mode, left, right, complete }) };
        let layers = [Layer::Conv(l.clone())];
        let tensors = MapTensors::random(&layer_tensors(&layers, input), seed);
        let chain = Chain::new(&layers, input as usize, &tensors).unwrap();
        let x = noise(n * input as usize, seed);
        let whole = run(&chain, &x, &[n.max(1)]);
        if n > 0 {
            close(&whole, &conv_reference(&l, &tensors, &rows(&x, input as usize)));
        }
        let parts = run(&chain, &x, &pieces);
        prop_assert_eq!(whole.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), parts.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }

    #[test]
    fn conv_transpose_is_the_formula_at_any_chunking(
        s in 1u32..6, more in 0u32..9, cut in 0u32..9, left in 0u32..9, output_padding in 0i32..3, shape in 0usize..3,
        n in 0usize..40, pieces in prop::collection::vec(1usize..12, 1..8), seed in any::<u64>(),
    ) {
        let (input, output, groups) = [(3, 5, 1), (4, 6, 2), (4, 4, 4)][shape];
        let k = s + more;
        let right = (cut % (more + 1)) as i32;
        let trim_right = if right == 0 { -output_padding } else { right };
        let trim_left = left.min(k - 1).min((k as i32 - trim_right.max(0) - 1).max(0) as u32);
        let l = ConvTranspose {
            name: "t".into(), input, output, kernel: k, stride: s, groups, bias: true, trim_left, trim_right, blocks: None,
        };
        let layers = [Layer::ConvTranspose(l.clone())];
        let tensors = MapTensors::random(&layer_tensors(&layers, input), seed);
        let chain = Chain::new(&layers, input as usize, &tensors).unwrap();
        let x = noise(n * input as usize, seed);
        let whole = run(&chain, &x, &[n.max(1)]);
        close(&whole, &transpose_reference(&l, &tensors, &rows(&x, input as usize)));
        prop_assert_eq!(whole, run(&chain, &x, &pieces));
    }

    #[test]
    fn blocks_equal_the_plain_layer(
        s in 1u32..6, more in 0u32..9, block in 1u32..5, shape in 0usize..2, n in 1usize..12, pieces in prop::collection::vec(1usize..12, 1..8),
        seed in any::<u64>(),
    ) {
        let (input, output, groups) = [(3, 5, 1), (4, 6, 2)][shape];
        let l = ConvTranspose {
            name: "t".into(), input, output, kernel: s + more, stride: s, groups, bias: true, trim_left: 0,
            trim_right: more as i32, blocks: Some(Blocks { rows: block, int8: None }),
        };
        let layers = [Layer::ConvTranspose(l.clone())];
        let tensors = MapTensors::random(&layer_tensors(&layers, input), seed);
        let chain = Chain::new(&layers, input as usize, &tensors).unwrap();
        let x = noise(n * input as usize, seed);
        let whole = run(&chain, &x, &[n]);
        close(&whole, &transpose_reference(&l, &tensors, &rows(&x, input as usize)));
        prop_assert_eq!(whole, run(&chain, &x, &pieces));
    }

    #[test]
    fn a_deep_chain_streams_exactly(
        (mode, complete) in padding(), k in 1u32..5, s in 1u32..4, lefts in prop::array::uniform4(0u32..9), depthwise in any::<bool>(),
        shortcut in any::<bool>(), trims in 0u32..4, n in 0usize..70, pieces in prop::collection::vec(1usize..9, 1..8), seed in any::<u64>(),
    ) {
        let same = Padding { mode: PadMode::Zero, left: 0, right: 0, complete: false };
        let one = |name: &str| Layer::Conv(conv(name, 6, 6, 1, 1, 1, same));
        let groups = if depthwise { 6 } else { 2 };
        let body = vec![
            elu(),
            Layer::Conv(Conv { groups, ..keeping("r.a", 6, 3, 2, lefts[0], mode) }),
            Layer::Activation(Activation::Snake { name: "r.s".into() }),
            Layer::Conv(keeping("r.b", 6, 2, 1, lefts[1], mode)),
        ];
        let inner = Layer::Residual(Residual { body: vec![elu(), Layer::Conv(keeping("p.a", 6, 4, 1, lefts[2], mode))], shortcut: vec![], int8: None });
        let layers = vec![
            Layer::PadEnd { multiple: 3 },
            Layer::Conv(conv("in", 1, 6, k + s, s, 1, Padding { mode, left: k, right: 0, complete })),
            Layer::Residual(Residual { body, shortcut: if shortcut { vec![one("r.c")] } else { vec![] }, int8: None }),
            Layer::Lstm(Lstm { name: "l".into(), input: 6, hidden: 6, layers: 2, bidirectional: false, skip: true }),
            Layer::Parallel(Parallel {
                branches: vec![
                    Branch { body: vec![inner], then: vec![elu()] },
                    Branch { body: vec![Layer::Conv(keeping("p.b", 6, 3, 3, lefts[3], mode))], then: vec![] },
                    Branch { body: vec![], then: vec![] },
                ],
                divisor: 3.0,
            }),
            Layer::Activation(Activation::LeakyRelu { slope: 0.1 }),
            Layer::ConvTranspose(ConvTranspose {
                name: "up".into(), input: 6, output: 4, kernel: 2 * s + 1, stride: s, groups: 1, bias: true, trim_left: trims.min(s),
                trim_right: trims.min(s + 1) as i32, blocks: None,
            }),
            Layer::Trim { left: trims, right: lefts[0] },
            Layer::Activation(Activation::Snake { name: "s".into() }),
            Layer::Conv(conv("out", 4, 1, 7, 1, 1, Padding { mode, left: lefts[1].min(6), right: 6 - lefts[1].min(6), complete: false })),
            Layer::Activation(Activation::Tanh),
        ];
        let tensors = MapTensors::random(&layer_tensors(&layers, 1), seed);
        let chain = Chain::new(&layers, 1, &tensors).unwrap();
        let x = noise(n, seed);
        let whole = run(&chain, &x, &[n.max(1)]);
        prop_assert!(whole.iter().all(|v| v.is_finite()));
        prop_assert_eq!(whole, run(&chain, &x, &pieces));
    }
}
