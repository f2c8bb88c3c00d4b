//! Multi-head attention.

use burn::tensor::{Tensor, TensorData, activation::softmax};
use codec_core::spec::{Attention, Linear, Pairing, Span};

use super::{conv, linear};
use crate::{TrainError, Vars};

/// Rows whose scores are held at once: what a signal takes then grows with its length only.
const ROWS: usize = 256;
/// The score of a row that is not attended to.
const NEVER: f32 = -1e30;

/// `[batch, channels, rows]` to the same.
pub(super) fn forward(l: &Attention, vars: &Vars, x: Tensor<3>) -> Result<Tensor<3>, TrainError> {
    let [batch, _, rows] = x.dims();
    let (heads, dim) = (l.heads as usize, l.head_dim as usize);
    let inner = heads * dim;
    let project = |part: &str, input: usize, output: usize, bias: bool, x: Tensor<3>| {
        let l = Linear { name: format!("{}.{part}", l.name), input: input as u32, output: output as u32, bias };
        linear(&l, vars, x)
    };
    let own = l.channels as usize;
    let split = |x: Tensor<3>| x.reshape([batch, heads, dim, rows]).swap_dims(2, 3);
    let mut q = split(project("q", own, inner, l.bias.q, x.clone())?);
    let mut k = split(project("k", own, inner, l.bias.k, x.clone())?);
    let values = project("v", own, inner, l.bias.v, x)?;
    if let Some(rotary) = l.rotary {
        let block = if let Span::Blocks { length } = l.span { (length as usize).max(1) } else { rows.max(1) };
        let (cos, sin) = turns(rows, block, dim, f64::from(rotary.theta), &q.device());
        q = rotated(q, rotary.pairing, &cos, &sin);
        k = rotated(k, rotary.pairing, &cos, &sin);
    }
    let q = q.div_scalar((dim as f32).sqrt());
    let v = split(values.clone());
    let out = match l.span {
        Span::Full => attend(q, k, v, None),
        Span::Causal { window } => attend(q, k, v, Some(window.map_or(rows, |w| w as usize).max(1))),
        Span::Blocks { length } => blocks(q, k, v, (length as usize).max(1)),
    };
    let mut y = project("out", inner, own, l.bias.out, out.swap_dims(2, 3).reshape([batch, inner, rows]))?;
    if let Some(memory) = l.memory {
        let weight = vars.weight::<3>(&format!("{}.memory", l.name))?;
        y = y + values.clone() + conv::depthwise(values, weight, memory.left as usize, memory.right as usize);
    }
    Ok(y)
}

/// Cosines and sines `[1, 1, rows, dim / 2]` of rows' angles; positions begin again every `block` rows.
fn turns(rows: usize, block: usize, dim: usize, theta: f64, device: &burn::tensor::Device) -> (Tensor<4>, Tensor<4>) {
    let half = dim / 2;
    let angles = |of: fn(f64) -> f64| {
        let value = |i: usize| {
            let (t, j) = ((i / half % block) as f64, i % half);
            of(t * theta.powf(-2.0 * j as f64 / dim as f64)) as f32
        };
        let values: Vec<f32> = (0..rows * half).map(value).collect();
        Tensor::<4>::from_data(TensorData::new(values, [1, 1, rows, half]), device)
    };
    (angles(f64::cos), angles(f64::sin))
}

/// Turns each pair of channels of `[batch, heads, rows, dim]`.
fn rotated(x: Tensor<4>, pairing: Pairing, cos: &Tensor<4>, sin: &Tensor<4>) -> Tensor<4> {
    let [batch, heads, rows, dim] = x.dims();
    let half = dim / 2;
    let (a, b) = match pairing {
        Pairing::Halves => (x.clone().slice_dim(3, 0..half), x.slice_dim(3, half..dim)),
        Pairing::Interleaved => {
            let pairs = x.reshape([batch * heads, rows, half, 2]);
            let part = |i: usize| pairs.clone().slice_dim(3, i..i + 1).reshape([batch, heads, rows, half]);
            (part(0), part(1))
        }
    };
    let real = a.clone() * cos.clone() - b.clone() * sin.clone();
    let imaginary = a * sin.clone() + b * cos.clone();
    match pairing {
        Pairing::Halves => Tensor::cat(vec![real, imaginary], 3),
        Pairing::Interleaved => {
            let column = |x: Tensor<4>| x.reshape([batch * heads, rows, half, 1]);
            Tensor::cat(vec![column(real), column(imaginary)], 3).reshape([batch, heads, rows, dim])
        }
    }
}

/// What rows of `q` get from `k` and `v`, all `[batch, heads, rows, dim]`: from all rows, or from themselves and those before
/// them, `window` at most.
fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, window: Option<usize>) -> Tensor<4> {
    let rows = q.dims()[2];
    let part = |first: usize| {
        let end = rows.min(first + ROWS);
        let from = window.map_or(0, |w| (first + 1).saturating_sub(w));
        let to = if window.is_some() { end } else { rows };
        let keys = k.clone().slice_dim(2, from..to).swap_dims(2, 3);
        let mut scores = q.clone().slice_dim(2, first..end).matmul(keys);
        if let Some(window) = window {
            let score = |i: usize| {
                let (row, key) = (first + i / (to - from), from + i % (to - from));
                if key <= row && row - key < window { 0.0 } else { NEVER }
            };
            let mask: Vec<f32> = (0..(end - first) * (to - from)).map(score).collect();
            scores = scores + Tensor::from_data(TensorData::new(mask, [1, 1, end - first, to - from]), &q.device());
        }
        softmax(scores, 3).matmul(v.clone().slice_dim(2, from..to))
    };
    let mut parts: Vec<_> = (0..rows).step_by(ROWS).map(part).collect();
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 2) }
}

/// Attention within blocks of `length` rows, the last of which may be shorter.
fn blocks(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, length: usize) -> Tensor<4> {
    let [batch, heads, rows, dim] = q.dims();
    let whole = rows / length * length;
    let mut parts = Vec::new();
    if whole > 0 {
        let count = whole / length;
        let cut = |x: &Tensor<4>| x.clone().slice_dim(2, 0..whole).reshape([batch * heads, count, length, dim]);
        parts.push(attend(cut(&q), cut(&k), cut(&v), None).reshape([batch, heads, whole, dim]));
    }
    if whole < rows {
        let cut = |x: &Tensor<4>| x.clone().slice_dim(2, whole..rows);
        parts.push(attend(cut(&q), cut(&k), cut(&v), None));
    }
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 2) }
}
