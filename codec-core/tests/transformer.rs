//! Layers of transformers give what the plain formulas give, and the same bits at any chunking.

#[path = "support/signal.rs"]
mod signal;
#[path = "support/tensors.rs"]
mod tensors;

use codec_core::{
    BuildError,
    kernel::{Compute, Isa, Pool},
    pipeline::Chain,
    spec::{
        Activation, Attention, AttentionBias, Conv, Fsmn, Layer, LayerNorm, Linear, PadMode, Padding, Pairing,
        Residual, Rotary, Span, layer_tensors,
    },
    weights::Tensors,
};
use proptest::prelude::*;
use signal::{close, cx, noise, rows, run};
use tensors::MapTensors;

fn values(t: &dyn Tensors, name: &str) -> Vec<f64> {
    let view = t.tensor(name).unwrap();
    (0..view.len()).map(|i| f64::from(view.get(i))).collect()
}

fn linear(t: &dyn Tensors, name: &str, bias: bool, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let w = values(t, &format!("{name}.weight"));
    let b = bias.then(|| values(t, &format!("{name}.bias")));
    let one = |row: &Vec<f64>| -> Vec<f64> {
        let dots = w.chunks(row.len()).map(|w| w.iter().zip(row).map(|(a, b)| a * b).sum::<f64>());
        dots.enumerate().map(|(o, dot)| dot + b.as_ref().map_or(0.0, |b| b[o])).collect()
    };
    x.iter().map(one).collect()
}

fn turned(x: &[Vec<f64>], l: &Attention, position: impl Fn(usize) -> usize) -> Vec<Vec<f64>> {
    let Some(rotary) = l.rotary else { return x.to_vec() };
    let dim = l.head_dim as usize;
    let turn = |t: usize, row: &Vec<f64>| -> Vec<f64> {
        let mut out = row.clone();
        for h in 0..l.heads as usize {
            for j in 0..dim / 2 {
                let angle = position(t) as f64 * f64::from(rotary.theta).powf(-2.0 * j as f64 / dim as f64);
                let (a, b) = match rotary.pairing {
                    Pairing::Halves => (h * dim + j, h * dim + j + dim / 2),
                    Pairing::Interleaved => (h * dim + 2 * j, h * dim + 2 * j + 1),
                };
                out[a] = row[a] * angle.cos() - row[b] * angle.sin();
                out[b] = row[b] * angle.cos() + row[a] * angle.sin();
            }
        }
        out
    };
    x.iter().enumerate().map(|(t, row)| turn(t, row)).collect()
}

/// The textbook form, in f64: every score, then the mask.
fn attention_reference(l: &Attention, t: &dyn Tensors, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (heads, dim) = (l.heads as usize, l.head_dim as usize);
    let position = |i: usize| if let Span::Blocks { length } = l.span { i % length as usize } else { i };
    let part = |part: &str, bias| linear(t, &format!("{}.{part}", l.name), bias, x);
    let q = turned(&part("q", l.bias.q), l, position);
    let k = turned(&part("k", l.bias.k), l, position);
    let v = part("v", l.bias.v);
    let seen = |i: usize, j: usize| match l.span {
        Span::Causal { window } => j <= i && window.is_none_or(|w| i - j < w as usize),
        Span::Blocks { length } => i / length as usize == j / length as usize,
        Span::Full => true,
    };
    let mut attended = vec![vec![0.0; heads * dim]; x.len()];
    for i in 0..x.len() {
        for h in 0..heads {
            let part = h * dim..(h + 1) * dim;
            let weights: Vec<f64> = (0..x.len())
                .map(|j| {
                    let dot: f64 = q[i][part.clone()].iter().zip(&k[j][part.clone()]).map(|(a, b)| a * b).sum();
                    if seen(i, j) { (dot / (dim as f64).sqrt()).exp() } else { 0.0 }
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for c in part {
                attended[i][c] = (0..x.len()).map(|j| weights[j] / total * v[j][c]).sum();
            }
        }
    }
    let mut out = linear(t, &format!("{}.out", l.name), l.bias.out, &attended);
    if let Some(m) = l.memory {
        let w = values(t, &format!("{}.memory.weight", l.name));
        for (i, row) in out.iter_mut().enumerate() {
            for (c, y) in row.iter_mut().enumerate() {
                let taps = (0..m.kernel as usize).filter_map(|tap| {
                    let j = (i + tap).checked_sub(m.left as usize).filter(|j| *j < x.len())?;
                    Some(w[c * m.kernel as usize + tap] * v[j][c])
                });
                *y += v[i][c] + taps.sum::<f64>();
            }
        }
    }
    out
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        (1u32..40).prop_map(|w| Span::Causal { window: Some(w) }),
        Just(Span::Causal { window: None }),
        (1u32..40).prop_map(|length| Span::Blocks { length }),
        Just(Span::Full),
    ]
}

fn attention(shape: usize, span: Span, rotary: Option<Pairing>, biases: [bool; 4], memory: bool) -> Attention {
    let (channels, heads, head_dim) = [(6, 3, 2), (8, 2, 4), (5, 1, 6), (20, 1, 20), (36, 2, 18)][shape];
    let [q, k, v, out] = biases;
    Attention {
        name: "a".into(),
        channels,
        heads,
        head_dim,
        bias: AttentionBias { q, k, v, out },
        rotary: rotary.map(|pairing| Rotary { theta: 100.0, pairing }),
        span,
        memory: (memory && heads * head_dim == channels).then_some(Fsmn { kernel: 5, left: 3, right: 1 }),
    }
}

/// Whether the signal must come in one step.
fn whole(layers: &[Layer], chain: &Chain) -> bool {
    let expected = layers
        .iter()
        .any(|l| matches!(l, Layer::Attention(Attention { span: Span::Full | Span::Causal { window: None }, .. })));
    assert_eq!(chain.plan().whole.is_some(), expected);
    expected
}

/// Two threads.
struct Threads;

impl Pool for Threads {
    fn threads(&self) -> usize {
        2
    }
    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(move || (0..count).step_by(2).for_each(task));
            (1..count).step_by(2).for_each(task);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn attention_is_the_formula_at_any_chunking(
        shape in 0usize..5, span in span(), rotary in prop_oneof![Just(None), Just(Some(Pairing::Halves)), Just(Some(Pairing::Interleaved))],
        biases in prop::array::uniform4(any::<bool>()), memory in any::<bool>(), n in 0usize..90,
        pieces in prop::collection::vec(1usize..40, 1..8), seed in any::<u64>(),
    ) {
        let l = attention(shape, span, rotary, biases, memory);
        let layers = [Layer::Attention(l.clone())];
        let tensors = MapTensors::random(&layer_tensors(&layers, l.channels), seed);
        let chain = Chain::new(&layers, l.channels as usize, &tensors).unwrap();
        let x = noise(n * l.channels as usize, seed);
        let once = run(&chain, &x, &[n.max(1)]);
        close(&once, &attention_reference(&l, &tensors, &rows(&x, l.channels as usize)));
        if !whole(&layers, &chain) {
            prop_assert_eq!(once, run(&chain, &x, &pieces));
        }
    }

    #[test]
    fn rowwise_layers_are_the_formula(
        channels in 1usize..70, table in any::<bool>(), affine in any::<bool>(), folded in any::<bool>(), n in 1usize..30,
        pieces in prop::collection::vec(1usize..12, 1..8), seed in any::<u64>(),
    ) {
        let (row, count) = if table && affine { (Some(2), Some(4)) } else { (None, None) };
        let c = channels as u32;
        let norm = LayerNorm { name: "n".into(), channels: c, epsilon: 1e-3, row, rows: count, affine };
        let mut layers = vec![
            Layer::LayerNorm(norm),
            Layer::Linear(Linear { name: "l".into(), input: c, output: 19, bias: true }),
            Layer::Scale { name: "s".into(), channels: 19 },
            Layer::Activation(Activation::Gelu),
            Layer::Linear(Linear { name: "m".into(), input: 19, output: 7, bias: false }),
            Layer::Activation(Activation::Silu),
        ];
        if !folded {
            // After an activation there is no layer to fold the factors into.
            layers.swap(2, 3);
        }
        let tensors = MapTensors::random(&layer_tensors(&layers, c), seed);
        let chain = Chain::new(&layers, channels, &tensors).unwrap();
        let x = noise(n * channels, seed);
        let once = run(&chain, &x, &[n]);
        prop_assert_eq!(&once, &run(&chain, &x, &pieces));
        let table = |part: &str, neutral: f64| -> Vec<f64> {
            if !affine {
                return vec![neutral; channels];
            }
            let all = values(&tensors, part);
            all[row.unwrap_or(0) as usize * channels..][..channels].to_vec()
        };
        let (weight, bias) = (table("n.weight", 1.0), table("n.bias", 0.0));
        let normal: Vec<Vec<f64>> = rows(&x, channels).iter().map(|row| {
            let mean = row.iter().sum::<f64>() / channels as f64;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / channels as f64;
            let one = |i: usize| (row[i] - mean) / (variance + f64::from(1e-3f32)).sqrt() * weight[i] + bias[i];
            (0..channels).map(one).collect()
        }).collect();
        let scale = values(&tensors, "s.scale");
        let gelu = |v: f64| v * 0.5 * (1.0 + libm::erf(v / 2f64.sqrt()));
        let mut hidden = linear(&tensors, "l", true, &normal);
        for row in &mut hidden {
            for (v, s) in row.iter_mut().zip(&scale) {
                *v = if folded { gelu(*v * s) } else { gelu(*v) * s };
            }
        }
        let mut out = linear(&tensors, "m", false, &hidden);
        out.iter_mut().flatten().for_each(|v| *v /= 1.0 + (-*v).exp());
        close(&once, &out);
    }

    #[test]
    fn a_transformer_streams_exactly(
        spans in prop::array::uniform2(span().prop_filter("streams", |s| !matches!(s, Span::Full | Span::Causal { window: None }))),
        left in 0u32..7, n in 0usize..120, pieces in prop::collection::vec(1usize..30, 1..8), seed in any::<u64>(),
    ) {
        let norm = |name: &str| Layer::LayerNorm(LayerNorm { name: name.into(), channels: 6, epsilon: 1e-5, row: None, rows: None, affine: true });
        let linear = |name: &str, input, output| Layer::Linear(Linear { name: name.into(), input, output, bias: true });
        let mut layers = Vec::new();
        for (i, span) in spans.into_iter().enumerate() {
            let name = |part: &str| format!("{i}.{part}");
            let a = Attention { name: name("a"), ..attention(0, span, Some(Pairing::Interleaved), [true; 4], i == 1) };
            let conv = Conv {
                name: name("c"), input: 6, output: 6, kernel: 7, stride: 1, dilation: 1, groups: 6, bias: true,
                padding: Padding { mode: PadMode::Replicate, left, right: 6 - left, complete: false }, int8: None,
            };
            let residual = |body| Layer::Residual(Residual { body, shortcut: vec![], int8: None });
            layers.extend([
                residual(vec![norm(&name("n1")), Layer::Attention(a), Layer::Scale { name: name("s1"), channels: 6 }]),
                residual(vec![
                    Layer::Conv(conv), norm(&name("n2")), linear(&name("l1"), 6, 24), Layer::Activation(Activation::Gelu),
                    linear(&name("l2"), 24, 6), Layer::Scale { name: name("s2"), channels: 6 },
                ]),
            ]);
        }
        let tensors = MapTensors::random(&layer_tensors(&layers, 6), seed);
        let chain = Chain::new(&layers, 6, &tensors).unwrap();
        let x = noise(n * 6, seed);
        let once = run(&chain, &x, &[n.max(1)]);
        prop_assert_eq!(once.len(), x.len());
        prop_assert!(once.iter().all(|v| v.is_finite()));
        prop_assert_eq!(&once, &run(&chain, &x, &pieces));
        // The same bits on every instruction set and with threads, also after another signal and a reset.
        for isa in Isa::all_available() {
            let mut state = chain.state(n.max(1));
            for pool in [None, Some(&Threads as &dyn Pool)] {
                let cx = Compute { isa, pool };
                state.reset();
                let part = x.len() / 12 * 6;
                chain.step(cx, &mut state, &x[part..], false).unwrap();
                state.reset();
                prop_assert_eq!(&once, chain.step(cx, &mut state, &x, true).unwrap());
            }
        }
    }
}

/// Two hours at 25 rows a second, one row at a time: the state and the scratch memory are those of the first row, and
/// the last rows are what a signal of these rows and the window before them gives, to rounding.
#[test]
fn two_hours_need_no_more_memory_than_one_row() {
    const ROWS: usize = 2 * 3600 * 25;
    const TAIL: usize = 400;
    let l = Attention {
        name: "a".into(),
        ..attention(1, Span::Causal { window: Some(50) }, Some(Pairing::Halves), [true; 4], false)
    };
    let layers = [Layer::Attention(l)];
    let tensors = MapTensors::random(&layer_tensors(&layers, 8), 5);
    let chain = Chain::new(&layers, 8, &tensors).unwrap();
    let (kept, scratch) = chain.memory(1);
    assert!(kept < 16 << 10 && scratch < 16 << 10, "{kept} and {scratch} bytes");
    let tail = noise(TAIL * 8, 3);
    let mut state = chain.state(1);
    let mut last = Vec::new();
    for t in 0..ROWS {
        let own;
        let row = match t.checked_sub(ROWS - TAIL) {
            Some(i) => &tail[i * 8..][..8],
            None => {
                own = noise(8, t as u64);
                &own[..]
            }
        };
        let out = chain.step(cx(), &mut state, row, t + 1 == ROWS).unwrap();
        assert_eq!(out.len(), 8);
        if t >= ROWS - TAIL + 49 {
            last.extend_from_slice(out);
        }
    }
    let fresh = run(&chain, &tail, &[TAIL]);
    close(&last, &rows(&fresh[49 * 8..], 8));
}

/// What a spec can get wrong is an error that names the layer.
#[test]
fn impossible_layers_are_refused() {
    let fine = attention(1, Span::Full, Some(Pairing::Halves), [false; 4], false);
    let tensors = MapTensors::random(&layer_tensors(&[Layer::Attention(fine.clone())], 8), 1);
    let rotary = |theta| Some(Rotary { theta, pairing: Pairing::Halves });
    let build = |l: Attention| Chain::new(&[Layer::Attention(l)], 8, &tensors);
    assert!(build(fine.clone()).is_ok());
    for bad in [
        Attention { heads: 0, ..fine.clone() },
        Attention { head_dim: 0, ..fine.clone() },
        Attention { heads: u32::MAX, head_dim: u32::MAX, ..fine.clone() },
        Attention { channels: 7, ..fine.clone() },
        Attention { head_dim: 3, ..fine.clone() },
        Attention { rotary: rotary(f32::NAN), ..fine.clone() },
        Attention { rotary: rotary(0.5), ..fine.clone() },
        Attention { span: Span::Causal { window: Some(0) }, ..fine.clone() },
        Attention { span: Span::Causal { window: Some(u32::MAX) }, ..fine.clone() },
        Attention { span: Span::Blocks { length: 0 }, ..fine.clone() },
        Attention { memory: Some(Fsmn { kernel: 5, left: 3, right: 2 }), ..fine.clone() },
        Attention { memory: Some(Fsmn { kernel: 0, left: u32::MAX, right: 1 }), ..fine.clone() },
    ] {
        let error = build(bad.clone()).unwrap_err();
        assert!(matches!(&error, BuildError::Spec(text) if text.contains("`a`")), "{bad:?}: {error}");
    }
    let norm = LayerNorm { name: "n".into(), channels: 8, epsilon: 1e-5, row: Some(1), rows: Some(4), affine: true };
    for bad in [
        LayerNorm { row: Some(4), ..norm.clone() },
        LayerNorm { row: None, ..norm.clone() },
        LayerNorm { rows: None, ..norm.clone() },
        LayerNorm { affine: false, ..norm.clone() },
        LayerNorm { epsilon: f32::NAN, ..norm.clone() },
        LayerNorm { channels: 9, ..norm.clone() },
    ] {
        let error = Chain::new(&[Layer::LayerNorm(bad.clone())], 8, &tensors).unwrap_err();
        assert!(matches!(&error, BuildError::Spec(text) if text.contains("`n`")), "{bad:?}: {error}");
    }
    let missing = Chain::new(&[Layer::LayerNorm(norm)], 8, &tensors).unwrap_err();
    assert_eq!(missing, BuildError::MissingTensor("n.weight".into()));
}
