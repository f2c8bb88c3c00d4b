//! Specs grown from the fuzzer's bytes: layers that mostly fit each other, so that most of them run, with sizes that
//! are mostly small and at times absurd.

use arbitrary::{Result, Unstructured};
use codec::core::spec::*;

const ABSURD: [u32; 12] =
    [0, 255, 4096, 1 << 14, (1 << 14) - 1, 1 << 16, 1 << 20, (1 << 20) + 1, 1 << 24, 1 << 31, u32::MAX - 1, u32::MAX];

pub struct Grower<'a, 'b> {
    pub bytes: &'b mut Unstructured<'a>,
    pub names: u32,
    pub left: u32,
    /// Whether sizes may be absurd.
    pub wild: bool,
}

impl Grower<'_, '_> {
    fn name(&mut self) -> Result<String> {
        // Now and then two layers share their tensors.
        self.names += u32::from(self.bytes.ratio(15, 16)?);
        Ok(format!("t{}", self.names))
    }

    fn number(&mut self, low: u32, high: u32) -> Result<u32> {
        if self.wild && self.bytes.ratio(1, 24)? {
            Ok(*self.bytes.choose(&ABSURD)?)
        } else {
            self.bytes.int_in_range(low..=high)
        }
    }

    fn yes(&mut self) -> Result<bool> {
        self.bytes.arbitrary()
    }

    fn float(&mut self) -> Result<f32> {
        Ok(if self.wild && self.bytes.ratio(1, 8)? {
            self.bytes.arbitrary()?
        } else {
            *self.bytes.choose(&[0.01, 0.5, 1.0, 3.0])?
        })
    }

    fn grid(&mut self) -> Result<Grid> {
        Ok(Grid {
            scale: self.float()?,
            zero_point: if self.yes()? { 0 } else { self.bytes.arbitrary::<i8>()?.into() },
        })
    }

    fn linear(&mut self, input: u32, output: u32) -> Result<Linear> {
        Ok(Linear { name: self.name()?, input, output, bias: self.yes()? })
    }

    pub fn chain(&mut self, channels: &mut u32, depth: u32, keep: bool) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        while self.left > 0 && layers.len() < 8 && self.bytes.ratio(4, 5)? {
            self.left -= 1;
            layers.push(self.layer(channels, depth, keep)?);
        }
        Ok(layers)
    }

    /// A layer on `channels` channels; with `keep`, one that keeps channels and rows (or has no way to).
    fn layer(&mut self, channels: &mut u32, depth: u32, keep: bool) -> Result<Layer> {
        let c = *channels;
        let wide = if keep { c } else { self.number(1, 6)? };
        Ok(match self.bytes.int_in_range(0..=20)? {
            0..=2 => Layer::Conv(self.conv(channels, wide, keep)?),
            3 | 4 if !keep => {
                let (kernel, stride) = (self.number(1, 9)?, self.number(1, 4)?);
                let kernel = kernel.max(stride);
                let blocks = match self.bytes.ratio(1, 4)? {
                    false => None,
                    true => Some(Blocks {
                        rows: self.number(1, 4)?,
                        int8: match self.yes()? {
                            false => None,
                            true => Some(BlocksInt8 { input: self.grid()?, outputs: vec![self.grid()?] }),
                        },
                    }),
                };
                let extra = kernel.saturating_sub(stride);
                let left = if blocks.is_some() { 0 } else { self.number(0, extra.min(9))? };
                let right = if self.yes()? { extra } else { extra.saturating_sub(left) };
                *channels = wide;
                Layer::ConvTranspose(ConvTranspose {
                    name: self.name()?,
                    input: c,
                    output: wide,
                    kernel,
                    stride,
                    groups: if c == wide && self.bytes.ratio(1, 3)? { c } else { 1 },
                    bias: self.yes()?,
                    trim_left: left,
                    trim_right: if self.bytes.ratio(1, 8)? { self.bytes.arbitrary()? } else { right as i32 },
                    blocks,
                })
            }
            5 | 6 => Layer::Activation(match self.bytes.int_in_range(0..=6)? {
                0 => Activation::Elu { alpha: self.float()? },
                1 => Activation::LeakyRelu { slope: self.float()? },
                2 => Activation::Tanh,
                3 => Activation::Gelu,
                4 => Activation::Silu,
                5 => Activation::Snake { name: self.name()? },
                _ => Activation::LeakyReluInt8 { slope: self.float()?, input: self.grid()?, output: self.grid()? },
            }),
            7 | 8 if depth < 4 => {
                let shortcut = if self.yes()? { Vec::new() } else { self.chain(&mut c.clone(), depth + 1, true)? };
                let body = self.path(c, depth)?;
                let int8 = match self.bytes.ratio(1, 8)? {
                    false => None,
                    true => Some(AddInt8 { body: self.grid()?, shortcut: self.grid()?, output: self.grid()? }),
                };
                Layer::Residual(Residual { body, shortcut, int8 })
            }
            9 if depth < 4 => {
                let mut branches = Vec::new();
                for _ in 0..self.number(1, 3)?.min(4) {
                    let body = self.path(c, depth)?;
                    let then = if self.yes()? { Vec::new() } else { self.chain(&mut c.clone(), depth + 1, true)? };
                    branches.push(Branch { body, then });
                }
                Layer::Parallel(Parallel { branches, divisor: self.float()? })
            }
            10 => {
                let hidden = if keep { c } else { self.number(1, 4)? };
                let bidirectional = !keep && self.bytes.ratio(1, 3)?;
                *channels = hidden.saturating_mul(1 + u32::from(bidirectional));
                let skip = *channels % c.max(1) == 0 && self.yes()?;
                Layer::Lstm(Lstm {
                    name: self.name()?,
                    input: c,
                    hidden,
                    layers: self.number(1, 2)?,
                    bidirectional,
                    skip,
                })
            }
            11 => Layer::GroupNorm(GroupNorm {
                name: self.name()?,
                channels: c,
                groups: if self.yes()? { 1 } else { c },
                epsilon: self.float()?,
            }),
            12 => {
                let rows = if self.yes()? { None } else { Some(self.number(1, 3)?) };
                Layer::LayerNorm(LayerNorm {
                    name: self.name()?,
                    channels: c,
                    epsilon: self.float()?,
                    row: rows.map(|rows| rows.saturating_sub(1)),
                    rows,
                    affine: rows.is_some() || self.yes()?,
                })
            }
            13 => {
                *channels = wide;
                Layer::Linear(self.linear(c, wide)?)
            }
            14 => Layer::Scale { name: self.name()?, channels: c },
            15 | 16 => {
                let heads = self.number(1, 3)?;
                let memory = self.bytes.ratio(1, 4)?;
                let (heads, head_dim) = if memory { (1, c) } else { (heads, self.number(1, 6)?) };
                let (left, right) = (self.number(0, 3)?, self.number(0, 3)?);
                Layer::Attention(Attention {
                    name: self.name()?,
                    channels: c,
                    heads,
                    head_dim,
                    bias: AttentionBias { q: self.yes()?, k: self.yes()?, v: self.yes()?, out: self.yes()? },
                    rotary: match head_dim % 2 == 0 && self.yes()? {
                        false => None,
                        true => Some(Rotary {
                            theta: if self.wild && self.yes()? { self.float()? } else { 10_000.0 },
                            pairing: if self.yes()? { Pairing::Halves } else { Pairing::Interleaved },
                        }),
                    },
                    span: match self.bytes.int_in_range(0..=5)? {
                        0 => Span::Full,
                        1 => Span::Causal { window: None },
                        2 | 3 => Span::Causal { window: Some(self.number(1, 40)?) },
                        _ => Span::Blocks { length: self.number(1, 40)? },
                    },
                    memory: memory.then(|| Fsmn { kernel: left.saturating_add(right).saturating_add(1), left, right }),
                })
            }
            17 if !keep => Layer::PadEnd { multiple: self.number(1, 9)? },
            18 if !keep => Layer::Trim { left: self.number(0, 4)?, right: self.number(0, 4)? },
            19 if !keep && c >= 4 => {
                let n_fft = self.number(c - 2, c - 2)?;
                *channels = 1;
                Layer::Istft(Istft { n_fft, hop: self.number(1, n_fft.saturating_sub(1).max(1))? })
            }
            19 if !keep && c == 1 && self.yes()? => {
                let n_fft = *self.bytes.choose(&[2, 4, 6, 12, 16])?;
                *channels = 3 * (n_fft / 2 + 1);
                let (hop, floor) = (self.number(1, n_fft)?, self.float()?);
                let power = f32::from(self.bytes.int_in_range(0..=4u8)?) / 4.0;
                Layer::Stft(Stft { n_fft, hop, floor, power })
            }
            19 if !keep && c == 1 => {
                let n_fft = *self.bytes.choose(&[2, 4, 6, 12, 16])?;
                *channels = self.number(1, 5)?;
                let hop = self.number(1, n_fft / 2)?;
                Layer::LogMel(LogMel { sample_rate: self.number(8000, 8000)?, n_fft, hop, mels: *channels })
            }
            20 => Layer::Noise(Noise {
                name: self.name()?,
                channels: c,
                index: self.number(0, 3)?,
                seed: if self.yes()? { None } else { Some(self.bytes.arbitrary()?) },
            }),
            // Grids as a pair, or values grow without end.
            _ => Layer::Residual(Residual {
                body: vec![Layer::Quantize { grid: self.grid()? }, Layer::Dequantize { grid: self.grid()? }],
                shortcut: Vec::new(),
                int8: None,
            }),
        })
    }

    /// A path beside another: it keeps rows and channels, perhaps by way of another number of rows.
    fn path(&mut self, channels: u32, depth: u32) -> Result<Vec<Layer>> {
        let mut inside = channels;
        let mut layers = self.chain(&mut inside, depth + 1, true)?;
        if self.bytes.ratio(1, 4)? {
            let stride = self.number(1, 3)?;
            let up = ConvTranspose {
                name: self.name()?,
                input: inside,
                output: channels,
                kernel: stride,
                stride,
                groups: 1,
                bias: false,
                trim_left: 0,
                trim_right: 0,
                blocks: None,
            };
            layers.push(Layer::ConvTranspose(up));
            layers.extend(self.chain(&mut channels.clone(), depth + 1, true)?);
            let padding = Padding { mode: PadMode::Zero, left: 0, right: 0, complete: false };
            layers.push(Layer::Conv(Conv {
                name: self.name()?,
                input: channels,
                output: channels,
                kernel: stride,
                stride,
                dilation: 1,
                groups: 1,
                bias: false,
                padding,
                int8: None,
            }));
        }
        Ok(layers)
    }

    fn conv(&mut self, channels: &mut u32, output: u32, keep: bool) -> Result<Conv> {
        let c = *channels;
        let (kernel, dilation) = (self.number(1, 5)?, self.number(1, 3)?);
        let stride = if keep { 1 } else { self.number(1, 4)? };
        let total = kernel.wrapping_sub(1).wrapping_mul(dilation).wrapping_add(1).wrapping_sub(stride);
        let total = if total > 1 << 20 { 0 } else { total };
        let left = if self.yes()? { total } else { self.number(0, total)? };
        let right = if keep || self.yes()? { total.saturating_sub(left) } else { self.number(0, 4)? };
        *channels = output;
        Ok(Conv {
            name: self.name()?,
            input: c,
            output,
            kernel,
            stride,
            dilation,
            groups: if c == output && self.bytes.ratio(1, 4)? { c } else { 1 },
            bias: self.yes()?,
            padding: Padding {
                mode: *self.bytes.choose(&[PadMode::Zero, PadMode::Reflect, PadMode::Replicate])?,
                left,
                right,
                complete: self.yes()?,
            },
            int8: match self.bytes.ratio(1, 8)? {
                false => None,
                true => Some(Int8 { input: self.grid()?, output: self.grid()? }),
            },
        })
    }

    pub fn quantizer(&mut self, dim: u32, depth: u32) -> Result<Quantizer> {
        self.left = self.left.saturating_sub(1);
        Ok(match self.bytes.int_in_range(0..=9)? {
            1 | 2 if depth < 3 => {
                let (inside, project) = self.inside(dim)?;
                let mut stages = Vec::new();
                for _ in 0..self.number(1, 4)?.min(6) {
                    stages.push(self.quantizer(inside, depth + 1)?);
                }
                Quantizer::Residual {
                    stages,
                    project_in: if project { Some(self.linear(dim, inside)?) } else { None },
                    project_out: if project { Some(self.linear(inside, dim)?) } else { None },
                    rounding: if self.yes()? { ResidualRounding::Plain } else { ResidualRounding::StraightThrough },
                }
            }
            3 if depth < 3 && dim.is_multiple_of(2) => Quantizer::Grouped {
                groups: vec![self.quantizer(dim / 2, depth + 1)?, self.quantizer(dim / 2, depth + 1)?],
            },
            4 if depth < 3 => {
                Quantizer::Split { parts: vec![self.quantizer(dim, depth + 1)?, self.quantizer(dim, depth + 1)?] }
            }
            5 if depth < 3 => {
                let stride = *self.bytes.choose(&[1, 2, 4, 3, 1024, u32::MAX])?;
                Quantizer::Rated { stride, inner: Box::new(self.quantizer(dim, 9)?) }
            }
            6 => {
                let (inside, project) = self.inside(dim)?;
                let mut levels = Vec::new();
                for _ in 0..inside.min(8) {
                    levels.push(self.number(2, 5)?);
                }
                Quantizer::Fsq(Fsq {
                    levels,
                    bound: if self.yes()? { FsqBound::Tanh } else { FsqBound::Symmetric },
                    stages: self.number(1, 2)?,
                    soft_clamp: self.bytes.ratio(1, 4)?,
                    margin: if self.wild && self.yes()? { self.float()? } else { 1e-3 },
                    project_in: if project { Some(self.linear(dim, inside)?) } else { None },
                    project_out: if project { Some(self.linear(inside, dim)?) } else { None },
                })
            }
            7 => Quantizer::Lfq { bits: dim, codebooks: self.number(1, 1)?, project_in: None, project_out: None },
            8 => Quantizer::Mvq {
                name: self.name()?,
                dim,
                codebooks: *self.bytes.choose(&[1, 2, 4, 8])?,
                size: self.number(1, 20)?,
                refinements: self.number(0, 3)?,
            },
            9 => Quantizer::RandomProjection {
                name: self.name()?,
                input: dim,
                dim: self.number(1, 4)?,
                size: self.number(1, 20)?,
            },
            _ => {
                let (inside, project) = self.inside(dim)?;
                Quantizer::Vq(Vq {
                    name: self.name()?,
                    size: self.number(1, 20)?,
                    dim: inside,
                    metric: *self.bytes.choose(&[Metric::Euclidean, Metric::EuclideanDirect, Metric::Cosine])?,
                    project_in: if project { Some(Box::new(self.linear(dim, inside)?)) } else { None },
                    project_out: if project { Some(Box::new(self.linear(inside, dim)?)) } else { None },
                })
            }
        })
    }

    fn inside(&mut self, dim: u32) -> Result<(u32, bool)> {
        Ok(if self.yes()? { (dim, false) } else { (self.number(1, 4)?, true) })
    }
}

/// Output rows a row of layers, as a fraction, if they are a plain chain.
fn rate(layers: &[Layer]) -> (u64, u64) {
    layers.iter().fold((1, 1), |(up, down), layer| match layer {
        Layer::Conv(l) => (up, down.saturating_mul(l.stride.into())),
        Layer::ConvTranspose(l) => (up.saturating_mul(l.stride.into()), down),
        Layer::Istft(l) => (up.saturating_mul(l.hop.into()), down),
        Layer::LogMel(l) => (up, down.saturating_mul(l.hop.into())),
        Layer::Stft(l) => (up, down.saturating_mul(l.hop.into())),
        _ => (up, down),
    })
}

fn strides(q: &Quantizer) -> u64 {
    match q {
        Quantizer::Rated { stride, .. } => u64::from(*stride),
        Quantizer::Residual { stages: parts, .. }
        | Quantizer::Split { parts }
        | Quantizer::Grouped { groups: parts } => parts.iter().map(strides).max().unwrap_or(1),
        _ => 1,
    }
}

/// A spec of an encoder or of a decoder: their hops seldom agree by chance.
pub fn grow(bytes: &mut Unstructured<'_>) -> Result<CodecSpec> {
    let wild = bytes.ratio(1, 3)?;
    let mut g = Grower { bytes, names: 0, left: 24, wild };
    let first = g.number(1, 3)?;
    let mut last = first;
    let layers = g.chain(&mut last, 0, false)?;
    let encodes = g.yes()?;
    let (channels, latent) = if encodes { (first, last) } else { (last, first) };
    let quantizer = g.quantizer(latent, 0)?;
    let (up, down) = rate(&layers);
    let hop = if encodes { down / up.max(1) } else { up / down.max(1) }.max(1).saturating_mul(strides(&quantizer));
    let framing = match g.bytes.ratio(1, 4)? {
        false => Framing::Stream,
        true => Framing::Segments { length: g.number(1, 60)?, stride: g.number(1, 60)?, normalize: g.yes()? },
    };
    let (encoder, decoder) = if encodes { (Some(layers), None) } else { (None, Some(layers)) };
    Ok(CodecSpec {
        version: SPEC_VERSION,
        name: "grown".into(),
        sample_rate: g.number(100, 48000)?,
        channels,
        hop: hop.min(u32::MAX.into()) as u32,
        latent,
        framing,
        codebook_choices: Vec::new(),
        encoder,
        quantizer,
        decoder,
    })
}
