//! S3Tokenizer v2 of CosyVoice 2 (Du et al. 2024): a speech recogniser's encoder that ends in finite scalar
//! quantisation. There is no decoder.

use codec_core::spec::{
    Activation, AttentionBias, CodecSpec, Conv, Framing, Fsmn, Fsq, FsqBound, Layer, Linear, LogMel, PadMode, Padding,
    Pairing, Quantizer, SPEC_VERSION, Span,
};

use super::{
    ModelParts, System,
    names::{NameMap, Source},
    transformer::Transformer,
};
use crate::checkpoint::Checkpoint;

pub(super) const SYSTEMS: &[System] = &[System { name: "s3tokenizer-v2-25hz", hint: "", matches, import }];

const MELS: u32 = 128;
const WIDTH: u32 = 1280;
const FSMN: Fsmn = Fsmn { kernel: 31, left: 15, right: 15 };
/// Channels that are rounded to three levels each: 6561 codes.
const LEVELS: u32 = 8;

fn source(checkpoint: &Checkpoint) -> Option<Source<'_>> {
    Source::find(checkpoint, "encoder.blocks.0.attn.fsmn_block.weight")
}

fn matches(checkpoint: &Checkpoint, _: &str) -> bool {
    source(checkpoint).is_some_and(|source| {
        source.shape("quantizer._codebook.project_down.weight") == Some(&[LEVELS as usize, WIDTH as usize])
            && source.shape("encoder.conv1.weight") == Some(&[WIDTH as usize, MELS as usize, 3])
    })
}

fn import(checkpoint: &Checkpoint, name: &str) -> ModelParts {
    let source = source(checkpoint).unwrap_or_else(|| Source::whole(checkpoint));
    let layers = source.count("encoder.blocks.", ".attn.fsmn_block.weight").max(1) as u32;
    let spec = spec(name, layers);
    let tensors = source.tensors(name, &spec, &names(layers))?;
    Ok((spec, tensors))
}

fn spec(name: &str, layers: u32) -> CodecSpec {
    let transformer = Transformer {
        channels: WIDTH,
        heads: 20,
        head_dim: 64,
        hidden: 4 * WIDTH,
        layers,
        epsilon: 1e-5,
        theta: 10_000.0,
        pairing: Pairing::Halves,
        span: Span::Full,
        bias: AttentionBias { q: true, k: false, v: true, out: true },
        linear_bias: true,
        memory: Some(FSMN),
        scale: false,
    };
    let mel = LogMel { sample_rate: 16_000, n_fft: 400, hop: 160, mels: MELS };
    let mut encoder = vec![Layer::LogMel(mel)];
    for (stage, input) in [MELS, WIDTH].into_iter().enumerate() {
        encoder.push(Layer::Conv(Conv {
            name: format!("encoder.conv_in{stage}"),
            input,
            output: WIDTH,
            kernel: 3,
            stride: 2,
            dilation: 1,
            groups: 1,
            bias: true,
            padding: Padding { mode: PadMode::Zero, left: 1, right: 1, complete: false },
            int8: None,
        }));
        encoder.push(Layer::Activation(Activation::Gelu));
    }
    encoder.extend(transformer.layers("encoder.transformer"));
    CodecSpec {
        version: SPEC_VERSION,
        name: name.to_owned(),
        sample_rate: mel.sample_rate,
        channels: 1,
        hop: 4 * mel.hop,
        latent: WIDTH,
        // The package's windows of 30 s, of which two share 4 s.
        framing: Framing::Windows { length: 30 * mel.sample_rate, stride: 26 * mel.sample_rate },
        codebook_choices: vec![1],
        encoder: Some(encoder),
        quantizer: Quantizer::Fsq(Fsq {
            levels: vec![3; LEVELS as usize],
            bound: FsqBound::Tanh,
            stages: 1,
            soft_clamp: false,
            // The published constant 0.9990000128746033 is the f32 nearest to 0.999.
            margin: -0.001,
            project_in: Some(Linear {
                name: "quantizer.0.project_in".into(),
                input: WIDTH,
                output: LEVELS,
                bias: true,
            }),
            project_out: None,
        }),
        decoder: None,
    }
}

fn names(layers: u32) -> NameMap {
    let mut names = NameMap::new("");
    names.add("encoder.conv_in0", "encoder.conv1");
    names.add("encoder.conv_in1", "encoder.conv2");
    for layer in 0..layers {
        let (ours, theirs) = (format!("encoder.transformer.layer{layer}"), format!("encoder.blocks.{layer}"));
        for (part, original) in [
            ("norm1", "attn_ln"),
            ("norm2", "mlp_ln"),
            ("linear1", "mlp.0"),
            ("linear2", "mlp.2"),
            ("attention.q", "attn.query"),
            ("attention.k", "attn.key"),
            ("attention.v", "attn.value"),
            ("attention.out", "attn.out"),
            ("attention.memory", "attn.fsmn_block"),
        ] {
            names.add(format!("{ours}.{part}"), format!("{theirs}.{original}"));
        }
    }
    names.add("quantizer.0.project_in", "quantizer._codebook.project_down");
    names
}
