//! A network as stages: runs of layers that look only so far, which are computed piece by piece in bounded memory, and layers
//! that see the whole signal (recurrent ones, attention, norms over time), which work where rows are few.

use codec_core::spec::{Activation, Layer, Span};

use crate::{TrainError, net::Network};

/// Layers that are computed together.
#[derive(Debug)]
pub(super) struct Stage {
    pub network: Network,
    pub kind: Kind,
    /// The most values of an activation, a unit of input for [`Kind::Local`] and else a row.
    pub widest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Local(Reach),
    /// Of the whole signal. If `causal`, rows do not depend on those after them.
    Whole {
        causal: bool,
    },
}

/// How far a run of layers looks, in units: the rows, in and out, after which everything repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub rows_in: usize,
    pub rows_out: usize,
    /// Units before and after a piece that it depends on.
    pub left: usize,
    pub right: usize,
}

/// The stages of a network whose input has `channels` channels.
pub(super) fn stages(layers: &[Layer], channels: usize) -> Result<Vec<Stage>, TrainError> {
    let mut stages = Vec::new();
    let mut channels = channels;
    let mut rest = layers;
    while let Some(first) = rest.first() {
        let local = is_local(first);
        let count = if local { rest.iter().take_while(|l| is_local(l)).count() } else { 1 };
        let (now, later) = rest.split_at(count);
        rest = later;
        let mut walk = Walk { rate: (1, 1), unit: 1, channels, widest: channels as f64 };
        walk.layers(now);
        let kind = if local { Kind::Local(walk.reach(now)) } else { Kind::Whole { causal: is_causal(first) } };
        let rows = if local { walk.unit as f64 } else { 1.0 };
        stages.push(Stage { network: Network::new(now)?, kind, widest: (walk.widest * rows).ceil() as usize });
        channels = walk.channels;
    }
    Ok(stages)
}

fn nested(layer: &Layer) -> Vec<&[Layer]> {
    match layer {
        Layer::Residual(l) => vec![&l.body, &l.shortcut],
        Layer::Parallel(l) => l.branches.iter().flat_map(|b| [&b.body[..], &b.then]).collect(),
        _ => Vec::new(),
    }
}

fn is_local(layer: &Layer) -> bool {
    let own = !matches!(layer, Layer::Lstm(_) | Layer::GroupNorm(_) | Layer::Attention(_) | Layer::LogMel(_));
    own && nested(layer).into_iter().flatten().all(is_local)
}

fn is_causal(layer: &Layer) -> bool {
    let own = match layer {
        Layer::Lstm(l) => !l.bidirectional,
        Layer::Attention(l) => matches!(l.span, Span::Causal { .. }) && l.memory.is_none_or(|m| m.right == 0),
        Layer::Activation(_) | Layer::LayerNorm(_) | Layer::Linear(_) | Layer::Scale { .. } => true,
        Layer::Residual(_) | Layer::Parallel(_) => true,
        _ => false,
    };
    own && nested(layer).into_iter().flatten().all(is_causal)
}

/// Rates and sizes along a run of layers.
struct Walk {
    /// Rows here for rows of the input, reduced.
    rate: (u64, u64),
    /// Rows of the input that come to whole rows everywhere.
    unit: u64,
    channels: usize,
    /// The most values for a row of the input.
    widest: f64,
}

impl Walk {
    fn at(&mut self, up: u64, down: u64, channels: usize) {
        let (num, den) = (self.rate.0 * up.max(1), self.rate.1 * down.max(1));
        let common = gcd(num, den);
        self.rate = (num / common, den / common);
        self.unit = self.unit / gcd(self.unit, self.rate.1) * self.rate.1;
        self.channels = channels;
        self.widest = self.widest.max(channels as f64 * self.rate.0 as f64 / self.rate.1 as f64);
    }

    fn layers(&mut self, layers: &[Layer]) {
        layers.iter().for_each(|layer| self.layer(layer));
    }

    fn layer(&mut self, layer: &Layer) {
        match layer {
            Layer::Conv(l) => self.at(1, l.stride.into(), l.output as usize),
            Layer::ConvTranspose(l) => self.at(l.stride.into(), 1, l.output as usize),
            Layer::Linear(l) => self.at(1, 1, l.output as usize),
            Layer::Istft(l) => {
                self.at(1, 1, 2 * l.n_fft as usize);
                self.at(l.hop.into(), 1, 1);
            }
            Layer::Stft(l) => self.at(1, l.hop.into(), 2 * l.n_fft as usize),
            Layer::LogMel(l) => {
                self.at(1, l.hop.into(), 2 * l.n_fft as usize);
                self.at(1, 1, l.mels as usize);
            }
            Layer::Lstm(l) => {
                let hidden = l.hidden as usize * if l.bidirectional { 2 } else { 1 };
                self.at(1, 1, hidden);
            }
            Layer::Attention(l) => {
                self.at(1, 1, (l.heads * l.head_dim) as usize);
                self.at(1, 1, l.channels as usize);
            }
            Layer::PadEnd { multiple } => {
                let den = self.rate.1 * u64::from(*multiple).max(1);
                let den = den / gcd(self.rate.0, den);
                self.unit = self.unit / gcd(self.unit, den) * den;
            }
            Layer::Residual(l) => {
                let before = (self.rate, self.channels);
                self.layers(&l.shortcut);
                (self.rate, self.channels) = before;
                self.layers(&l.body);
            }
            Layer::Parallel(l) => {
                let before = (self.rate, self.channels);
                for branch in &l.branches {
                    (self.rate, self.channels) = before;
                    self.layers(&branch.body);
                    self.layers(&branch.then);
                }
            }
            Layer::Activation(Activation::LeakyReluInt8 { .. })
            | Layer::Activation(_)
            | Layer::GroupNorm(_)
            | Layer::LayerNorm(_)
            | Layer::Scale { .. }
            | Layer::Trim { .. }
            | Layer::Noise(_)
            | Layer::Quantize { .. }
            | Layer::Dequantize { .. } => {}
        }
    }

    /// What a piece cut out of a long signal gives that the whole signal gives too.
    fn reach(&self, layers: &[Layer]) -> Reach {
        let unit = self.unit as i64;
        let out = (self.unit * self.rate.0 / self.rate.1) as i64;
        // Long against whatever a published network looks at; what counts is only how much is lost at its ends.
        let units = 1 << 40;
        let (from, to) = (units * unit, 2 * units * unit);
        let whole = span(layers, Rows { first: from, from, to });
        let (left, right) = (whole.from - units * out, 2 * units * out - whole.to);
        let in_units = |rows: i64| (rows.max(0) as u64).div_ceil(out.max(1) as u64) as usize;
        Reach { rows_in: unit as usize, rows_out: out as usize, left: in_units(left), right: in_units(right) }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Rows of a piece by their place in the whole signal: the first there is, and those that are as in the whole signal.
#[derive(Clone, Copy, Debug)]
struct Rows {
    first: i64,
    from: i64,
    to: i64,
}

fn span(layers: &[Layer], s: Rows) -> Rows {
    layers.iter().fold(s, |s, layer| one(layer, s))
}

/// Row `i` of a layer's output is row `i` of the whole output, less the piece's start at the output's rate.
fn one(layer: &Layer, s: Rows) -> Rows {
    let both = |a: Rows, b: Rows| Rows { first: a.first, from: a.from.max(b.from), to: a.to.min(b.to) };
    match layer {
        Layer::Conv(l) => {
            let reach = (i64::from(l.kernel) - 1) * i64::from(l.dilation) + 1;
            windows(s, reach, l.stride.max(1).into(), l.padding.left.into())
        }
        Layer::Stft(l) => windows(s, l.n_fft.into(), l.hop.into(), i64::from(l.n_fft) - i64::from(l.hop)),
        Layer::ConvTranspose(l) => {
            let (stride, left) = (i64::from(l.stride), i64::from(l.trim_left));
            Rows {
                first: s.first * stride,
                from: (s.from - 1) * stride + i64::from(l.kernel).max(stride) - left,
                to: s.to * stride - left,
            }
        }
        Layer::Istft(l) => {
            let (hop, cut) = (i64::from(l.hop), i64::from(l.n_fft - l.hop) / 2);
            Rows { first: s.first * hop, from: (s.from - 1) * hop + i64::from(l.n_fft) - cut, to: s.to * hop - cut }
        }
        Layer::Trim { left, right } => {
            let left = i64::from(*left);
            Rows { first: s.first, from: (s.from - left).max(s.first), to: s.to - left - i64::from(*right) }
        }
        Layer::Residual(l) => both(span(&l.body, s), span(&l.shortcut, s)),
        Layer::Parallel(l) => l
            .branches
            .iter()
            .fold(None, |sum: Option<Rows>, branch| {
                let body = span(&branch.body, s);
                Some(span(&branch.then, sum.map_or(body, |sum| both(sum, body))))
            })
            .unwrap_or(s),
        _ => s,
    }
}

/// Rows of windows that reach over `reach` rows every `stride`, with `left` rows of padding.
fn windows(s: Rows, reach: i64, stride: i64, left: i64) -> Rows {
    Rows {
        first: s.first / stride,
        from: ceil(s.from + left, stride),
        to: (s.to - reach + left).div_euclid(stride) + 1,
    }
}

fn ceil(a: i64, b: i64) -> i64 {
    -(-a).div_euclid(b)
}
