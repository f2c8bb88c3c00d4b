//! Planning of the layers of transformers.

use alloc::{format, string::String, vec, vec::Vec};

use super::{Builder, Cur, MAX_CHANNELS, MAX_TAPS, Source, Strides, check, spec_error, weight};
use crate::{
    BuildError,
    kernel::PANEL,
    layer::*,
    pipeline::network::Kind,
    spec::{self, PadMode, Pairing, Span},
    weights::Precision,
};

/// Rows that a window may hold, and values that it may keep: sizes past these would be memory that no weight pays for.
const MAX_WINDOW: u32 = 1 << 16;
const MAX_CACHE: usize = 1 << 26;

impl Builder<'_> {
    pub(super) fn layer_norm(&mut self, l: &spec::LayerNorm, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "channels", l.channels, 1, MAX_CHANNELS)?;
        self.channels(n, l.channels, cur)?;
        if !l.epsilon.is_finite() || l.epsilon < 0.0 {
            return Err(spec_error(n, format!("an epsilon of {}", l.epsilon)));
        }
        let channels = cur.channels;
        let (shape, row) = match (l.rows, l.row) {
            (None, None) => (vec![channels], 0),
            (Some(rows), Some(row)) if row < rows && l.affine => (vec![rows as usize, channels], row as usize),
            (rows, row) => return Err(spec_error(n, format!("row {row:?} of tables of {rows:?} rows"))),
        };
        let mut vector = |part: &str, neutral: f32| -> Result<Slot, BuildError> {
            if !l.affine {
                return Ok(self.fill(&vec![neutral; channels]));
            }
            let table = weight(self.tensors, &format!("{n}.{part}"), &shape)?;
            Ok(self.fill(&table[row * channels..(row + 1) * channels]))
        };
        let (weight, bias) = (vector("weight", 1.0)?, vector("bias", 0.0)?);
        let cur = self.own(cur);
        let parameters = if l.affine { 2 * shape.iter().product::<usize>() } else { 0 };
        let timing = self.timing[cur.buffer];
        self.note(format!("layer_norm {channels}"), n, parameters, 0.0, &timing, 0);
        self.op(Kind::LayerNorm(LayerNormLayer { src: cur.buffer, epsilon: l.epsilon, weight, bias }), 0, 0);
        Ok(cur)
    }

    pub(super) fn linear(&mut self, l: &spec::Linear, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "input", l.input, 1, MAX_CHANNELS)?;
        check(n, "output", l.output, 1, MAX_CHANNELS)?;
        self.channels(n, l.input, cur)?;
        let w = weight(self.tensors, &format!("{n}.weight"), &[l.output as usize, l.input as usize])?;
        let bias = self.bias(n, l.bias, l.output as usize)?;
        self.dense(&w, bias.as_deref(), l.output as usize, Function::Identity, (n, cur))
    }

    fn bias(&self, name: &str, there: bool, len: usize) -> Result<Option<Vec<f32>>, BuildError> {
        if !there {
            return Ok(None);
        }
        Ok(Some(self.tensor(&format!("{name}.bias"), &[len])?.values().into_owned()))
    }

    /// A linear map of each row: a convolution of one tap. `w` is `[output, input]`.
    fn dense(
        &mut self,
        w: &Source<'_>,
        bias: Option<&[f32]>,
        output: usize,
        then: Function,
        (name, cur): (&str, Cur),
    ) -> Result<Cur, BuildError> {
        let input = cur.channels;
        let timing = self.timing[cur.buffer];
        let at = Strides { taps: 1, channels: input, tap: 0, channel: 1 };
        let layer = ConvLayer {
            src: cur.buffer,
            dst: self.buffer(output, timing),
            residual: None,
            window: Window { span: 1, stride: 1, left: 0, right: 0, pad: Pad::Zero, complete: false },
            input,
            output,
            kernel: 1,
            dilation: 1,
            groups: 1,
            weight: self.pack(self.precision(w), output, &at, |o| o * input, w)?,
            bias: bias.map(|b| self.fill(b)),
            then,
        };
        let parameters = w.len() + bias.map_or(0, <[f32]>::len);
        self.note(format!("linear {input}→{output}"), name, parameters, w.len() as f64, &timing, 0);
        self.op(Kind::Conv(layer), 0, 0);
        Ok(Cur { buffer: layer.dst, channels: output, owned: true })
    }

    pub(super) fn scale(&mut self, name: &str, channels: u32, cur: Cur) -> Result<Cur, BuildError> {
        check(name, "channels", channels, 1, MAX_CHANNELS)?;
        self.channels(name, channels, cur)?;
        let factors = weight(self.tensors, &format!("{name}.scale"), &[cur.channels])?;
        let timing = self.timing[cur.buffer];
        self.note(format!("scale {channels}"), name, factors.len(), 0.0, &timing, 0);
        if cur.owned && self.fold_scale(&factors, cur) {
            return Ok(cur);
        }
        let factors = self.fill(&factors);
        Ok(self.map(Function::Multiply(factors), cur))
    }

    /// Multiplies the weights of the dense layer before, if there is one, so that it can still add a residual as it
    /// stores. In f16, products would be rounded again.
    fn fold_scale(&mut self, factors: &[f32], cur: Cur) -> bool {
        let Some(Kind::Conv(l)) = self.ops.last().map(|op| op.kind) else { return false };
        if l.dst != cur.buffer
            || l.groups != 1
            || l.then != Function::Identity
            || l.residual.is_some()
            || l.weight.precision == Precision::F16
        {
            return false;
        }
        let arena = self.arena.as_mut();
        // Int8 has a factor a column already.
        let (slot, rows) = match l.weight.scales {
            Some(scales) => (scales, 1),
            None => (l.weight.slot, l.kernel * l.input),
        };
        let panels = arena[slot.offset..slot.offset + slot.len].chunks_exact_mut(PANEL * rows);
        for (panel, factors) in panels.zip(factors.chunks(PANEL)) {
            for row in panel.chunks_exact_mut(PANEL) {
                row.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
            }
        }
        if let Some(b) = l.bias {
            arena[b.offset..b.offset + b.len].iter_mut().zip(factors).for_each(|(b, f)| *b *= f);
        }
        true
    }

    pub(super) fn attention(&mut self, l: &spec::Attention, cur: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        check(n, "channels", l.channels, 1, MAX_CHANNELS)?;
        check(n, "heads", l.heads, 1, MAX_CHANNELS)?;
        check(n, "head_dim", l.head_dim, 1, MAX_CHANNELS / l.heads)?;
        self.channels(n, l.channels, cur)?;
        let (heads, dim, channels) = (l.heads as usize, l.head_dim as usize, cur.channels);
        let inner = heads * dim;
        let (reach, described) = self.reach(l, inner)?;
        let cur = if let Reach::Block(length) = reach { self.gather(length, cur) } else { cur };

        // What is scaled or turned is so by its weights: queries by 1 / sqrt(dim) (not in f16, where products would be
        // rounded again), and pairs side by side to halves.
        let interleaved = match l.rotary {
            Some(r) if !l.head_dim.is_multiple_of(2) || !r.theta.is_finite() || r.theta < 1.0 => {
                return Err(spec_error(n, format!("a rotation of {dim} channels a head with theta {}", r.theta)));
            }
            Some(r) => r.pairing == Pairing::Interleaved,
            None => false,
        };
        let mut project = |part: &str, bias: bool, turned: bool, scale: f32| -> Result<Cur, BuildError> {
            let name = format!("{n}.{part}");
            let w = weight(self.tensors, &format!("{name}.weight"), &[inner, channels])?;
            let b = self.bias(&name, bias, inner)?;
            let from = |o: usize| match (o / dim * dim, o % dim) {
                (head, j) if turned && interleaved => head + if j < dim / 2 { 2 * j } else { 2 * j - dim + 1 },
                (head, j) => head + j,
            };
            let (scale, then) = match self.precision(&w) {
                Precision::F16 if scale != 1.0 => (1.0, Function::Scale(scale)),
                _ => (scale, Function::Identity),
            };
            let rows = (0..inner).flat_map(|o| w[from(o) * channels..(from(o) + 1) * channels].iter());
            let values: Vec<f32> = rows.map(|v| v * scale).collect();
            let b: Option<Vec<f32>> = b.map(|b| (0..inner).map(|o| b[from(o)] * scale).collect());
            self.dense(&Source { values: values.into(), ..w }, b.as_deref(), inner, then, (&name, cur))
        };
        let query = project("q", l.bias.q, true, (1.0 / libm::sqrt(dim as f64)) as f32)?;
        let key = project("k", l.bias.k, true, 1.0)?;
        let value = project("v", l.bias.v, false, 1.0)?;

        let rotary = l.rotary.map(|r| {
            let table: Vec<f32> = RotaryTable::values(dim, f64::from(r.theta)).collect();
            RotaryTable::new(self.fill(&table))
        });
        let mut timing = self.timing[query.buffer];
        match reach {
            Reach::Window(window) => timing.field += (window - 1) as f64 * timing.step(),
            Reach::Block(length) => timing.field += (length - 1) as f64 * timing.step(),
            Reach::Whole { .. } => self.endless = true,
        }
        let layer = AttentionLayer {
            query: query.buffer,
            key: key.buffer,
            value: value.buffer,
            dst: self.buffer(inner, timing),
            tmp: self.temporary(1, None),
            heads,
            dim,
            reach,
            rotary,
        };
        let rows = match reach {
            Reach::Window(rows) | Reach::Block(rows) => rows,
            Reach::Whole { .. } => 0,
        };
        let macs = (2 * inner * rows) as f64;
        self.note(format!("attention {heads}×{dim} {described}"), n, 0, macs, &timing, layer.state_len());
        self.op(Kind::Attention(layer), layer.state_len(), 0);
        let attended = Cur { buffer: layer.dst, channels: inner, owned: true };

        let memory = l.memory.as_ref().map(|m| self.memory(l, m, value)).transpose()?;
        let name = format!("{n}.out");
        let w = weight(self.tensors, &format!("{name}.weight"), &[channels, inner])?;
        let bias = self.bias(&name, l.bias.out, channels)?;
        let out = self.dense(&w, bias.as_deref(), channels, Function::Identity, (&name, attended))?;
        if let Some(memory) = memory {
            self.add(memory, out, self.timing[value.buffer].lag, None)?;
        }
        Ok(out)
    }

    /// Checks the span, and says it in words.
    fn reach(&mut self, l: &spec::Attention, inner: usize) -> Result<(Reach, String), BuildError> {
        let n = &l.name;
        let (reach, words, whole) = match l.span {
            Span::Causal { window: Some(window) } => {
                check(n, "span.window", window, 1, MAX_WINDOW)?;
                (Reach::Window(window as usize), format!("window {window}"), None)
            }
            Span::Blocks { length } => {
                check(n, "span.length", length, 1, MAX_WINDOW)?;
                (Reach::Block(length as usize), format!("blocks of {length}"), None)
            }
            Span::Causal { window: None } => {
                let why = format!("`{n}` attends to all rows before, however many");
                (Reach::Whole { causal: true }, "causal".into(), Some(why))
            }
            Span::Full => {
                let why = format!("`{n}` attends to every row of the signal");
                (Reach::Whole { causal: false }, "full".into(), Some(why))
            }
        };
        if let Reach::Window(rows) | Reach::Block(rows) = reach
            && rows.saturating_mul(inner) > MAX_CACHE
        {
            return Err(spec_error(n, format!("{rows} rows of {inner} channels are more than {MAX_CACHE} values")));
        }
        if self.whole.is_none() {
            self.whole = whole;
        }
        Ok((reach, words))
    }

    /// Holds rows back until they make whole blocks.
    fn gather(&mut self, block: usize, cur: Cur) -> Cur {
        let cur = self.own(cur);
        let held = block - 1;
        self.shift(cur.buffer, held);
        let t = &mut self.timing[cur.buffer];
        t.ahead += held as f64 * t.step();
        t.lag = t.lag.saturating_add(held);
        self.op(
            Kind::Gather(GatherLayer { src: cur.buffer, channels: cur.channels, block }),
            held.saturating_mul(cur.channels),
            0,
        );
        cur
    }

    /// The values and a depthwise convolution over them.
    fn memory(&mut self, l: &spec::Attention, m: &spec::Fsmn, value: Cur) -> Result<Cur, BuildError> {
        let n = &l.name;
        if value.channels != l.channels as usize || m.left.checked_add(m.right) != m.kernel.checked_sub(1) {
            return Err(spec_error(
                n,
                format!(
                    "a memory of {} taps, padded by {} and {}, over {} values for {} channels",
                    m.kernel, m.left, m.right, value.channels, l.channels
                ),
            ));
        }
        check(n, "memory.kernel", m.kernel, 1, MAX_TAPS)?;
        let conv = spec::Conv {
            name: format!("{n}.memory"),
            input: l.channels,
            output: l.channels,
            kernel: m.kernel,
            stride: 1,
            dilation: 1,
            groups: l.channels,
            bias: false,
            padding: spec::Padding { mode: PadMode::Zero, left: m.left, right: m.right, complete: false },
            int8: None,
        };
        let body = vec![spec::Layer::Conv(conv)];
        self.residual(&spec::Residual { body, shortcut: Vec::new(), int8: None }, Cur { owned: false, ..value })
    }
}
