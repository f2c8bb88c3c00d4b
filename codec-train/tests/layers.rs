//! Layers that no golden case has, against the engine: small chains of random tensors. And their gradients against finite
//! differences.

use burn::tensor::{Tensor, TensorData};
use codec::model_file::{OwnedTensor, TensorMap};
use codec_core::{
    kernel::{Compute, Isa},
    pipeline::Chain,
    spec::{Layer, layer_tensors},
};
use codec_train::{Store, Tracking, Vars, device, net::Network};

fn noise(seed: u32, n: usize) -> Vec<f32> {
    let mut z = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = || {
        z = z.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (z >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

struct Chains {
    network: Network,
    store: Store,
    engine: Chain,
    input: usize,
}

fn chains(json: &str, input: usize) -> Chains {
    let layers: Vec<Layer> = serde_json::from_str(json).unwrap();
    let mut store = Store::new(&device::cpu());
    let mut map = TensorMap::default();
    for (i, t) in layer_tensors(&layers, input as u32).into_iter().enumerate() {
        let mut values = noise(i as u32 + 7, t.shape.iter().product());
        if t.name.ends_with(".alpha") {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        store.insert(&t.name, &t.shape, values.clone(), true);
        map.0.insert(t.name, OwnedTensor::f32(&t.shape, &values));
    }
    let engine = Chain::new(&layers, input, &map).unwrap();
    Chains { network: Network::new(&layers).unwrap(), store, engine, input }
}

fn tensor(values: &[f32], channels: usize) -> Tensor<3> {
    let data = TensorData::new(values.to_vec(), [1, values.len() / channels, channels]);
    Tensor::<3>::from_data(data, &device::cpu()).swap_dims(1, 2)
}

impl Chains {
    /// Equal to the engine within 1e-5 of the largest value.
    fn equal(&self, rows: usize) {
        let x = noise(3, rows * self.input);
        let mut state = self.engine.state(rows);
        let cx = Compute { isa: Isa::detect(), pool: None };
        let expected = self.engine.step(cx, &mut state, &x, true).unwrap().to_vec();
        let y = self.network.forward(&self.store.vars(Tracking::None), tensor(&x, self.input)).unwrap();
        let got: Vec<f32> = y.swap_dims(1, 2).try_into_vec_as::<f32>().unwrap();
        assert_eq!(got.len(), expected.len());
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 1e-5 * largest.max(1.0), "value {i}: {a} for {b}");
        }
    }

    /// `sum(coefficients * output)`.
    fn loss(&self, vars: &Vars, x: Tensor<3>) -> Tensor<1> {
        let y = self.network.forward(vars, x).unwrap();
        let shape = y.dims();
        let c = TensorData::new(noise(99, shape.iter().product()), shape);
        (Tensor::<3>::from_data(c, &y.device()) * y).sum()
    }

    /// Gradients of the input and of every tensor along random directions, against central differences.
    fn gradients(&self, rows: usize) {
        let x = tensor(&noise(5, rows * self.input), self.input);
        let vars = self.store.vars(Tracking::Gradients);
        let leaf = x.clone().autodiff().require_grad();
        let mut grads = self.loss(&vars, leaf.clone()).backward();
        let scalar = |t: Tensor<1>| f64::from(t.into_scalar::<f32>());
        let close = |what: &str, analytic: f64, numeric: f64| {
            let scale = analytic.abs().max(numeric.abs()).max(0.5);
            assert!((analytic - numeric).abs() < 1e-2 * scale, "{what}: {analytic}, by differences {numeric}");
        };
        let plain = |store: &Store, x: Tensor<3>| scalar(self.loss(&store.vars(Tracking::None), x));
        let eps = 1e-2_f32;
        let direction = tensor(&noise(11, rows * self.input), self.input);
        let analytic = scalar((leaf.grad(&grads).unwrap() * direction.clone()).sum());
        let step = direction.mul_scalar(eps);
        let numeric = plain(&self.store, x.clone() + step.clone()) - plain(&self.store, x.clone() - step);
        close("input", analytic, numeric / (2.0 * f64::from(eps)));
        let grads = vars.gradients(&mut grads);
        for (name, entry) in self.store.iter() {
            let n: usize = entry.shape.iter().product();
            let direction = Tensor::<1>::from_floats(noise(13, n).as_slice(), &device::cpu());
            let analytic = scalar((grads.0[name].clone() * direction.clone()).sum());
            let moved = |sign: f32| {
                let mut store = self.store.clone();
                store.set(name, entry.value.clone() + direction.clone().mul_scalar(sign * eps));
                plain(&store, x.clone())
            };
            close(name, analytic, (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(eps)));
        }
    }
}

const CONVOLUTIONS: &str = r#"[
    {"type": "conv", "name": "a", "input": 2, "output": 4, "kernel": 5, "stride": 2, "bias": true,
     "padding": {"mode": "reflect", "left": 3, "right": 1, "complete": true}},
    {"type": "activation", "function": "elu", "alpha": 1.0},
    {"type": "conv", "name": "b", "input": 4, "output": 4, "kernel": 3, "dilation": 3, "groups": 2, "bias": false,
     "padding": {"mode": "replicate", "left": 6, "right": 0}},
    {"type": "activation", "function": "snake", "name": "s"},
    {"type": "conv-transpose", "name": "c", "input": 4, "output": 2, "kernel": 5, "stride": 3, "groups": 2, "bias": true,
     "trim_left": 1, "trim_right": 1},
    {"type": "activation", "function": "leaky-relu", "slope": 0.2},
    {"type": "conv-transpose", "name": "d", "input": 2, "output": 3, "kernel": 4, "stride": 2, "bias": true,
     "trim_left": 1, "trim_right": -1},
    {"type": "activation", "function": "tanh"}
]"#;

const SUMS: &str = r#"[
    {"type": "pad-end", "multiple": 4},
    {"type": "residual",
     "body": [{"type": "conv", "name": "a", "input": 3, "output": 3, "kernel": 3, "bias": true, "padding": {"mode": "zero", "left": 2, "right": 0}},
              {"type": "activation", "function": "gelu"}],
     "shortcut": [{"type": "linear", "name": "s", "input": 3, "output": 3, "bias": true}]},
    {"type": "parallel", "divisor": 2.0, "branches": [
      {"body": [{"type": "scale", "name": "p", "channels": 3}], "then": [{"type": "activation", "function": "silu"}]},
      {"body": [{"type": "conv", "name": "q", "input": 3, "output": 3, "kernel": 3, "bias": false, "padding": {"mode": "zero", "left": 1, "right": 1}}]}]},
    {"type": "layer-norm", "name": "n", "channels": 3, "epsilon": 1e-5, "affine": true},
    {"type": "group-norm", "name": "g", "channels": 3, "groups": 1, "epsilon": 1e-5},
    {"type": "trim", "left": 1, "right": 2}
]"#;

const LSTMS: &str = r#"[
    {"type": "lstm", "name": "a", "input": 3, "hidden": 3, "layers": 2, "bidirectional": false, "skip": true},
    {"type": "lstm", "name": "b", "input": 3, "hidden": 3, "layers": 1, "bidirectional": true, "skip": true}
]"#;

const ISTFT: &str = r#"[
    {"type": "linear", "name": "a", "input": 2, "output": 22, "bias": true},
    {"type": "istft", "n_fft": 20, "hop": 6}
]"#;

const STFT: &str = r#"[
    {"type": "scale", "name": "s", "channels": 1},
    {"type": "stft", "n_fft": 20, "hop": 6, "floor": 0.1, "power": 0.3},
    {"type": "linear", "name": "a", "input": 33, "output": 3, "bias": true}
]"#;

/// Every span, pairing and memory.
const ATTENTION: &str = r#"[
    {"type": "linear", "name": "in", "input": 3, "output": 8, "bias": true},
    {"type": "residual", "body": [
      {"type": "attention", "name": "a", "channels": 8, "heads": 2, "head_dim": 4, "bias": {"q": true, "v": true, "out": true},
       "rotary": {"theta": 100.0, "pairing": "halves"}, "span": {"type": "causal", "window": 5}}]},
    {"type": "residual", "body": [
      {"type": "attention", "name": "b", "channels": 8, "heads": 1, "head_dim": 6,
       "rotary": {"theta": 10.0, "pairing": "interleaved"}, "span": {"type": "blocks", "length": 4}}]},
    {"type": "residual", "body": [
      {"type": "attention", "name": "c", "channels": 8, "heads": 4, "head_dim": 2, "bias": {"k": true},
       "span": {"type": "full"}, "memory": {"kernel": 3, "left": 1, "right": 1}}]},
    {"type": "residual", "body": [
      {"type": "attention", "name": "d", "channels": 8, "heads": 2, "head_dim": 4, "span": {"type": "causal"}}]}
]"#;

const LOG_MEL: &str = r#"[
    {"type": "log-mel", "sample_rate": 800, "n_fft": 40, "hop": 10, "mels": 6},
    {"type": "linear", "name": "a", "input": 6, "output": 2, "bias": true}
]"#;

#[test]
fn outputs_are_the_engines() {
    for (json, input, lengths) in [
        (CONVOLUTIONS, 2, [8, 17, 30].as_slice()),
        (SUMS, 3, &[4, 9, 13]),
        (LSTMS, 3, &[1, 12]),
        (ISTFT, 2, &[4, 11]),
        (STFT, 1, &[1, 6, 40, 57]),
        (ATTENTION, 3, &[1, 4, 7, 300]),
        (LOG_MEL, 1, &[40, 57, 400]),
    ] {
        let chains = chains(json, input);
        lengths.iter().for_each(|rows| chains.equal(*rows));
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for (json, input, rows) in [
        (CONVOLUTIONS, 2, 17),
        (SUMS, 3, 9),
        (LSTMS, 3, 6),
        (ISTFT, 2, 6),
        (STFT, 1, 40),
        (ATTENTION, 3, 9),
        (LOG_MEL, 1, 60),
    ] {
        chains(json, input).gradients(rows);
    }
}

/// A signal shorter than the padding is mirrored as the engine does it.
#[test]
fn short_signals() {
    let chains = chains(
        r#"[{"type": "conv", "name": "a", "input": 1, "output": 2, "kernel": 7, "bias": true,
             "padding": {"mode": "reflect", "left": 6, "right": 0}}]"#,
        1,
    );
    (1..9).for_each(|rows| chains.equal(rows));
}

/// Large values do not turn gradients into NaN (an exponential that overflows, times zero).
#[test]
fn elu_far_from_zero_has_a_gradient() {
    let chains = chains(r#"[{"type": "activation", "function": "elu", "alpha": 1.0}]"#, 1);
    let x = tensor(&[200.0, -200.0, 0.5], 1).autodiff().require_grad();
    let grads = chains.network.forward(&chains.store.vars(Tracking::Gradients), x.clone()).unwrap().sum().backward();
    let got: Vec<f32> = x.grad(&grads).unwrap().try_into_vec_as::<f32>().unwrap();
    assert_eq!(got, [1.0, 0.0, 1.0]);
}
