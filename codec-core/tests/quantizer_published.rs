//! The quantizers of published codecs, on latents that their networks made: token for token.
//! The cases lie outside of the repository; without them these tests say that they are skipped.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/quantizer.rs"]
mod support;

use codec_core::quantizer::Quantizer;
use codec_core::spec::{self, Fsq, FsqBound, Linear, Metric, ResidualRounding, Vq};
use golden::{Case, TensorMap, assert_close, assert_codes};
use support::{compute, decode, encode, linear, prefix, residual, residual_vq, vq};

/// Greedy codes of `latent` for the counts that are stored as arrays, and `dequant` from the last of them.
fn check(case: &Case, q: &Quantizer, arrays: &[&str]) {
    let latent = case.array("latent").channels_last();
    for name in arrays {
        let codes = case.array(name);
        let count = codes.shape[0];
        assert_codes(name, &encode(q, &latent, count, 1), &codes.codes_by_frame(), count);
    }
    let codes = case.array(arrays[arrays.len() - 1]);
    let out = decode(q, &codes.codes_by_frame(), codes.shape[0]);
    let expected = case.array("dequant").channels_last();
    assert_close("dequant", &out, &expected, 10.0 * case.measured("latent_f32_f64"));
}

/// Beam search loses to greedy in no frame and wins in some, by the error of the decoded latent (up to the rounding of the two sums).
fn check_beam(case: &Case, q: &Quantizer, codebooks: usize) {
    let latent = case.array("latent").channels_last();
    let error = |beam| {
        let out = decode(q, &encode(q, &latent, codebooks, beam), codebooks);
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let rows = latent.chunks_exact(q.dim()).zip(out.chunks_exact(q.dim()));
        rows.map(|(x, y)| x.iter().zip(y).map(square).sum()).collect::<Vec<f64>>()
    };
    let (greedy, beam) = (error(1), error(4));
    for (g, b) in greedy.iter().zip(&beam) {
        assert!(*b <= g * (1.0 + 1e-4), "{b} after {g}");
    }
    let ratio = beam.iter().sum::<f64>() / greedy.iter().sum::<f64>();
    println!("squared error with beam 4 against greedy: {ratio}");
    assert!(ratio < 1.0, "a wider beam finds nothing better");
}

fn seanet(name: &str, books: u32, dim: u32, arrays: &[&str]) {
    let folder = golden::committed();
    let case = Case::load(&folder, name);
    let mut tensors = case.tensors_where(|n| n.ends_with("._codebook.embed"));
    for i in 0..books {
        let from = format!("quantizer.vq.layers.{i}._codebook.embed");
        tensors.rename(&from, &format!("vq.{i}.codebook"), &[1024, dim as usize]);
    }
    let q = Quantizer::new(&residual_vq("vq", books, 1024, dim), &tensors).unwrap();
    assert_eq!(q.bits_per_frame(q.codebooks()), 10 * books);
    check(&case, &q, arrays);
    check_beam(&case, &q, 8);
}

#[test]
fn encodec_24khz() {
    seanet("encodec_24khz", 32, 128, &["codes_6kbps", "codes_24kbps"]);
}

#[test]
fn academicodec_encodec_16k_320d() {
    seanet("academicodec_encodec_16k_320d", 24, 512, &["codes_2kbps", "codes_12kbps"]);
}

#[test]
fn speechtokenizer() {
    seanet("speechtokenizer_hubert_avg", 8, 1024, &["codes"]);
}

#[test]
fn hificodec() {
    for name in ["hificodec_16k_320d", "hificodec_24k_240d", "hificodec_24k_320d"] {
        let folder = golden::committed();
        let case = Case::load(&folder, name);
        let mut tensors = case.tensors_where(|n| n.starts_with("quantizer."));
        let stage = |s: usize| {
            let groups = (0..2).map(|g| vq(&format!("vq.{s}.{g}"), 1024, 256)).collect();
            spec::Quantizer::Grouped { groups }
        };
        for g in 0..2 {
            for (s, module) in ["quantizer_modules", "quantizer_modules2"].iter().enumerate() {
                let from = format!("quantizer.{module}.{g}.embedding.weight");
                tensors.rename(&from, &format!("vq.{s}.{g}.codebook"), &[1024, 256]);
            }
        }
        let q = Quantizer::new(&residual(vec![stage(0), stage(1)]), &tensors).unwrap();
        check(&case, &q, &["codes"]);
        check_beam(&case, &q, 4);
    }
}

fn dac(case: &Case, books: u32, latent: u32) -> Quantizer {
    let mut tensors = case.tensors_where(|n| n.starts_with("quantizer."));
    let stage = |i| {
        let boxed = |name: &str, input, output| Some(Box::new(linear(&format!("vq.{i}.{name}"), input, output, true)));
        spec::Quantizer::Vq(Vq {
            name: format!("vq.{i}"),
            size: 1024,
            dim: 8,
            metric: Metric::Cosine,
            project_in: boxed("in_proj", latent, 8),
            project_out: boxed("out_proj", 8, latent),
        })
    };
    for i in 0..books {
        let from = format!("quantizer.quantizers.{i}");
        tensors.rename(&format!("{from}.codebook.weight"), &format!("vq.{i}.codebook"), &[1024, 8]);
        for (side, output, input) in [("in_proj", 8, latent as usize), ("out_proj", latent as usize, 8)] {
            let part = |p: &str| format!("{from}.{side}.{p}");
            tensors.rename(&part("bias"), &format!("vq.{i}.{side}.bias"), &[output]);
            let weight = format!("vq.{i}.{side}.weight");
            tensors.fold_weight_norm(&part("weight_g"), &part("weight_v"), &weight, &[output, input]);
        }
    }
    Quantizer::new(&residual((0..books).map(stage).collect()), &tensors).unwrap()
}

#[test]
fn dac_all_rates() {
    for (name, books) in [("dac_16khz", 12), ("dac_24khz", 32), ("dac_44khz", 9)] {
        let folder = golden::committed();
        let case = Case::load(&folder, name);
        let q = dac(&case, books, 1024);
        check(&case, &q, &["codes"]);
        check_beam(&case, &q, books as usize);
    }
}

/// Codes of levels of several rates to frames: a frame is what one code of the first level stands for.
fn snac_frames(case: &Case, array: &str, levels: usize) -> Vec<u16> {
    let levels: Vec<Vec<u16>> = (0..levels).map(|i| case.array(&format!("{array}_{i}")).codes()).collect();
    let frames = levels[0].len();
    let steps = |level: &Vec<u16>| level.len() / frames;
    (0..frames).flat_map(|f| levels.iter().flat_map(move |l| l[f * steps(l)..][..steps(l)].to_vec())).collect()
}

#[test]
fn snac_levels_of_all_rates() {
    for (name, latent, strides) in [("snac_24khz", 768, &[4, 2, 1][..]), ("snac_44khz", 1024, &[8, 4, 2, 1])] {
        let folder = golden::committed();
        let case = Case::load(&folder, name);
        let mut tensors = case.tensors_where(|n| n.starts_with("quantizer."));
        let level = |(i, &stride): (usize, &u32)| {
            let boxed =
                |side: &str, input, output| Some(Box::new(linear(&format!("vq.{i}.{side}"), input, output, true)));
            let from = format!("quantizer.quantizers.{i}");
            tensors.rename(&format!("{from}.codebook.weight"), &format!("vq.{i}.codebook"), &[4096, 8]);
            for (side, output, input) in [("in_proj", 8, latent as usize), ("out_proj", latent as usize, 8)] {
                let part = |p: &str| format!("{from}.{side}.parametrizations.weight.original{p}");
                tensors.rename(&format!("{from}.{side}.bias"), &format!("vq.{i}.{side}.bias"), &[output]);
                tensors.fold_weight_norm(&part("0"), &part("1"), &format!("vq.{i}.{side}.weight"), &[output, input]);
            }
            spec::Quantizer::Rated {
                stride,
                inner: Box::new(spec::Quantizer::Vq(Vq {
                    name: format!("vq.{i}"),
                    size: 4096,
                    dim: 8,
                    metric: Metric::Cosine,
                    project_in: boxed("in_proj", latent, 8),
                    project_out: boxed("out_proj", 8, latent),
                })),
            }
        };
        let spec = residual(strides.iter().enumerate().map(level).collect());
        let q = Quantizer::new(&spec, &tensors).unwrap();
        let all = 2 * strides[0] as usize - 1;
        assert_eq!((q.rows_per_frame(), q.codebooks()), (strides[0] as usize, all));
        assert_eq!(q.bits_per_frame(all), 12 * all as u32);

        let latents = case.array("latent").channels_last();
        let expected = snac_frames(&case, "codes", strides.len());
        let mut count = 0;
        for stride in strides {
            count += (strides[0] / stride) as usize;
            let codes = encode(&q, &latents, count, 1);
            assert_codes(&format!("{name}, {count} codes a frame"), &codes, &prefix(&expected, all, count), count);
        }
        let tolerance = 10.0 * case.measured("latent_f32_f64");
        assert_close("dequant", &decode(&q, &expected, all), &case.array("dequant").channels_last(), tolerance);
    }
}

#[test]
fn mimi() {
    let folder = golden::committed();
    let case = Case::load(&folder, "mimi");
    let mut tensors = case.tensors_where(|n| n.starts_with("quantizer."));
    let mut part = |name: &str, books: u32| {
        let from = format!("quantizer.{name}_residual_vector_quantizer");
        for i in 0..books {
            let layer = format!("{from}.layers.{i}.codebook");
            let usage = tensors.values(&format!("{layer}.cluster_usage"));
            let sums = tensors.values(&format!("{layer}.embed_sum"));
            let rows = sums.chunks_exact(256).zip(&usage);
            let entries: Vec<f32> = rows.flat_map(|(e, u)| e.iter().map(move |e| e / u.max(1e-5))).collect();
            tensors.insert(&format!("{name}.{i}.codebook"), &[2048, 256], &entries);
        }
        let mut projection = |side: &str, output: usize, input: usize| -> Option<Linear> {
            tensors.rename(&format!("{from}.{side}.weight"), &format!("{name}.{side}.weight"), &[output, input]);
            Some(linear(&format!("{name}.{side}"), input as u32, output as u32, false))
        };
        spec::Quantizer::Residual {
            stages: (0..books).map(|i| vq(&format!("{name}.{i}"), 2048, 256)).collect(),
            project_in: projection("input_proj", 256, 512),
            project_out: projection("output_proj", 512, 256),
            rounding: ResidualRounding::Plain,
        }
    };
    let spec = spec::Quantizer::Split { parts: vec![part("semantic", 1), part("acoustic", 31)] };
    let q = Quantizer::new(&spec, &tensors).unwrap();
    let latent = case.array("latent").channels_last();
    for count in [8, 32] {
        let codes = case.array(&format!("codes_nq{count}")).codes_by_frame();
        assert_codes("codes", &encode(&q, &latent, count, 1), &codes, count);
    }
    let tolerance = 10.0 * case.measured("latent_f32_f64");
    let codes = case.array("codes_nq32").codes_by_frame();
    let expected = case.array("dequant").channels_last();
    assert_close("dequant", &decode(&q, &codes, 32), &expected, tolerance);

    // Parts by themselves add up.
    let frames = codes.len() / 32;
    let range = |first: usize, count: usize| {
        let codes: Vec<u16> = codes.chunks_exact(32).flat_map(|f| &f[first..first + count]).copied().collect();
        let (mut out, mut scratch) = (vec![0.0; frames * 512], vec![0.0; q.scratch_len(frames, 1)]);
        q.decode_range(compute(), &codes, frames, first, count, &mut out, &mut scratch).unwrap();
        out
    };
    let sum: Vec<f32> = range(0, 1).iter().zip(range(1, 31)).map(|(a, b)| a + b).collect();
    assert_close("semantic and acoustic", &sum, &expected, tolerance);
    assert_eq!(range(0, 8), decode(&q, &prefix(&codes, 32, 8), 8));
}

#[test]
fn s3tokenizer() {
    let folder = golden::committed();
    let case = Case::load(&folder, "s3tokenizer_v2_25hz");
    let mut tensors: TensorMap = case.tensors_where(|n| n.starts_with("quantizer._codebook"));
    tensors.rename("quantizer._codebook.project_down.weight", "down.weight", &[8, 1280]);
    tensors.rename("quantizer._codebook.project_down.bias", "down.bias", &[8]);
    let spec = spec::Quantizer::Fsq(Fsq {
        levels: vec![3; 8],
        bound: FsqBound::Tanh,
        stages: 1,
        soft_clamp: false,
        margin: -1e-3,
        project_in: Some(linear("down", 1280, 8, true)),
        project_out: None,
    });
    let q = Quantizer::new(&spec, &tensors).unwrap();
    assert!(!q.can_decode());
    assert_eq!(q.sizes(), [6561]);
    assert_codes("codes", &encode(&q, case.array("hidden").f32(), 1, 1), &case.array("codes").codes(), 1);
}
