//! Planning of convolutions, plain and transposed.

use alloc::{format, string::String, vec::Vec};

use super::{Builder, Cur, MAX_CHANNELS, MAX_TAPS, Strides, Timing, check, limits, rate, spec_error, weight};
use crate::{
    BuildError,
    layer::*,
    pipeline::network::Kind,
    spec::{self, PadMode},
    weights::Precision,
};

impl Builder<'_> {
    pub(super) fn conv(&mut self, l: &spec::Conv, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "input", l.input, 1, MAX_CHANNELS)?;
        check(n, "output", l.output, 1, MAX_CHANNELS)?;
        check(n, "kernel", l.kernel, 1, MAX_TAPS)?;
        check(n, "stride", l.stride, 1, MAX_TAPS)?;
        check(n, "dilation", l.dilation, 1, MAX_TAPS)?;
        check(n, "groups", l.groups, 1, MAX_CHANNELS)?;
        check(n, "padding.left", l.padding.left, 0, 1 << 20)?;
        check(n, "padding.right", l.padding.right, 0, 1 << 20)?;
        self.channels(n, l.input, cur)?;
        self.divides(n, l.groups, l.input, l.output)?;
        let (ci, co, k) = (l.input as usize, l.output as usize, l.kernel as usize);
        let groups = l.groups as usize;
        let (gi, go) = (ci / groups, co / groups);
        let mut layer = ConvLayer {
            src: cur.buffer,
            dst: 0,
            residual: None,
            window: Window {
                span: (k - 1) * l.dilation as usize + 1,
                stride: l.stride as usize,
                left: l.padding.left as usize,
                right: l.padding.right as usize,
                pad: match l.padding.mode {
                    PadMode::Zero => Pad::Zero,
                    PadMode::Reflect => Pad::Reflect,
                    PadMode::Replicate => Pad::Replicate,
                },
                complete: l.padding.complete,
            },
            input: ci,
            output: co,
            kernel: k,
            dilation: l.dilation as usize,
            groups,
            weight: Weight::default(),
            bias: None,
            then: Function::Identity,
        };
        let w = weight(self.tensors, &format!("{n}.weight"), &[co, gi, k])?;
        layer.weight = if layer.depthwise() {
            let mut taps = Vec::with_capacity(k * co);
            (0..k).for_each(|j| taps.extend((0..co).map(|c| w[c * k + j])));
            Weight { slot: self.fill(&taps), precision: Precision::F32, scales: None }
        } else {
            let at = Strides { taps: k, channels: gi, tap: 1, channel: k };
            // Layers of integers stay what they are.
            let precision = if l.int8.is_some() { self.float(&w) } else { self.precision(&w) };
            self.pack_groups(precision, (groups, go), &at, |g, o| (g * go + o) * gi * k, &w)?
        };
        if l.bias {
            layer.bias = Some(self.vector(&format!("{n}.bias"), co)?);
        }
        if let Some(q) = l.int8 {
            limits(&q.input)?;
            let (low, high) = limits(&q.output)?;
            let scales = self.tensor(&format!("{n}.weight_scale"), &[co])?.values();
            let multiplier: Vec<f32> = scales.iter().map(|s| q.input.scale * s / q.output.scale).collect();
            layer.then = Function::Requantize { multiplier: self.fill(&multiplier), low, high };
        }
        let window = layer.window;
        let t = self.timing[cur.buffer];
        let timing = Timing {
            rows: rate(n, t.rows, window.stride, 1)?,
            ahead: t.ahead + (window.span as f64 - window.left as f64 - window.stride as f64) * t.step(),
            field: t.field + (window.span - 1) as f64 * t.step(),
            lag: t.lag.saturating_add(window.left.max(window.span - 1)) / window.stride
                + usize::from(window.stride > 1),
        };
        layer.dst = self.buffer(co, timing);
        self.reserve(cur.buffer, window.head(), window.tail());
        let state = window.history().saturating_mul(ci);
        let parameters = co * gi * k + if l.bias { co } else { 0 };
        let groups = if groups > 1 { format!(" groups {groups}") } else { String::new() };
        let kind = format!("conv {ci}→{co} k{k} s{} d{}{groups}", l.stride, l.dilation);
        self.note(kind, n, parameters, (co * gi * k) as f64, &timing, state);
        self.op(Kind::Conv(layer), state, 0);
        Ok(Cur { buffer: layer.dst, channels: co, owned: true })
    }

    pub(super) fn conv_transpose(&mut self, l: &spec::ConvTranspose, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "input", l.input, 1, MAX_CHANNELS)?;
        check(n, "output", l.output, 1, MAX_CHANNELS)?;
        check(n, "stride", l.stride, 1, MAX_TAPS)?;
        check(n, "kernel", l.kernel, l.stride, MAX_TAPS)?;
        check(n, "groups", l.groups, 1, MAX_CHANNELS)?;
        check(n, "trim_left", l.trim_left, 0, 1 << 20)?;
        self.channels(n, l.input, cur)?;
        self.divides(n, l.groups, l.input, l.output)?;
        let (ci, co, k, s) = (l.input as usize, l.output as usize, l.kernel as usize, l.stride as usize);
        let groups = l.groups as usize;
        let (gi, go) = (ci / groups, co / groups);
        // Rows that follow the last whole stride of the last input row.
        let extra = (k - s) as i64 - i64::from(l.trim_right);
        let blocks = l.blocks.as_ref();
        if blocks.is_none() && !(0..=1 << 20).contains(&extra) {
            return Err(spec_error(
                n,
                format!("trim_right {} cuts more than kernel - stride = {}", l.trim_right, k - s),
            ));
        }
        if blocks.is_some() && (l.trim_left != 0 || extra != 0) {
            return Err(spec_error(
                n,
                format!("a layer in blocks trims {} rows on the right and none on the left", k - s),
            ));
        }
        let w = weight(self.tensors, &format!("{n}.weight"), &[ci, go, k])?;
        let bias = if l.bias { Some(self.tensor(&format!("{n}.bias"), &[co])?.values()) } else { None };
        let (full, part) = (k / s, k % s);
        let integers = blocks.is_some_and(|b| b.int8.is_some());
        let precision = if integers { self.float(&w) } else { self.precision(&w) };
        let first = self.phases.len();
        for g in 0..groups {
            // Output phases 0..part see one input row more than the others.
            for (from, to, taps) in [(0, part, full + 1), (part, s, full)] {
                // One channel group's results of neighbouring phases lie side by side only without groups.
                let runs: Vec<(usize, usize)> =
                    if groups == 1 { Vec::from([(from, to)]) } else { (from..to).map(|p| (p, p + 1)).collect() };
                for (from, to) in runs.into_iter().filter(|(from, to)| from < to) {
                    let columns = (to - from) * go;
                    let at = Strides { taps, channels: gi, tap: s, channel: go * k };
                    let of = |column: usize| (g * gi * go + column % go) * k + from + column / go;
                    let weight = self.pack(precision, columns, &at, of, &w)?;
                    let bias = bias.as_ref().map(|b| {
                        let values: Vec<f32> = (0..columns).map(|column| b[g * go + column % go]).collect();
                        self.fill(&values)
                    });
                    let column = from * co + g * go;
                    self.phases.push(Some(Phase {
                        column,
                        columns,
                        taps,
                        channel: g * gi,
                        channels: gi,
                        weight,
                        bias,
                    }));
                }
            }
        }
        let phases = (first, self.phases.len() - first);
        let t = self.timing[cur.buffer];
        let left = l.trim_left as usize;
        let timing = Timing {
            rows: rate(n, t.rows, 1, s)?,
            ahead: t.ahead + t.step() * (libm::floor((left as f64 - 1.0) / s as f64) + 1.0),
            field: t.field + (k.div_ceil(s) - 1) as f64 * t.step(),
            lag: t.lag.saturating_add(blocks.map_or(0, |b| b.rows as usize)).saturating_mul(s).saturating_add(left),
        };
        let dst = self.buffer(co, timing);
        let parameters = ci * go * k + if l.bias { co } else { 0 };
        let kind = format!(
            "conv_transpose {ci}→{co} k{k} s{s}{}",
            if groups > 1 { format!(" groups {groups}") } else { String::new() }
        );
        let macs = (ci * go * k) as f64;
        if let Some(blocks) = blocks {
            check(n, "blocks.rows", blocks.rows, 1, 1 << 12)?;
            let int8 = blocks.int8.as_ref().map(|q| self.blocks_int8(n, q, groups, go)).transpose()?;
            let state_bias = match (&bias, int8) {
                (Some(_), Some(_)) => Some(self.vector(&format!("{n}.state_bias"), co)?),
                (Some(b), None) => Some(self.fill(b)),
                (None, _) => None,
            };
            let mut layer = BlocksLayer {
                src: cur.buffer,
                dst,
                tmp: 0,
                rows: blocks.rows as usize,
                input: ci,
                output: co,
                kernel: k,
                stride: s,
                phases,
                state_bias,
                int8,
            };
            layer.tmp = self.temporary(1, Some(layer.tmp_len()));
            self.reserve(cur.buffer, layer.rows - 1, 0);
            self.note(kind, n, parameters, macs, &t, layer.state_len());
            self.op(Kind::Blocks(layer), layer.state_len(), 0);
        } else {
            let span = k.div_ceil(s);
            let right = (extra as usize).div_ceil(s);
            let window = Window { span, stride: 1, left: span - 1, right, pad: Pad::Zero, complete: false };
            self.reserve(cur.buffer, window.head(), window.tail());
            let layer = ConvTransposeLayer {
                src: cur.buffer,
                dst,
                window,
                input: ci,
                output: co,
                stride: s,
                drop_left: left,
                drop_right: right * s - extra as usize,
                phases,
                then: Function::Identity,
            };
            let state = window.history().saturating_mul(ci);
            self.note(kind, n, parameters, macs, &t, state);
            self.op(Kind::ConvTranspose(layer), state, 0);
        }
        Ok(Cur { buffer: dst, channels: co, owned: true })
    }

    /// Multiplier, lowest, highest and scale of every output channel.
    fn blocks_int8(&mut self, n: &str, q: &spec::BlocksInt8, groups: usize, go: usize) -> Result<Slot, BuildError> {
        if q.outputs.len() != groups {
            return Err(spec_error(n, format!("{} output grids for {groups} groups", q.outputs.len())));
        }
        limits(&q.input)?;
        let scales = self.tensor(&format!("{n}.weight_scale"), &[groups])?.values();
        let mut table = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for (grid, w) in q.outputs.iter().zip(scales.iter()) {
            let (low, high) = limits(grid)?;
            for (column, value) in table.iter_mut().zip([q.input.scale * w / grid.scale, low, high, grid.scale]) {
                column.extend(core::iter::repeat_n(value, go));
            }
        }
        Ok(self.fill(&table.concat()))
    }
}
