//! From a spec and named tensors to a planned chain.

mod attention;
mod conv;
mod pack;
mod spectral;

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use super::{
    chain::Chain,
    network::{Buffer, Kind, Op},
    plan::{ChainPlan, LayerPlan, Timing, reduce},
};
use pack::{Source, Strides, weight};

use crate::{
    BuildError,
    kernel::{self, Aligned, Arena},
    layer::*,
    spec::{self, Activation, Grid, Layer},
    weights::{Dtype, F16_MAX, Precision, TensorView, Tensors, f32_to_f16},
};

pub use spectral::mel_filters;

/// Sizes past these are refused: nothing real comes near, and sums of them cannot overflow.
const MAX_CHANNELS: u32 = 1 << 16;
const MAX_TAPS: u32 = 1 << 14;
const MAX_DEPTH: usize = 64;
/// Layers as planned; placing their buffers takes time in the square of their number.
const MAX_OPS: usize = 1 << 12;
/// Values of packed weights: a spec may name one tensor many times.
const MAX_WEIGHTS: usize = 1 << 30;
/// Values that are kept between steps, and values of scratch memory for a step of one row.
const MAX_STATE: usize = 1 << 26;
const MAX_SCRATCH: usize = 1 << 26;
/// Levels of a layer's input below which int8 is not worth it.
const LEAST_LEVELS: usize = 255;
/// Input rows an output row, or the other way round.
const MAX_RATE: u64 = 1 << 32;

pub(super) fn build(
    layers: &[Layer],
    input: usize,
    tensors: &dyn Tensors,
    precision: Precision,
) -> Result<Chain, BuildError> {
    if input == 0 {
        return Err(spec_error("", "a chain needs at least one input channel"));
    }
    let mut b = Builder {
        tensors,
        precision,
        arena: Aligned::default(),
        ops: Vec::new(),
        phases: Vec::new(),
        buffers: Vec::new(),
        timing: Vec::new(),
        state_len: 0,
        plans: Vec::new(),
        whole: None,
        endless: false,
        depth: 0,
    };
    let first = b.buffer(input, Timing { rows: (1, 1), ahead: 0.0, field: 1.0, lag: 0 });
    let end = b.chain(layers, Cur { buffer: first, channels: input, owned: true })?;
    let timing = b.timing[end.buffer];
    let plan = ChainPlan {
        parameters: b.plans.iter().map(|l| l.parameters).sum(),
        macs_per_row: b.plans.iter().map(|l| l.macs_per_row).sum(),
        rate: (timing.rows.1, timing.rows.0),
        lookahead: timing.ahead.max(0.0),
        receptive_field: (!b.endless).then_some(timing.field),
        whole: b.whole,
        layers: b.plans,
    };
    if b.state_len > MAX_STATE {
        return Err(too_much(format!("keep {} values between steps, more than {MAX_STATE}", b.state_len)));
    }
    let chain = Chain {
        ops: b.ops,
        phases: b.phases,
        buffers: b.buffers,
        arena: Arena::Packed(b.arena),
        state_len: b.state_len,
        input,
        output: end.channels,
        last: end.buffer,
        plan,
    };
    let (_, scratch) = chain.memory(1);
    if scratch / size_of::<f32>() > MAX_SCRATCH {
        return Err(too_much(format!(
            "need {scratch} bytes for one row, more than {}",
            MAX_SCRATCH * size_of::<f32>()
        )));
    }
    Ok(chain)
}

fn too_much(text: String) -> BuildError {
    BuildError::Spec(format!("the layers {text}"))
}

fn spec_error(name: &str, text: impl core::fmt::Display) -> BuildError {
    BuildError::Spec(if name.is_empty() { text.to_string() } else { format!("layer `{name}`: {text}") })
}

/// The result of the layers so far.
#[derive(Clone, Copy)]
struct Cur {
    buffer: usize,
    channels: usize,
    /// Nobody else needs its rows: they may be changed in place.
    owned: bool,
}

struct Builder<'t> {
    tensors: &'t dyn Tensors,
    precision: Precision,
    arena: Aligned,
    ops: Vec<Op>,
    phases: Vec<Option<Phase>>,
    buffers: Vec<Buffer>,
    timing: Vec<Timing>,
    state_len: usize,
    plans: Vec<LayerPlan>,
    whole: Option<String>,
    endless: bool,
    depth: usize,
}

impl<'t> Builder<'t> {
    fn buffer(&mut self, channels: usize, timing: Timing) -> usize {
        self.buffers.push(Buffer { channels, ..Buffer::default() });
        self.timing.push(timing);
        self.buffers.len() - 1
    }

    /// Room that a layer needs beside its input and output.
    fn temporary(&mut self, channels: usize, rows: Option<usize>) -> usize {
        let t = Timing { rows: (1, 1), ahead: 0.0, field: 1.0, lag: 0 };
        let b = self.buffer(channels, t);
        self.buffers[b].fixed = rows;
        b
    }

    /// Room for rows that are kept back and move the start.
    fn shift(&mut self, buffer: usize, rows: usize) {
        let shift = &mut self.buffers[buffer].shift;
        *shift = shift.saturating_add(rows);
    }

    fn reserve(&mut self, buffer: usize, head: usize, tail: usize) {
        let b = &mut self.buffers[buffer];
        b.head = b.head.max(head);
        b.tail = b.tail.max(tail);
    }

    fn op(&mut self, kind: Kind, state: usize, skip: usize) {
        // What is too much is refused at the end.
        let own = (self.state_len, state);
        let other = (self.state_len.saturating_add(state), skip);
        self.state_len = other.0.saturating_add(skip);
        let none = |(at, len): (usize, usize)| if len == 0 { (0, 0) } else { (at, len) };
        self.ops.push(Op { kind, state: none(own), skip: none(other) });
    }

    fn note(&mut self, kind: String, name: &str, parameters: usize, macs: f64, cur: &Timing, state: usize) {
        self.plans.push(LayerPlan {
            kind,
            name: name.to_string(),
            parameters: parameters as u64,
            macs_per_row: macs / cur.step(),
            state,
            first_step: usize::MAX,
        });
    }

    fn chain(&mut self, layers: &[Layer], mut cur: Cur) -> Result<Cur, BuildError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(spec_error("", format!("layers are nested more than {MAX_DEPTH} deep")));
        }
        for layer in layers {
            let first_step = self.ops.len();
            cur = self.layer(layer, cur)?;
            self.plans.iter_mut().filter(|p| p.first_step == usize::MAX).for_each(|p| p.first_step = first_step);
            let weights = self.arena.as_ref().len();
            if self.ops.len() > MAX_OPS || weights > MAX_WEIGHTS {
                return Err(too_much(format!(
                    "are {} steps with {weights} weights, more than {MAX_OPS} or {MAX_WEIGHTS}",
                    self.ops.len()
                )));
            }
        }
        self.depth -= 1;
        Ok(cur)
    }

    fn layer(&mut self, layer: &Layer, cur: Cur) -> Result<Cur, BuildError> {
        match layer {
            Layer::Conv(l) => self.conv(l, cur),
            Layer::ConvTranspose(l) => self.conv_transpose(l, cur),
            Layer::Activation(a) => self.activation(a, cur),
            Layer::Residual(l) => self.residual(l, cur),
            Layer::Parallel(l) => self.parallel(l, cur),
            Layer::Lstm(l) => self.lstm(l, cur),
            Layer::GroupNorm(l) => self.group_norm(l, cur),
            Layer::LayerNorm(l) => self.layer_norm(l, cur),
            Layer::Linear(l) => self.linear(l, cur),
            Layer::Scale { name, channels } => self.scale(name, *channels, cur),
            Layer::Attention(l) => self.attention(l, cur),
            Layer::PadEnd { multiple } => {
                let cur = self.own(cur);
                check("", "multiple", *multiple, 1, 1 << 20)?;
                let tail = &mut self.buffers[cur.buffer].tail;
                *tail = tail.saturating_add(*multiple as usize - 1);
                let l = PadEndLayer { src: cur.buffer, channels: cur.channels, multiple: *multiple as usize };
                self.op(Kind::PadEnd(l), 0, 0);
                Ok(cur)
            }
            Layer::Trim { left, right } => {
                let cur = self.own(cur);
                check("", "left", *left, 0, 1 << 20)?;
                check("", "right", *right, 0, 1 << 20)?;
                let (left, right) = (*left as usize, *right as usize);
                self.shift(cur.buffer, right);
                let t = &mut self.timing[cur.buffer];
                t.ahead += (left + right) as f64 * t.step();
                t.lag = t.lag.saturating_add(left + right);
                let l = TrimLayer { src: cur.buffer, channels: cur.channels, left, right };
                self.op(Kind::Trim(l), right * cur.channels, 0);
                Ok(cur)
            }
            Layer::Istft(l) => self.istft(l, cur),
            Layer::LogMel(l) => self.log_mel(l, cur),
            Layer::Stft(l) => self.stft(l, cur),
            Layer::Noise(l) => self.noise(l, cur),
            Layer::Quantize { grid } => {
                let (low, high) = limits(grid)?;
                Ok(self.map(Function::Quantize { inverse_scale: 1.0 / grid.scale, low, high }, cur))
            }
            Layer::Dequantize { grid } => {
                limits(grid)?;
                Ok(self.map(Function::Scale(grid.scale), cur))
            }
        }
    }

    /// A buffer that may be changed in place.
    fn own(&mut self, cur: Cur) -> Cur {
        if cur.owned { cur } else { self.map(Function::Identity, cur) }
    }

    fn map(&mut self, function: Function, cur: Cur) -> Cur {
        if cur.owned && function == Function::Identity {
            return cur;
        }
        if cur.owned && self.fuse_map(function, cur) {
            return cur;
        }
        let dst = if cur.owned { cur.buffer } else { self.buffer(cur.channels, self.timing[cur.buffer]) };
        self.op(Kind::Map(MapLayer { src: cur.buffer, dst, channels: cur.channels, function }), 0, 0);
        Cur { buffer: dst, owned: true, ..cur }
    }

    /// Lets the convolution before apply a function as it stores, if it has nothing to apply yet.
    fn fuse_map(&mut self, mut function: Function, cur: Cur) -> bool {
        let phases = match self.ops.last().map(|op| &op.kind) {
            Some(Kind::Conv(l)) if l.dst == cur.buffer && l.then == Function::Identity => 1,
            Some(Kind::ConvTranspose(l)) if l.dst == cur.buffer && l.then == Function::Identity => l.stride,
            _ => return false,
        };
        let slots = match &mut function {
            Function::Snake { alpha, inverse } => [Some(alpha), Some(inverse)],
            Function::Multiply(factors) => [Some(factors), None],
            _ => [None, None],
        };
        for slot in slots.into_iter().flatten().filter(|_| phases > 1) {
            // A transposed convolution stores a stride of rows as one.
            let once = self.arena.as_ref()[slot.offset..slot.offset + slot.len].to_vec();
            *slot = self.fill(&once.repeat(phases));
        }
        match self.ops.last_mut().map(|op| &mut op.kind) {
            Some(Kind::Conv(l)) => l.then = function,
            Some(Kind::ConvTranspose(l)) => l.then = function,
            _ => return false,
        }
        true
    }

    fn activation(&mut self, a: &Activation, cur: Cur) -> Result<Cur, BuildError> {
        let function = match a {
            Activation::Elu { alpha } => Function::Elu(*alpha),
            Activation::LeakyRelu { slope } => Function::LeakyRelu(*slope),
            Activation::Tanh => Function::Tanh,
            Activation::Gelu => Function::Gelu,
            Activation::Silu => Function::Silu,
            Activation::Snake { name } => {
                let alpha = self.tensor(&format!("{name}.alpha"), &[cur.channels])?.values();
                let inverse: Vec<f32> = alpha.iter().map(|a| 1.0 / (a + 1e-9)).collect();
                self.note(
                    format!("snake {}", cur.channels),
                    name,
                    alpha.len(),
                    0.0,
                    &self.timing[cur.buffer].clone(),
                    0,
                );
                Function::Snake { alpha: self.fill(&alpha), inverse: self.fill(&inverse) }
            }
            Activation::LeakyReluInt8 { slope, input, output } => {
                limits(input)?;
                let (low, high) = limits(output)?;
                let ratio = input.scale / output.scale;
                Function::LeakyReluInt8 {
                    positive: libm::rintf(256.0 * ratio),
                    negative: libm::rintf(256.0 * (ratio * slope)),
                    low,
                    high,
                }
            }
        };
        Ok(self.map(function, cur))
    }

    fn residual(&mut self, l: &spec::Residual, cur: Cur) -> Result<Cur, BuildError> {
        let (skip, body) = if l.shortcut.is_empty() {
            (cur, self.chain(&l.body, Cur { owned: false, ..cur })?)
        } else {
            let skip = self.chain(&l.shortcut, Cur { owned: false, ..cur })?;
            (skip, self.chain(&l.body, cur)?)
        };
        let body = self.own(body);
        if skip.channels != body.channels {
            return Err(spec_error(
                "",
                format!("a residual's paths have {} and {} channels", skip.channels, body.channels),
            ));
        }
        let fixed = match &l.int8 {
            None => None,
            Some(q) => Some(fixed(q)?),
        };
        self.add(skip, body, self.timing[cur.buffer].lag, fixed)?;
        Ok(body)
    }

    /// `body += skip`, two paths that part where the lag is `base`.
    fn add(&mut self, skip: Cur, body: Cur, base: usize, fixed: Option<Fixed>) -> Result<(), BuildError> {
        let (a, b) = (self.timing[skip.buffer], self.timing[body.buffer]);
        if a.rows != b.rows {
            return Err(spec_error("", "the paths of a sum differ in their number of rows"));
        }
        self.timing[body.buffer] =
            Timing { rows: b.rows, ahead: a.ahead.max(b.ahead), field: a.field.max(b.field), lag: a.lag.max(b.lag) };
        // Whichever path is behind by its lag, the other is kept for as long.
        let (kept_skip, kept_body) = (b.lag.saturating_sub(base), a.lag.saturating_sub(base));
        self.shift(skip.buffer, kept_skip);
        if fixed.is_none() && skip.channels == body.channels && kept_body == 0 && self.fuse_add(skip, body, kept_skip) {
            return Ok(());
        }
        self.shift(body.buffer, kept_body);
        let layer =
            AddLayer { src: skip.buffer, dst: body.buffer, channels: skip.channels, width: body.channels, fixed };
        self.op(Kind::Add(layer), kept_skip.saturating_mul(skip.channels), kept_body.saturating_mul(body.channels));
        Ok(())
    }

    /// Lets the convolution that ends the body add the other path, never behind, as it stores.
    fn fuse_add(&mut self, skip: Cur, body: Cur, kept: usize) -> bool {
        let (at, len) = (self.state_len, kept.saturating_mul(skip.channels));
        let Some(op) = self.ops.last_mut() else { return false };
        let Kind::Conv(l) = &mut op.kind else { return false };
        if l.dst != body.buffer || l.residual.is_some() || l.then != Function::Identity {
            return false;
        }
        if l.src == skip.buffer {
            // It would lay padding around rows that it still has to add.
            return false;
        }
        l.residual = Some(skip.buffer);
        op.skip = if len == 0 { (0, 0) } else { (at, len) };
        self.state_len = at.saturating_add(len);
        true
    }

    fn parallel(&mut self, l: &spec::Parallel, cur: Cur) -> Result<Cur, BuildError> {
        let mut sum: Option<Cur> = None;
        for (i, branch) in l.branches.iter().enumerate() {
            let last = i + 1 == l.branches.len();
            let body = self.chain(&branch.body, Cur { owned: cur.owned && last, ..cur })?;
            let mut total = match sum {
                None => self.own(body),
                Some(total) => {
                    if total.channels != body.channels {
                        return Err(spec_error("", "parallel branches differ in channels"));
                    }
                    self.add(body, total, self.timing[cur.buffer].lag, None)?;
                    total
                }
            };
            total = self.chain(&branch.then, total)?;
            sum = Some(self.own(total));
        }
        let sum = sum.ok_or_else(|| spec_error("", "a parallel layer without branches"))?;
        if !l.divisor.is_normal() {
            return Err(spec_error("", format!("a divisor of {}", l.divisor)));
        }
        Ok(if l.divisor == 1.0 { sum } else { self.map(Function::Divide(l.divisor), sum) })
    }

    fn lstm(&mut self, l: &spec::Lstm, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "input", l.input, 1, MAX_CHANNELS)?;
        check(n, "hidden", l.hidden, 1, MAX_CHANNELS / 4)?;
        check(n, "layers", l.layers, 1, spec::MAX_LSTM_LAYERS)?;
        self.channels(n, l.input, cur)?;
        let hidden = l.hidden as usize;
        let width = hidden * if l.bidirectional { 2 } else { 1 };
        if l.skip && !width.is_multiple_of(cur.channels) {
            return Err(spec_error(n, format!("{} channels cannot be added to {width}", cur.channels)));
        }
        if l.bidirectional && self.whole.is_none() {
            self.whole = Some(format!("`{n}` is a bidirectional LSTM: its backward half starts at the end"));
        }
        self.endless = true;
        let mut x = Cur { owned: false, ..cur };
        for layer in 0..l.layers {
            let timing = self.timing[x.buffer];
            let dst = self.buffer(width, timing);
            let mut parameters = 0;
            for reverse in [false, true].into_iter().take(if l.bidirectional { 2 } else { 1 }) {
                let suffix = format!("l{layer}{}", if reverse { "_reverse" } else { "" });
                let wi = weight(self.tensors, &format!("{n}.weight_ih_{suffix}"), &[4 * hidden, x.channels])?;
                let wh = weight(self.tensors, &format!("{n}.weight_hh_{suffix}"), &[4 * hidden, hidden])?;
                let dense = |channels| Strides { taps: 1, channels, tap: 0, channel: 1 };
                let bi = self.tensor(&format!("{n}.bias_ih_{suffix}"), &[4 * hidden])?.values();
                let bh = self.tensor(&format!("{n}.bias_hh_{suffix}"), &[4 * hidden])?.values();
                let bias: Vec<f32> = bi.iter().zip(bh.iter()).map(|(a, b)| a + b).collect();
                let op = LstmLayer {
                    src: x.buffer,
                    dst,
                    tmp: self.temporary(4 * hidden, None),
                    input: x.channels,
                    hidden,
                    column: if reverse { hidden } else { 0 },
                    width,
                    reverse,
                    weight_input: self.pack(
                        self.float(&wi),
                        4 * hidden,
                        &dense(x.channels),
                        |o| o * x.channels,
                        &wi,
                    )?,
                    weight_hidden: self.pack(self.float(&wh), 4 * hidden, &dense(hidden), |o| o * hidden, &wh)?,
                    bias: self.fill(&bias),
                };
                parameters += 4 * hidden * (x.channels + hidden + 2);
                self.op(Kind::Lstm(op), 2 * hidden, 0);
            }
            let kind = format!("lstm {}→{width}{}", x.channels, if l.bidirectional { " both ways" } else { "" });
            let macs = parameters - 8 * width;
            self.note(kind, n, parameters, macs as f64, &timing, 2 * width);
            x = Cur { buffer: dst, channels: width, owned: true };
        }
        if l.skip {
            self.add(cur, x, self.timing[cur.buffer].lag, None)?;
        }
        Ok(x)
    }

    fn group_norm(&mut self, l: &spec::GroupNorm, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "channels", l.channels, 1, MAX_CHANNELS)?;
        check(n, "groups", l.groups, 1, l.channels)?;
        self.channels(n, l.channels, cur)?;
        self.divides(n, l.groups, l.channels, l.channels)?;
        let cur = self.own(cur);
        if self.whole.is_none() {
            self.whole = Some(format!("`{n}` normalises over the whole signal"));
        }
        self.endless = true;
        let tmp = self.temporary(1, Some(2 * cur.channels));
        let layer = GroupNormLayer {
            src: cur.buffer,
            tmp,
            channels: cur.channels,
            groups: l.groups as usize,
            epsilon: l.epsilon,
            weight: self.vector(&format!("{n}.weight"), cur.channels)?,
            bias: self.vector(&format!("{n}.bias"), cur.channels)?,
        };
        let timing = self.timing[cur.buffer];
        self.note(format!("group_norm {} groups {}", l.channels, l.groups), n, 2 * cur.channels, 0.0, &timing, 0);
        self.op(Kind::GroupNorm(layer), 0, 0);
        Ok(cur)
    }

    fn channels(&self, name: &str, input: u32, cur: Cur) -> Result<(), BuildError> {
        if input as usize == cur.channels {
            return Ok(());
        }
        Err(spec_error(name, format!("takes {input} channels, but the layer before gives {}", cur.channels)))
    }

    fn divides(&self, name: &str, groups: u32, input: u32, output: u32) -> Result<(), BuildError> {
        if input.is_multiple_of(groups) && output.is_multiple_of(groups) {
            return Ok(());
        }
        Err(spec_error(name, format!("{groups} groups do not divide {input} and {output} channels")))
    }
}

fn check(name: &str, field: &str, value: u32, low: u32, high: u32) -> Result<(), BuildError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(spec_error(name, format!("{field} is {value}; {low} to {high} is possible")))
}

/// Input rows a row, after a layer that gives `up` rows for `down`.
fn rate(name: &str, rows: (u64, u64), down: usize, up: usize) -> Result<(u64, u64), BuildError> {
    // Neither factor passes 2^32.
    let (a, b) = reduce((rows.0.saturating_mul(down as u64), rows.1.saturating_mul(up as u64)));
    if a.max(b) <= MAX_RATE {
        return Ok((a, b));
    }
    Err(spec_error(name, format!("{b} rows for {a} of the input: {MAX_RATE} is the most")))
}

/// Lowest and highest value of a grid, less its zero point.
fn limits(grid: &Grid) -> Result<(f32, f32), BuildError> {
    if !grid.scale.is_normal() || grid.scale < 0.0 || !(-128..=127).contains(&grid.zero_point) {
        return Err(spec_error("", format!("an int8 grid of scale {} and zero point {}", grid.scale, grid.zero_point)));
    }
    Ok(((-128 - grid.zero_point) as f32, (127 - grid.zero_point) as f32))
}

fn fixed(q: &spec::AddInt8) -> Result<Fixed, BuildError> {
    limits(&q.body)?;
    limits(&q.shortcut)?;
    let (low, high) = limits(&q.output)?;
    let (body, shortcut) = (q.body.scale / q.output.scale, q.shortcut.scale / q.output.scale);
    let (_, exponent) = libm::frexpf(body.max(shortcut));
    let shift = 20 - (exponent - 1);
    if !(1..=40).contains(&shift) {
        return Err(spec_error("", format!("an int8 sum whose scales differ too much ({body}, {shortcut})")));
    }
    let multiply = |ratio: f32| libm::rint(f64::from(ratio) * libm::exp2(f64::from(shift))) as i32;
    Ok(Fixed {
        multiply_src: multiply(shortcut),
        multiply_dst: multiply(body),
        shift: shift as u32,
        low: low as i32,
        high: high as i32,
    })
}
