//! Stages of signals, computed in batches.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use super::stage::{Kind, Reach, Stage};
use crate::{TrainError, Vars, device::Opened, host};

/// What is computed at once, in values of the widest activation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Of a piece, about.
    pub piece: usize,
    /// Of a batch of pieces, at most, where a single one is not more.
    pub batch: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { piece: 2 << 20, batch: 16 << 20 }
    }
}

/// A signal between two stages.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are as many as files, and a tensor is a handle of that size")]
pub(super) enum Signal {
    /// Interleaved.
    Host { values: Vec<f32>, channels: usize },
    /// `[1, channels, rows]`.
    Device(Tensor<3>),
}

impl Signal {
    fn rows(&self) -> usize {
        match self {
            Self::Host { values, channels } => values.len() / (*channels).max(1),
            Self::Device(x) => x.dims()[2],
        }
    }

    /// Some rows, on the device.
    fn part(&self, from: usize, to: usize, device: &Device) -> Tensor<3> {
        match self {
            Self::Host { values, channels } => {
                let values = values[from * channels..to * channels].to_vec();
                Tensor::<3>::from_data(TensorData::new(values, [1, to - from, *channels]), device).swap_dims(1, 2)
            }
            Self::Device(x) => x.clone().slice_dim(2, from..to),
        }
    }

    /// All of it, on the device.
    pub fn on(self, device: &Device) -> Tensor<3> {
        match self {
            Self::Device(x) => x,
            signal => signal.part(0, signal.rows(), device),
        }
    }

    /// All of it, interleaved.
    pub fn into_host(self) -> Vec<f32> {
        match self {
            Self::Host { values, .. } => values,
            Self::Device(x) => host(x.swap_dims(1, 2)),
        }
    }
}

/// What the stages make of signals, at the end on the host if `to_host`; `None` for one that is too short for a layer.
pub(super) fn run(
    stages: &[Stage],
    vars: &Vars,
    signals: Vec<Signal>,
    opened: &Opened,
    budget: Budget,
    to_host: bool,
) -> Result<Vec<Option<Signal>>, TrainError> {
    let mut signals: Vec<Option<Signal>> =
        signals.into_iter().map(|signal| Some(signal).filter(|s| s.rows() > 0)).collect();
    for (i, stage) in stages.iter().enumerate() {
        let to_host = to_host && i + 1 == stages.len();
        let there: Vec<(usize, Signal)> =
            signals.iter_mut().enumerate().filter_map(|(i, s)| Some((i, s.take()?))).collect();
        let (places, inputs): (Vec<_>, Vec<_>) = there.into_iter().unzip();
        let outputs = match stage.kind {
            Kind::Local(reach) => local(stage, reach, vars, &inputs, opened, (budget, to_host))?,
            Kind::Whole { causal } => whole(stage, causal, vars, &inputs, opened, budget.batch)?,
        };
        places.into_iter().zip(outputs).for_each(|(place, output)| signals[place] = output);
    }
    Ok(signals)
}

/// What is computed of one signal at once, and which part of the result counts.
struct Piece {
    signal: usize,
    /// Rows of the input.
    from: usize,
    to: usize,
    /// Rows of the output, to the end if `None`.
    skip: usize,
    keep: Option<usize>,
}

/// Cuts a signal of `rows` rows into pieces of `units` units and a last one of up to twice that.
fn pieces(signal: usize, rows: usize, units: usize, r: Reach) -> Vec<Piece> {
    let all = rows.div_ceil(r.rows_in);
    let count = (all / units.max(1)).max(1);
    let piece = |i: usize| {
        let (start, end) = (i * units, if i + 1 == count { all } else { (i + 1) * units });
        let from = start.saturating_sub(r.left);
        let last = i + 1 == count;
        Piece {
            signal,
            from: from * r.rows_in,
            to: if last { rows } else { rows.min((end + r.right) * r.rows_in) },
            skip: (start - from) * r.rows_out,
            keep: (!last).then_some((end - start) * r.rows_out),
        }
    };
    (0..count).map(piece).collect()
}

fn local(
    stage: &Stage,
    reach: Reach,
    vars: &Vars,
    signals: &[Signal],
    opened: &Opened,
    (budget, to_host): (Budget, bool),
) -> Result<Vec<Option<Signal>>, TrainError> {
    // No more than half of what is computed may be there for its neighbours' sake.
    let units = (budget.piece / stage.widest.max(1)).max(2 * (reach.left + reach.right)).max(1);
    let pieces: Vec<Piece> = signals.iter().enumerate().flat_map(|(i, s)| pieces(i, s.rows(), units, reach)).collect();
    // Pieces of the same length are computed together, whichever signals they are of.
    let mut by_rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, piece) in pieces.iter().enumerate() {
        by_rows.entry(piece.to - piece.from).or_default().push(i);
    }
    let mut outputs: Vec<Option<Signal>> = pieces.iter().map(|_| None).collect();
    for (rows, group) in by_rows {
        let values = rows.div_ceil(reach.rows_in).saturating_mul(stage.widest);
        for batch in group.chunks((budget.batch / values.max(1)).max(1)) {
            let parts = batch.iter().map(|i| {
                let Piece { signal, from, to, .. } = pieces[*i];
                signals[signal].part(from, to, &opened.device)
            });
            let Some(y) = forward(stage, vars, Tensor::cat(parts.collect(), 0))? else { continue };
            for (j, i) in batch.iter().enumerate() {
                let Piece { skip, keep, .. } = pieces[*i];
                let end = keep.map_or(y.dims()[2], |keep| skip + keep);
                let y = y.clone().slice_dim(0, j..j + 1).slice_dim(2, skip..end);
                let channels = y.dims()[1];
                outputs[*i] = Some(match Signal::Device(y) {
                    y if to_host => Signal::Host { values: y.into_host(), channels },
                    y => y,
                });
            }
        }
    }
    let mut parts: Vec<Option<Vec<Signal>>> = signals.iter().map(|_| Some(Vec::new())).collect();
    for (piece, output) in pieces.iter().zip(outputs) {
        match (output, &mut parts[piece.signal]) {
            (Some(output), Some(list)) => list.push(output),
            (_, list) => *list = None,
        }
    }
    parts.into_iter().map(|parts| parts.map(|parts| joined(parts, opened)).transpose()).collect()
}

/// Parts of a signal, all of them on the device or all on the host, one after the other.
fn joined(parts: Vec<Signal>, opened: &Opened) -> Result<Signal, TrainError> {
    let rows = parts.iter().map(Signal::rows).sum::<usize>();
    let mut on_device = Vec::new();
    let mut on_host = Vec::new();
    let mut width = 0;
    for part in parts {
        match part {
            Signal::Device(x) => {
                width = x.dims()[1];
                on_device.push(x);
            }
            Signal::Host { values, channels } => {
                width = channels;
                on_host.extend(values);
            }
        }
    }
    if on_device.is_empty() {
        return Ok(Signal::Host { values: on_host, channels: width });
    }
    fits(rows, width, opened)?;
    Ok(Signal::Device(Tensor::cat(on_device, 2)))
}

/// Fails where a tensor of so many rows is larger than the device has.
fn fits(rows: usize, width: usize, opened: &Opened) -> Result<(), TrainError> {
    let most = opened.largest / 4 / width.max(1) as u64;
    if rows as u64 <= most { Ok(()) } else { Err(TrainError::TooLong { rows, most }) }
}

/// A layer that sees whole signals: those of one length together, and those of several if the end is no matter.
fn whole(
    stage: &Stage,
    causal: bool,
    vars: &Vars,
    signals: &[Signal],
    opened: &Opened,
    most: usize,
) -> Result<Vec<Option<Signal>>, TrainError> {
    let mut order: Vec<usize> = (0..signals.len()).collect();
    order.sort_by_key(|i| signals[*i].rows());
    let mut outputs: Vec<Option<Signal>> = signals.iter().map(|_| None).collect();
    let mut rest = &order[..];
    while let Some(first) = rest.first() {
        let together = |n: usize| {
            let rows = signals[rest[n]].rows();
            let values = rows.saturating_mul(stage.widest).saturating_mul(n + 1);
            n == 0 || ((causal || rows == signals[*first].rows()) && values <= most)
        };
        let count = (0..rest.len()).take_while(|n| together(*n)).count();
        let (batch, later) = rest.split_at(count);
        rest = later;
        let longest = signals[batch[count - 1]].rows();
        fits(longest, stage.widest, opened)?;
        let padded = batch.iter().map(|i| {
            let (rows, x) = (signals[*i].rows(), signals[*i].clone().on(&opened.device));
            match longest - rows {
                0 => x,
                more => Tensor::cat(vec![x.clone(), Tensor::zeros([1, x.dims()[1], more], &opened.device)], 2),
            }
        });
        let Some(y) = forward(stage, vars, Tensor::cat(padded.collect(), 0))? else { continue };
        for (j, i) in batch.iter().enumerate() {
            let rows = signals[*i].rows();
            let y = y.clone().slice_dim(0, j..j + 1);
            outputs[*i] = Some(Signal::Device(if rows < longest { y.slice_dim(2, 0..rows) } else { y }));
        }
    }
    Ok(outputs)
}

/// `None` if the signals are too short for a layer.
fn forward(stage: &Stage, vars: &Vars, x: Tensor<3>) -> Result<Option<Tensor<3>>, TrainError> {
    match stage.network.forward(vars, x) {
        Err(TrainError::TooShort { .. }) => Ok(None),
        y => y.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use codec_core::spec::{Layer, layer_tensors};

    use super::{super::stage, *};
    use crate::{Store, Tracking, device, net::Network};

    fn noise(seed: usize, n: usize) -> Vec<f32> {
        let mut random = crate::net::Random::new(seed as u64, "coder", 0);
        (0..n).map(|_| random.within(0.7) as f32).collect()
    }

    /// Signals of several lengths in small pieces, against the network on each alone and whole.
    fn pieces_are_the_whole(json: &str, channels: usize, stages: usize, lengths: &[usize]) {
        let layers: Vec<Layer> = serde_json::from_str(json).unwrap();
        let mut store = Store::new(&device::cpu());
        for (i, t) in layer_tensors(&layers, channels as u32).into_iter().enumerate() {
            store.insert(&t.name, &t.shape, noise(i + 1, t.shape.iter().product()), false);
        }
        let vars = store.vars(Tracking::None);
        let cut = stage::stages(&layers, channels).unwrap();
        assert_eq!(cut.len(), stages);
        let opened = device::find("flex").unwrap();
        let signals: Vec<Signal> =
            lengths.iter().map(|n| Signal::Host { values: noise(*n, n * channels), channels }).collect();
        let budget = Budget { piece: 1, batch: 400 };
        let got = run(&cut, &vars, signals.clone(), &opened, budget, false).unwrap();
        let network = Network::new(&layers).unwrap();
        for ((signal, got), n) in signals.into_iter().zip(got).zip(lengths) {
            let expected = network.forward(&vars, signal.on(&opened.device)).unwrap();
            let expected = host(expected.swap_dims(1, 2));
            let got = got.unwrap().into_host();
            assert_eq!(got.len(), expected.len(), "{n} rows");
            let largest = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
            for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() <= 1e-5 * largest, "{n} rows, value {i}: {a} for {b}");
            }
        }
    }

    const LENGTHS: &[usize] = &[30, 97, 98, 1000, 1001, 1007, 2000, 1000];

    #[test]
    fn down_and_up() {
        pieces_are_the_whole(
            r#"[{"type": "conv", "name": "a", "input": 2, "output": 4, "kernel": 7, "bias": true,
                 "padding": {"mode": "reflect", "left": 3, "right": 3}},
                {"type": "residual", "body": [{"type": "conv", "name": "r", "input": 4, "output": 4, "kernel": 3,
                 "dilation": 9, "bias": false, "padding": {"mode": "zero", "left": 9, "right": 9}}]},
                {"type": "conv", "name": "b", "input": 4, "output": 3, "kernel": 8, "stride": 5, "bias": true,
                 "padding": {"mode": "reflect", "left": 3, "right": 0, "complete": true}},
                {"type": "conv", "name": "c", "input": 3, "output": 3, "kernel": 4, "stride": 2, "bias": true,
                 "padding": {"mode": "replicate", "left": 2, "right": 0, "complete": true}},
                {"type": "conv-transpose", "name": "d", "input": 3, "output": 2, "kernel": 8, "stride": 4, "bias": true,
                 "trim_left": 2, "trim_right": 2},
                {"type": "conv-transpose", "name": "e", "input": 2, "output": 2, "kernel": 7, "stride": 3, "bias": true,
                 "trim_left": 0, "trim_right": 4},
                {"type": "activation", "function": "tanh"}]"#,
            2,
            1,
            LENGTHS,
        );
    }

    #[test]
    fn spectra_of_pieces_are_the_wholes() {
        pieces_are_the_whole(
            r#"[{"type": "stft", "n_fft": 20, "hop": 6, "floor": 0.1, "power": 0.3},
                {"type": "linear", "name": "a", "input": 33, "output": 22, "bias": true},
                {"type": "istft", "n_fft": 20, "hop": 6}]"#,
            1,
            1,
            LENGTHS,
        );
    }

    #[test]
    fn layers_that_see_everything_lie_between() {
        pieces_are_the_whole(
            r#"[{"type": "pad-end", "multiple": 6},
                {"type": "conv", "name": "a", "input": 1, "output": 4, "kernel": 6, "stride": 3, "bias": true,
                 "padding": {"mode": "zero", "left": 2, "right": 1}},
                {"type": "lstm", "name": "l", "input": 4, "hidden": 4, "layers": 2, "bidirectional": false, "skip": true},
                {"type": "conv", "name": "b", "input": 4, "output": 4, "kernel": 4, "stride": 2, "bias": true,
                 "padding": {"mode": "zero", "left": 2, "right": 0}},
                {"type": "residual", "body": [{"type": "attention", "name": "t", "channels": 4, "heads": 2, "head_dim": 2,
                 "rotary": {"theta": 10.0, "pairing": "halves"}, "span": {"type": "causal", "window": 20}}]},
                {"type": "group-norm", "name": "g", "channels": 4, "groups": 2, "epsilon": 1e-5},
                {"type": "linear", "name": "h", "input": 4, "output": 22, "bias": true},
                {"type": "istft", "n_fft": 20, "hop": 6}]"#,
            1,
            6,
            LENGTHS,
        );
    }

    #[test]
    fn a_signal_that_is_too_short_is_left_out() {
        let layers: Vec<Layer> = serde_json::from_str(
            r#"[{"type": "conv", "name": "a", "input": 1, "output": 1, "kernel": 9, "bias": false,
                 "padding": {"mode": "zero", "left": 0, "right": 0}}]"#,
        )
        .unwrap();
        let mut store = Store::new(&device::cpu());
        store.insert("a.weight", &[1, 1, 9], noise(1, 9), false);
        let signals = [0, 8, 9, 40].map(|n| Signal::Host { values: noise(n, n), channels: 1 });
        let opened = device::find("flex").unwrap();
        let stages = stage::stages(&layers, 1).unwrap();
        let got =
            run(&stages, &store.vars(Tracking::None), signals.to_vec(), &opened, Budget::default(), true).unwrap();
        let rows: Vec<_> = got.iter().map(|s| s.as_ref().map(Signal::rows)).collect();
        assert_eq!(rows, [None, None, Some(1), Some(32)]);
    }

    #[test]
    fn a_signal_that_no_tensor_holds_is_an_error() {
        let layers: Vec<Layer> = serde_json::from_str(
            r#"[{"type": "lstm", "name": "l", "input": 1, "hidden": 1, "layers": 1, "bidirectional": false, "skip": false}]"#,
        )
        .unwrap();
        let opened = device::Opened { largest: 100, ..device::find("flex").unwrap() };
        let signal = Signal::Host { values: noise(1, 200), channels: 1 };
        let stages = stage::stages(&layers, 1).unwrap();
        let vars = Store::new(&device::cpu()).vars(Tracking::None);
        let error = run(&stages, &vars, vec![signal], &opened, Budget::default(), false).unwrap_err().to_string();
        assert!(error.contains("200 rows") && error.contains("25") && error.contains("cut the file"), "{error}");
    }
}
