//! Chains whose weights are held in other precisions than f32.

#[path = "support/signal.rs"]
mod signal;
#[path = "support/tensors.rs"]
mod tensors;

use codec_core::{
    BuildError,
    pipeline::Chain,
    spec::{
        Activation, Attention, AttentionBias, Conv, ConvTranspose, Layer, Linear, Lstm, PadMode, Padding, Pairing,
        Residual, Rotary, Span, layer_tensors,
    },
    weights::{Dtype, Precision, TensorView, Tensors, f16_to_f32, f32_to_f16},
};
use signal::{noise, run};
use tensors::MapTensors;

/// Tensors of two and more dimensions in f16.
struct Halves(MapTensors);

impl Tensors for Halves {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (shape, bytes) = self.0.0.get(name)?;
        let dtype = if shape.len() > 1 { Dtype::F16 } else { Dtype::F32 };
        Some(TensorView { dtype, shape, bytes })
    }
}

/// The same tensors, rounded to f16: as f32, and as f16.
fn rounded(tensors: &MapTensors) -> (MapTensors, Halves) {
    let (mut singles, mut halves) = (MapTensors::default(), MapTensors::default());
    for (name, (shape, bytes)) in &tensors.0 {
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        if shape.len() < 2 {
            singles.insert(name, shape, &values);
            halves.insert(name, shape, &values);
            continue;
        }
        let bits: Vec<u16> = values.iter().map(|v| f32_to_f16(*v)).collect();
        singles.insert(name, shape, &bits.iter().map(|h| f16_to_f32(*h)).collect::<Vec<f32>>());
        halves.0.insert(name.clone(), (shape.clone(), bits.iter().flat_map(|h| h.to_le_bytes()).collect()));
    }
    (singles, Halves(halves))
}

fn conv(name: &str, input: u32, output: u32, kernel: u32, groups: u32) -> Layer {
    let padding = Padding { mode: PadMode::Zero, left: kernel - 1, right: 0, complete: false };
    let name = name.into();
    Layer::Conv(Conv { name, input, output, kernel, stride: 1, dilation: 1, groups, bias: true, padding, int8: None })
}

/// Every layer that packs weights, without those that fold something into f32 weights.
fn convolutional() -> Vec<Layer> {
    let body = vec![Layer::Activation(Activation::Elu { alpha: 1.0 }), conv("r", 37, 37, 3, 1)];
    vec![
        conv("a", 3, 40, 5, 1),
        conv("g", 40, 36, 3, 4),
        conv("d", 36, 36, 5, 36),
        Layer::Lstm(Lstm { name: "l".into(), input: 36, hidden: 37, layers: 2, bidirectional: false, skip: false }),
        Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None }),
        Layer::ConvTranspose(ConvTranspose {
            name: "t".into(),
            input: 37,
            output: 21,
            kernel: 7,
            stride: 3,
            groups: 1,
            bias: true,
            trim_left: 0,
            trim_right: 4,
            blocks: None,
        }),
        Layer::Linear(Linear { name: "n".into(), input: 21, output: 2, bias: true }),
    ]
}

/// As Mimi's: rotation, and scaled branches.
fn transformer() -> Vec<Layer> {
    let attention = Layer::Attention(Attention {
        name: "s".into(),
        channels: 48,
        heads: 3,
        head_dim: 16,
        bias: AttentionBias::default(),
        rotary: Some(Rotary { theta: 10_000.0, pairing: Pairing::Interleaved }),
        span: Span::Causal { window: Some(20) },
        memory: None,
    });
    let scaled = |name: &str, layer| {
        let body = vec![layer, Layer::Scale { name: name.into(), channels: 48 }];
        Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None })
    };
    let linear = Layer::Linear(Linear { name: "m".into(), input: 48, output: 48, bias: true });
    vec![conv("a", 3, 48, 2, 1), scaled("one", attention), scaled("two", linear)]
}

fn chain(layers: &[Layer], tensors: &dyn Tensors, precision: Precision) -> Chain {
    Chain::with_precision(layers, 3, tensors, precision).unwrap()
}

/// Decibels of `reference` over what `x` differs from it by.
fn snr(reference: &[f32], x: &[f32]) -> f64 {
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let signal = energy(&mut reference.iter().map(|v| f64::from(*v)));
    let difference = energy(&mut reference.iter().zip(x).map(|(a, b)| f64::from(a - b)));
    10.0 * (signal / difference).log10()
}

/// Weights that are stored as f16 give the same bits as the same weights in f32, held in f16 or in f32, at any chunking.
#[test]
fn stored_halves_change_no_bit() {
    let layers = convolutional();
    let (singles, halves) = rounded(&MapTensors::random(&layer_tensors(&layers, 3), 7));
    let x = noise(3 * 90, 5);
    let expected = run(&chain(&layers, &singles, Precision::F32), &x, &[90]);
    assert!(expected.iter().map(|v| v.abs()).fold(0.0, f32::max) > 0.1);
    for (tensors, precision) in
        [(&halves as &dyn Tensors, Precision::F32), (&halves, Precision::F16), (&singles, Precision::F16)]
    {
        let chain = chain(&layers, tensors, precision);
        for pieces in [&[90][..], &[1], &[7, 2, 31]] {
            assert_eq!(run(&chain, &x, pieces), expected, "{precision:?} in pieces of {pieces:?}");
        }
    }
}

/// What f32 weights have folded into them is applied apart: equal but for rounding, and at any chunking to the bit.
#[test]
fn factors_are_not_folded_into_halves() {
    let layers = transformer();
    let (singles, halves) = rounded(&MapTensors::random(&layer_tensors(&layers, 3), 11));
    let x = noise(3 * 60, 6);
    let folded = run(&chain(&layers, &singles, Precision::F32), &x, &[60]);
    let half = chain(&layers, &halves, Precision::F32);
    let apart = run(&half, &x, &[60]);
    assert_eq!(apart, run(&half, &x, &[1]));
    assert_eq!(apart, run(&chain(&layers, &singles, Precision::F16), &x, &[13, 5]));
    let snr = snr(&folded, &apart);
    println!("{snr:.1} dB");
    assert!(snr > 110.0, "{snr}");
}

/// Rounded weights come as near as eleven bits do, or seven.
#[test]
fn rounding_costs_little() {
    for layers in [convolutional(), transformer()] {
        let tensors = MapTensors::random(&layer_tensors(&layers, 3), 19);
        let x = noise(3 * 200, 8);
        let single = run(&chain(&layers, &tensors, Precision::F32), &x, &[200]);
        for (precision, expected) in [(Precision::F16, 60.0..100.0), (Precision::I8, 30.0..60.0)] {
            let snr = snr(&single, &run(&chain(&layers, &tensors, precision), &x, &[200]));
            println!("{precision:?}: {snr:.1} dB");
            assert!(expected.contains(&snr), "{precision:?}: {snr}");
        }
    }
}

/// An output row's scale is its own, so that int8 gives the same bits at any chunking.
#[test]
fn int8_is_the_same_at_any_chunking() {
    for layers in [convolutional(), transformer()] {
        let tensors = MapTensors::random(&layer_tensors(&layers, 3), 23);
        let x = noise(3 * 90, 5);
        let chain = chain(&layers, &tensors, Precision::I8);
        let expected = run(&chain, &x, &[90]);
        for pieces in [&[1][..], &[7, 2, 31]] {
            assert_eq!(run(&chain, &x, pieces), expected, "in pieces of {pieces:?}");
        }
    }
}

#[test]
fn weights_past_the_precision_are_named() {
    let layers = [conv("big", 3, 4, 1, 1)];
    let mut tensors = MapTensors::random(&layer_tensors(&layers, 3), 1);
    for (value, fits) in [(65504.0, true), (-65504.1, false), (f32::INFINITY, false), (7e4, false)] {
        let mut values = vec![0.5; 12];
        values[7] = value;
        tensors.insert("big.weight", &[4, 3, 1], &values);
        match Chain::with_precision(&layers, 3, &tensors, Precision::F16) {
            Ok(_) => assert!(fits, "{value}"),
            Err(BuildError::WeightRange { name, value: found, .. }) => {
                assert!(!fits && name == "big.weight" && found == value, "{value}: {name}, {found}");
            }
            Err(error) => panic!("{error}"),
        }
        assert!(Chain::new(&layers, 3, &tensors).is_ok());
        assert_eq!(Chain::with_precision(&layers, 3, &tensors, Precision::I8).is_ok(), value.is_finite());
    }
}
