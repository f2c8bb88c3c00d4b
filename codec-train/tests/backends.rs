//! Other backends against burn's own on the processor: a small network, forward and backward.
#![cfg(any(feature = "ndarray", feature = "wgpu"))]

#[cfg(feature = "wgpu")]
mod bench;

use std::collections::BTreeMap;

#[cfg(feature = "wgpu")]
use burn::tensor::FloatDType;
use burn::tensor::{Device, Tensor, TensorData};
use codec_core::spec::{Layer, layer_tensors};
use codec_train::{Store, Tracking, device, net::Network};

const LAYERS: &str = r#"[
    {"type": "conv", "name": "a", "input": 2, "output": 8, "kernel": 7, "stride": 2, "bias": true,
     "padding": {"mode": "reflect", "left": 5, "right": 0, "complete": true}},
    {"type": "activation", "function": "elu", "alpha": 1.0},
    {"type": "residual", "body": [
      {"type": "conv", "name": "b", "input": 8, "output": 8, "kernel": 3, "dilation": 3, "groups": 2, "bias": false,
       "padding": {"mode": "zero", "left": 3, "right": 3}},
      {"type": "activation", "function": "snake", "name": "s"}]},
    {"type": "lstm", "name": "l", "input": 8, "hidden": 8, "layers": 1, "bidirectional": true, "skip": true},
    {"type": "linear", "name": "p", "input": 16, "output": 8, "bias": true},
    {"type": "layer-norm", "name": "n", "channels": 8, "epsilon": 1e-5, "affine": true},
    {"type": "residual", "body": [
      {"type": "attention", "name": "t", "channels": 8, "heads": 2, "head_dim": 4,
       "rotary": {"theta": 10.0, "pairing": "interleaved"}, "span": {"type": "causal", "window": 5}}]},
    {"type": "group-norm", "name": "g", "channels": 8, "groups": 2, "epsilon": 1e-5},
    {"type": "conv-transpose", "name": "d", "input": 8, "output": 2, "kernel": 4, "stride": 2, "bias": true,
     "trim_left": 1, "trim_right": 1},
    {"type": "activation", "function": "tanh"}
]"#;

fn noise(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 101 + 5) as f32 * 0.618).sin() * 0.6).collect()
}

/// The output, and the gradients of the input and of every tensor.
fn computed(device: &Device) -> BTreeMap<String, Vec<f32>> {
    let layers: Vec<Layer> = serde_json::from_str(LAYERS).unwrap();
    let mut store = Store::new(device);
    for (i, t) in layer_tensors(&layers, 2).into_iter().enumerate() {
        store.insert(&t.name, &t.shape, noise(i + 1, t.shape.iter().product()), true);
    }
    let vars = store.vars(Tracking::Gradients);
    let x = Tensor::<3>::from_data(TensorData::new(noise(0, 2 * 2 * 41), [2, 2, 41]), device);
    let x = x.autodiff().require_grad();
    let y = Network::new(&layers).unwrap().forward(&vars, x.clone()).unwrap();
    let weights = TensorData::new(noise(99, y.shape().num_elements()), y.dims());
    let loss = (y.clone() * Tensor::<3>::from_data(weights, device).autodiff()).sum();
    let mut gradients = loss.backward();
    let host = |t: Tensor<1>| t.inner().try_into_vec_as::<f32>().unwrap();
    let mut all = BTreeMap::from([("output".to_owned(), host(y.reshape([-1])))]);
    all.insert("input".to_owned(), x.grad_remove(&mut gradients).unwrap().try_into_vec_as::<f32>().unwrap());
    all.extend(vars.gradients(&mut gradients).0.into_iter().map(|(name, g)| (name, host(g))));
    all
}

fn equal(device: &Device) {
    let (expected, got) = (computed(&device::cpu()), computed(device));
    assert!(expected.len() > 20);
    assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        let largest = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
        assert_eq!(expected.len(), got[name].len(), "{name}");
        for (a, b) in expected.iter().zip(&got[name]) {
            assert!((a - b).abs() <= 1e-5 * largest, "{name}: {b} for {a}");
        }
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray() {
    equal(&device::open("ndarray").unwrap());
}

#[cfg(feature = "wgpu")]
#[test]
fn gpu() {
    equal(&device::open("gpu").unwrap());
}

/// Everything of a step on a graphics card, with a balancer and discriminators: single precision trains as on the processor, but for
/// rounding, and so does half precision where the adapter has it. A run goes on on the processor.
#[cfg(feature = "wgpu")]
#[test]
fn training() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let bench = bench::Bench::new();
    let gpu = device::open("gpu").unwrap();
    let recipe = |precision: &str| {
        let run = format!("steps = 8\ncheckpoint_every = 8\nprecision = \"{precision}\"");
        bench.recipe(|r| {
            let r = r
                .replace("accumulate = 2", "accumulate = 1")
                .replace("discriminator_start = 6", "discriminator_start = 2");
            r.replace("steps = 20", &run)
                .replace("\ncheckpoint_every = 10", "")
                .replace("validate_every = 10", "validate_every = 8")
        })
    };
    let losses = |device: &Device, name: &str, precision: &str| {
        let mut all = Vec::new();
        let mut trainer = bench.open_on(device, &recipe(precision), name).unwrap();
        trainer.run(&AtomicBool::new(false), |report, _| all.push(report.losses.clone())).unwrap();
        all
    };
    let expected = losses(&device::cpu(), "cpu", "f32");
    assert!(expected[7].contains_key("features"));
    let near = |got: &[BTreeMap<String, f64>], from: usize, names: &[&str], tolerance: f64| {
        for (step, (got, expected)) in got.iter().zip(&expected[from..]).enumerate() {
            for (name, expected) in expected.iter().filter(|(name, _)| names.contains(&name.as_str())) {
                let off = (got[name] - expected).abs() / expected.abs().max(1e-3);
                assert!(off <= tolerance, "step {step}, {name}: {} for {expected}", got[name]);
            }
        }
    };
    let output = ["mel", "stft", "waveform_l1", "features", "adversarial"];
    near(&losses(&gpu, "gpu", "f32"), 0, &[&output[..], &["commitment", "discriminators"]].concat(), 2e-4);
    for (precision, dtype) in [("f16", FloatDType::F16), ("bf16", FloatDType::BF16)] {
        if gpu.supports_dtype(dtype) {
            // The first step's losses; which steps are left out on the way to a scale that fits is the adapter's.
            let got = losses(&gpu, precision, precision);
            near(&got[..1], 0, &output, 0.02);
            assert!(got.len() == 8 && got.iter().flat_map(|l| l.values()).all(|v| v.is_finite()));
        } else {
            let error = bench.open_on(&gpu, &recipe(precision), precision).err().unwrap().to_string();
            assert!(error.contains("run.precision"), "{error}");
            eprintln!("{precision}: {error}");
        }
    }
    // Half of it there, and the rest on the processor from its checkpoint.
    let stop = AtomicBool::new(false);
    let mut first = bench.open_on(&gpu, &recipe("f32"), "parts").unwrap();
    first.run(&stop, |report, _| stop.store(report.step == 3, Ordering::Relaxed)).unwrap();
    drop(first);
    let rest = losses(&device::cpu(), "parts", "f32");
    assert_eq!(rest.len(), 4);
    near(&rest, 4, &output, 2e-4);
}
