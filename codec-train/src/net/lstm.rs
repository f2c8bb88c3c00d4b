//! Long short-term memory.

use burn::tensor::{Tensor, activation::sigmoid};
use codec_core::spec::Lstm;

use crate::{TrainError, Vars, cpu, cpu::layers};

pub(super) fn forward(l: &Lstm, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let [mut y, x] = layers::forked(x);
    for layer in 0..l.layers {
        let [own, other] = layers::forked(y);
        let ahead = direction(l, vars, &format!("l{layer}"), own, false)?;
        y = if l.bidirectional {
            let back = direction(l, vars, &format!("l{layer}_reverse"), other, true)?;
            Tensor::cat(vec![ahead, back], 1)
        } else {
            ahead
        };
    }
    if !l.skip {
        return Ok(y);
    }
    let times = y.dims()[1] / x.dims()[1].max(1);
    Ok(super::added(y, if times > 1 { x.repeat_dim(1, times) } else { x }))
}

/// Rows whose gates are computed in one product: what that takes does not grow with the signal.
const ROWS: usize = 512;

/// One layer in one direction, `[batch, channels, rows]` to `[batch, hidden, rows]`.
fn direction(l: &Lstm, vars: &Vars, suffix: &str, x: Tensor<3>, reverse: bool) -> Result<Tensor<3>, TrainError> {
    let matrix = |part: &str| vars.get::<2>(&format!("{}.weight_{part}_{suffix}", l.name));
    let bias = |part: &str| vars.get::<1>(&format!("{}.bias_{part}_{suffix}", l.name));
    let [batch, channels, rows] = x.dims();
    let hidden = l.hidden as usize;
    let sources = || if reverse { (0..rows).rev().map(Some).collect() } else { (0..rows).map(Some).collect() };
    if let Some(turned) = cpu::conv::rows(&x, sources()) {
        let (weight, sum) = (matrix("ih")?.unsqueeze_dim::<3>(2), bias("ih")? + bias("hh")?);
        let gates = cpu::conv::conv1d(&turned, &weight, Some(&sum), 1, 1, 1);
        let recurrent = matrix("hh")?;
        let states = gates.and_then(|gates| cpu::lstm::recur(&gates, &recurrent));
        if let Some(states) = states.and_then(|states| cpu::conv::rows(&states, sources())) {
            return Ok(states);
        }
    }
    let (weight, bias) = (matrix("ih")?.transpose(), (bias("ih")? + bias("hh")?).reshape([1, 4 * hidden]));
    // What the input gives to many rows' gates, in one product.
    let given = |from: usize| {
        let n = ROWS.min(rows - from);
        let x = x.clone().slice_dim(2, from..from + n).permute([2, 0, 1]).reshape([n * batch, channels]);
        (x.matmul(weight.clone()) + bias.clone()).reshape([n, batch, 4 * hidden])
    };
    let mut gates: Option<(usize, Tensor<3>)> = None;
    let recurrent = matrix("hh")?.transpose();
    let mut state: Option<(Tensor<2>, Tensor<2>)> = None;
    let mut outputs = Vec::with_capacity(rows);
    for i in 0..rows {
        let t = if reverse { rows - 1 - i } else { i };
        let from = t / ROWS * ROWS;
        let block = gates.take().filter(|(first, _)| *first == from).unwrap_or_else(|| (from, given(from)));
        let mut row = block.1.clone().slice_dim(0, t - from..t - from + 1).reshape([batch, 4 * hidden]);
        gates = Some(block);
        if let Some((h, _)) = &state {
            row = row + h.clone().matmul(recurrent.clone());
        }
        let gate = |k: usize| row.clone().slice_dim(1, k * hidden..(k + 1) * hidden);
        let new = sigmoid(gate(0)) * gate(2).tanh();
        let cell = match state {
            Some((_, cell)) => sigmoid(gate(1)) * cell + new,
            None => new,
        };
        let h = sigmoid(gate(3)) * cell.clone().tanh();
        outputs.push(h.clone());
        state = Some((h, cell));
    }
    if reverse {
        outputs.reverse();
    }
    Ok(Tensor::stack(outputs, 2))
}
