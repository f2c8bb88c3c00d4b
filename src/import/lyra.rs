//! Lyra v2 (SoundStream, Zeghidour et al. 2021, as Google published it): the exact mixed int8 graph, and the same
//! weights as real numbers.

use codec_core::{
    spec::{
        Activation, AddInt8, Blocks, BlocksInt8, CodecSpec, Conv, ConvTranspose, Framing, Grid, Int8, Layer, Metric,
        PadMode, Padding, Quantizer, Residual, ResidualRounding, SPEC_VERSION, Vq,
    },
    weights::Dtype,
};

use super::{
    ImportError, ModelParts, System,
    lyra_graph::{self, LayerData, Lyra},
    names,
};
use crate::{
    checkpoint::Checkpoint,
    model_file::{OwnedTensor, TensorMap},
};

const EXACT: &str = "lyra-v2";
const SLOPE: f32 = 0.3;
const HOP: u32 = 320;
const DILATIONS: [u32; 3] = [1, 3, 9];

pub(super) const SYSTEMS: &[System] = &[
    System { name: EXACT, hint: "", matches: |checkpoint, _| lyra_graph::looks_like(checkpoint), import },
    // The same files; it has to be asked for.
    System { name: "lyra-v2-float", hint: "", matches: |_, _| false, import },
];

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let mut lyra = lyra_graph::read(checkpoint, name)?;
    if name != EXACT {
        lyra.layers.values_mut().for_each(make_real);
    }
    let mut build = Builder { lyra: &lyra, name, tensors: TensorMap::default() };
    let (encoder, decoder) = (build.encoder()?, build.decoder()?);
    let mut stages = Vec::new();
    let mut latent = 0;
    for (n, book) in lyra.codebooks.iter().enumerate() {
        let [size, dim] = *book.shape.as_slice() else { return Err(build.error("a codebook that is not a matrix")) };
        let vq = Vq {
            name: format!("quantizer.{n}"),
            size: size as u32,
            dim: dim as u32,
            metric: Metric::EuclideanDirect,
            project_in: None,
            project_out: None,
        };
        latent = vq.dim;
        build.tensors.0.insert(format!("{}.codebook", vq.name), book.clone());
        stages.push(Quantizer::Vq(vq));
    }
    // 3.2, 6 and 9.2 kbit/s.
    let choices = [16, 30, 46].into_iter().filter(|n| *n <= stages.len() as u32).collect();
    let tensors = build.tensors;
    let spec = CodecSpec {
        version: SPEC_VERSION,
        name: name.to_owned(),
        sample_rate: 16_000,
        channels: 1,
        hop: HOP,
        latent,
        framing: Framing::Stream,
        codebook_choices: choices,
        encoder: Some(encoder),
        quantizer: Quantizer::Residual {
            stages,
            project_in: None,
            project_out: None,
            rounding: ResidualRounding::StraightThrough,
        },
        decoder: Some(decoder),
    };
    names::check(name, &spec, &tensors)?;
    Ok((spec, tensors))
}

/// Turns an int8 layer into a real one: `q * scale`, a step an output channel or a group; the bias `q * input * scale`.
fn make_real(layer: &mut LayerData) {
    let (Some(weight), Some(bias), Some(input)) = (&mut layer.weight, &mut layer.bias, layer.input.take()) else {
        return;
    };
    let scales = std::mem::take(&mut layer.weight_scale);
    let per_scale = (weight.bytes.len() / scales.len().max(1)).max(1);
    let values: Vec<f32> = weight
        .bytes
        .chunks(per_scale)
        .zip(&scales)
        .flat_map(|(rows, scale)| rows.iter().map(move |q| f32::from(*q as i8) * scale))
        .collect();
    let per_scale = (bias.bytes.len() / 4 / scales.len().max(1)).max(1);
    let biases: Vec<f32> = bias
        .bytes
        .as_chunks::<4>()
        .0
        .chunks(per_scale)
        .zip(&scales)
        .flat_map(|(rows, scale)| rows.iter().map(move |q| i32::from_le_bytes(*q) as f32 * (input.scale * scale)))
        .collect();
    *weight = OwnedTensor::f32(&weight.shape, &values);
    *bias = OwnedTensor::f32(&bias.shape, &biases);
    layer.outputs.clear();
    layer.state_bias.clear();
}

/// What a chain of layers carries.
#[derive(Clone, Copy)]
enum Carried {
    Real,
    Int8(Grid),
}

struct Builder<'a> {
    lyra: &'a Lyra,
    name: &'a str,
    tensors: TensorMap,
}

impl Builder<'_> {
    fn error(&self, reason: impl Into<String>) -> ImportError {
        let file = "lyra_v2".to_owned();
        ImportError::Graph { system: self.name.to_owned(), file, reason: reason.into() }
    }

    fn layer(&self, name: &str) -> Result<&LayerData, ImportError> {
        self.lyra.layers.get(name).ok_or_else(|| self.error(format!("it has no {name}")))
    }

    fn grid(&self, name: &str) -> Result<Grid, ImportError> {
        self.lyra.grids.get(name).copied().ok_or_else(|| self.error(format!("no int8 grid for {name}")))
    }

    fn encoder(&mut self) -> Result<Vec<Layer>, ImportError> {
        let mut layers = vec![Layer::PadEnd { multiple: HOP }];
        let mut carried = self.conv(&mut layers, Carried::Real, "encoder.conv_in", 16, 1)?;
        for (stage, stride) in [5, 2, 2].into_iter().enumerate() {
            carried = self.units(&mut layers, carried, &format!("encoder.stage{stage}"))?;
            let down = format!("encoder.stage{stage}.down");
            carried = self.leaky(&mut layers, carried, &down)?;
            carried = self.conv(&mut layers, carried, &down, stride, 1)?;
        }
        carried = self.leaky(&mut layers, carried, "encoder.conv_out")?;
        carried = self.conv(&mut layers, carried, "encoder.conv_out", 1, 1)?;
        real(&mut layers, carried);
        Ok(layers)
    }

    fn decoder(&mut self) -> Result<Vec<Layer>, ImportError> {
        let mut layers = Vec::new();
        let mut carried = self.conv(&mut layers, Carried::Real, "decoder.conv_in", 1, 1)?;
        // Rows of a 20 ms block, of which the published graph adds the overlaps.
        let mut rows = 1;
        for (stage, stride) in [2, 2, 5].into_iter().enumerate() {
            carried = self.up(&mut layers, carried, &format!("decoder.stage{stage}.up"), stride, rows)?;
            rows *= stride;
            carried = self.units(&mut layers, carried, &format!("decoder.stage{stage}"))?;
        }
        self.up(&mut layers, carried, "decoder.conv_out", 16, rows)?;
        Ok(layers)
    }

    fn units(&mut self, layers: &mut Vec<Layer>, mut carried: Carried, stage: &str) -> Result<Carried, ImportError> {
        for (unit, dilation) in DILATIONS.into_iter().enumerate() {
            let name = format!("{stage}.unit{unit}");
            let (depthwise, conv1, conv2) =
                (format!("{name}.depthwise"), format!("{name}.conv1"), format!("{name}.conv2"));
            let mut body = Vec::new();
            let mut inner = self.leaky(&mut body, carried, &depthwise)?;
            inner = self.conv(&mut body, inner, &depthwise, 1, dilation)?;
            inner = self.conv(&mut body, inner, &conv1, 1, 1)?;
            if let (Carried::Real, Some(_)) = (inner, self.layer(&conv2)?.input) {
                // The one place where a real result is quantised before its activation.
                let grid = self.grid(&format!("{conv1}.later"))?;
                body.push(Layer::Quantize { grid });
                inner = Carried::Int8(grid);
            }
            inner = self.leaky(&mut body, inner, &conv2)?;
            inner = self.conv(&mut body, inner, &conv2, 1, 1)?;
            carried = match (inner, carried) {
                (Carried::Int8(body_grid), Carried::Int8(shortcut)) => {
                    let output = self.grid(&format!("{name}.add"))?;
                    let int8 = Some(AddInt8 { body: body_grid, shortcut, output });
                    layers.push(Layer::Residual(Residual { body, shortcut: Vec::new(), int8 }));
                    Carried::Int8(output)
                }
                (inner, Carried::Real) => {
                    real(&mut body, inner);
                    layers.push(Layer::Residual(Residual { body, shortcut: Vec::new(), int8: None }));
                    match inner {
                        Carried::Real => Carried::Real,
                        Carried::Int8(_) => {
                            let grid = self.grid(&format!("{name}.add"))?;
                            layers.push(Layer::Quantize { grid });
                            Carried::Int8(grid)
                        }
                    }
                }
                (Carried::Real, Carried::Int8(_)) => {
                    return Err(self.error(format!("{name} mixes int8 and real paths")));
                }
            };
        }
        Ok(carried)
    }

    /// An activation, onto the input grid of the layer that follows if that one is int8.
    fn leaky(&self, layers: &mut Vec<Layer>, carried: Carried, next: &str) -> Result<Carried, ImportError> {
        let grid = self.layer(next)?.input;
        match (carried, grid) {
            (Carried::Int8(input), Some(output)) => {
                layers.push(Layer::Activation(Activation::LeakyReluInt8 { slope: SLOPE, input, output }));
                Ok(Carried::Int8(output))
            }
            (Carried::Real, grid) => {
                layers.push(Layer::Activation(Activation::LeakyRelu { slope: SLOPE }));
                // Where the layer before was quantised after its result instead, its grid comes first.
                layers.extend(grid.map(|grid| Layer::Quantize { grid }));
                Ok(grid.map_or(Carried::Real, Carried::Int8))
            }
            (Carried::Int8(_), None) => Err(self.error(format!("{next} is real behind an int8 layer"))),
        }
    }

    fn conv(
        &mut self,
        layers: &mut Vec<Layer>,
        carried: Carried,
        name: &str,
        stride: u32,
        dilation: u32,
    ) -> Result<Carried, ImportError> {
        let data = self.layer(name)?.clone();
        let [output, width, kernel] = self.sizes(name, &data)?;
        let input = match channels(layers) {
            Some(input) => input,
            None => self.channels_before(name)?,
        };
        let groups = input / width;
        let int8 = match (carried, data.input, data.outputs.first()) {
            (Carried::Int8(carried), Some(input), Some(output)) if carried == input => {
                Some(Int8 { input, output: *output })
            }
            (Carried::Real, None, None) => None,
            _ => return Err(self.error(format!("{name} does not get the int8 grid that it expects"))),
        };
        let bias = self.own(name, data);
        let conv = Conv {
            name: name.to_owned(),
            input,
            output,
            kernel,
            stride,
            dilation,
            groups,
            bias,
            padding: Padding {
                mode: PadMode::Zero,
                left: ((kernel - 1) * dilation).saturating_sub(stride - 1),
                right: 0,
                complete: false,
            },
            int8,
        };
        layers.push(Layer::Conv(conv));
        Ok(int8.map_or(Carried::Real, |int8| Carried::Int8(int8.output)))
    }

    /// An activation and a transposed convolution, whose result is real.
    fn up(
        &mut self,
        layers: &mut Vec<Layer>,
        carried: Carried,
        name: &str,
        stride: u32,
        rows: u32,
    ) -> Result<Carried, ImportError> {
        let carried = self.leaky(layers, carried, name)?;
        let data = self.layer(name)?.clone();
        let [input, width, kernel] = self.sizes(name, &data)?;
        let groups = data.bias.as_ref().map_or(1, |bias| (bias.bytes.len() / 4) as u32 / width);
        let int8 = match (carried, data.input) {
            (Carried::Int8(carried), Some(input)) if carried == input => {
                Some(BlocksInt8 { input, outputs: data.outputs.clone() })
            }
            (Carried::Real, None) => None,
            _ => return Err(self.error(format!("{name} does not get the int8 grid that it expects"))),
        };
        let bias = self.own(name, data);
        // Without int8 anywhere there is nothing to be exact to, and the plain form is faster.
        let blocks = (self.name == EXACT).then_some(Blocks { rows, int8 });
        layers.push(Layer::ConvTranspose(ConvTranspose {
            name: name.to_owned(),
            input,
            output: width.saturating_mul(groups),
            kernel,
            stride,
            groups,
            bias,
            trim_left: 0,
            trim_right: kernel.saturating_sub(stride) as i32,
            blocks,
        }));
        Ok(Carried::Real)
    }

    /// The sizes of a layer's weights.
    fn sizes(&self, name: &str, data: &LayerData) -> Result<[u32; 3], ImportError> {
        let shape = data.weight.as_ref().map(|weight| weight.shape.as_slice()).unwrap_or_default();
        match shape {
            [a, b, c] if shape.iter().all(|size| (1..=1 << 16).contains(size)) => Ok([*a as u32, *b as u32, *c as u32]),
            _ => Err(self.error(format!("{name} has weights of shape {shape:?}"))),
        }
    }

    /// Input channels of a convolution with no other before it in its chain.
    fn channels_before(&self, name: &str) -> Result<u32, ImportError> {
        let shape = |name: &str| Some(self.lyra.layers.get(name)?.weight.as_ref()?.shape.clone());
        // A depthwise convolution has as many inputs as outputs; the others at the start of a chain have one group.
        let found = match (name, shape(name).as_deref()) {
            ("encoder.conv_in", _) => Some(1),
            ("decoder.conv_in", _) => self.lyra.codebooks.first().and_then(|book| book.shape.get(1)).copied(),
            (_, Some([output, 1, _])) => Some(*output),
            _ => None,
        };
        found.map(|n| n as u32).ok_or_else(|| self.error(format!("{name} stands alone")))
    }

    /// Takes a layer's tensors; says whether it has a bias. A bias of zeros alone is none.
    fn own(&mut self, name: &str, data: LayerData) -> bool {
        let mut put = |part: &str, tensor: Option<OwnedTensor>| {
            self.tensors.0.extend(tensor.map(|tensor| (format!("{name}.{part}"), tensor)));
        };
        let vector = |values: &[f32]| (!values.is_empty()).then(|| OwnedTensor::f32(&[values.len()], values));
        let zero = |tensor: &OwnedTensor| {
            let sign_bit = if tensor.dtype == Dtype::F32 { 0x80 } else { 0 };
            tensor.bytes.iter().enumerate().all(|(at, b)| *b == 0 || at % 4 == 3 && *b == sign_bit)
        };
        let bias = data.bias.filter(|bias| !name.ends_with(".depthwise") || !zero(bias));
        let has_bias = bias.is_some();
        put("weight", data.weight);
        put("bias", bias);
        put("weight_scale", vector(&data.weight_scale));
        put("state_bias", vector(&data.state_bias));
        has_bias
    }
}

/// Appends what makes the result real.
fn real(layers: &mut Vec<Layer>, carried: Carried) {
    if let Carried::Int8(grid) = carried {
        layers.push(Layer::Dequantize { grid });
    }
}

/// Channels after the last layer of a chain that changes them.
fn channels(layers: &[Layer]) -> Option<u32> {
    layers.iter().rev().find_map(|layer| match layer {
        Layer::Conv(conv) => Some(conv.output),
        Layer::ConvTranspose(conv) => Some(conv.output),
        Layer::Residual(residual) => channels(&residual.body),
        _ => None,
    })
}
