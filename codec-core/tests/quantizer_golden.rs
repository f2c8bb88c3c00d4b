//! Quantizers by themselves against the published implementations, token for token.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/quantizer.rs"]
mod support;

use codec_core::quantizer::Quantizer;
use codec_core::spec::{self, Fsq, FsqBound, ResidualRounding};
use golden::{Case, TensorMap, assert_close, assert_codes};
use support::{decode, encode, linear, prefix, residual_vq};

fn load(name: &str) -> Case {
    Case::load(&golden::committed(), name)
}

/// All codes equal, greedy, for every prefix; the output of the stored codes within ten times the peer's own
/// f32 error (`output_f32_f64`).
fn check(case: &Case, spec: &spec::Quantizer, tensors: &TensorMap) {
    let q = Quantizer::new(spec, tensors).expect("a valid quantizer");
    let (input, codes) = (case.array("input").f32(), case.array("codes").codes());
    let n = q.codebooks();
    for count in 1..=n {
        assert_codes("codes", &encode(&q, input, count, 1), &prefix(&codes, n, count), count);
    }
    if q.can_decode() {
        let out = decode(&q, &codes, n);
        assert_close("output", &out, case.array("output").f32(), 10.0 * case.measured("output_f32_f64"));
    }
}

fn fsq(bound: FsqBound, stages: u32) -> Fsq {
    Fsq {
        levels: vec![8, 5, 5, 5],
        bound,
        stages,
        soft_clamp: false,
        margin: 1e-3,
        project_in: None,
        project_out: None,
    }
}

#[test]
fn fsq_8_5_5_5() {
    let case = load("fsq_8_5_5_5");
    check(&case, &spec::Quantizer::Fsq(fsq(FsqBound::Tanh, 1)), &case.tensors());
}

#[test]
fn fsq_projected() {
    let case = load("fsq_projected");
    let spec = Fsq {
        project_in: Some(linear("project_in", 24, 4, true)),
        project_out: Some(linear("project_out", 4, 24, true)),
        ..fsq(FsqBound::Tanh, 1)
    };
    check(&case, &spec::Quantizer::Fsq(spec), &case.tensors());
}

#[test]
fn residual_fsq() {
    let case = load("residual_fsq");
    let spec = Fsq {
        soft_clamp: true,
        project_in: Some(linear("project_in", 16, 4, true)),
        project_out: Some(linear("project_out", 4, 16, true)),
        ..fsq(FsqBound::Symmetric, 4)
    };
    check(&case, &spec::Quantizer::Fsq(spec), &case.tensors());
}

#[test]
fn lfq() {
    let case = load("lfq");
    let spec = spec::Quantizer::Lfq { bits: 12, codebooks: 1, project_in: None, project_out: None };
    check(&case, &spec, &case.tensors());
}

#[test]
fn lfq_projected() {
    let case = load("lfq_projected");
    let spec = spec::Quantizer::Lfq {
        bits: 12,
        codebooks: 2,
        project_in: Some(linear("project_in", 32, 24, true)),
        project_out: Some(linear("project_out", 24, 32, true)),
    };
    check(&case, &spec, &case.tensors());
}

fn codebooks(case: &Case, count: u32, size: usize, dim: usize) -> TensorMap {
    let mut tensors = case.tensors();
    for i in 0..count {
        tensors.rename(&format!("layers.{i}._codebook.embed"), &format!("layers.{i}.codebook"), &[size, dim]);
    }
    tensors
}

#[test]
fn residual_vq_plain() {
    let case = load("residual_vq");
    check(&case, &residual_vq("layers", 6, 256, 64), &codebooks(&case, 6, 256, 64));
}

#[test]
fn residual_vq_projected() {
    let case = load("residual_vq_projected");
    let spec = spec::Quantizer::Residual {
        stages: (0..4).map(|i| support::vq(&format!("layers.{i}"), 128, 32)).collect(),
        project_in: Some(linear("project_in", 96, 32, true)),
        project_out: Some(linear("project_out", 32, 96, true)),
        rounding: ResidualRounding::Plain,
    };
    check(&case, &spec, &codebooks(&case, 4, 128, 32));
}

#[test]
fn random_projection() {
    let case = load("random_projection");
    let mut tensors = case.tensors();
    tensors.rename("rand_projs", "rq.projection", &[80, 16]);
    tensors.rename("vq._codebook.embed", "rq.codebook", &[1024, 16]);
    let spec = spec::Quantizer::RandomProjection { name: "rq".into(), input: 80, dim: 16, size: 1024 };
    check(&case, &spec, &tensors);
    assert!(!Quantizer::new(&spec, &tensors).unwrap().can_decode());
}

/// Codes after 0, 1 and 5 refinements, and the centers' sum.
fn check_mvq(name: &str, dim: u32, codebooks: u32, size: u32) {
    let case = load(name);
    let mut tensors = case.tensors();
    let scaled = |tensors: &mut TensorMap, name: &str, shape: &[u32], scale: &str| {
        let factor = (10.0 * tensors.values(scale)[0]).exp();
        let values: Vec<f32> = tensors.values(name).iter().map(|v| v * factor).collect();
        let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        tensors.insert(&format!("mvq.{name}"), &shape, &values);
    };
    scaled(&mut tensors, "centers", &[codebooks, size, dim], "centers_scale");
    scaled(&mut tensors, "to_logits.weight", &[codebooks * size, dim], "logits_scale");
    tensors.rename("to_logits.bias", "mvq.to_logits.bias", &[(codebooks * size) as usize]);
    for refinements in [0, 1, 5] {
        let spec = spec::Quantizer::Mvq { name: "mvq".into(), dim, codebooks, size, refinements };
        let q = Quantizer::new(&spec, &tensors).unwrap();
        let expected = case.array(&format!("codes_refine{refinements}")).codes();
        let n = codebooks as usize;
        let what = format!("{refinements} refinements");
        assert_codes(&what, &encode(&q, case.array("input").f32(), n, 1), &expected, n);
        assert_codes(&what, &encode(&q, case.array("input").f32(), 3, 1), &prefix(&expected, n, 3), 3);
        if refinements == 5 {
            let out = decode(&q, &expected, n);
            assert_close("decoded", &out, case.array("decoded").f32(), 10.0 * case.measured("decoded_f32_f64"));
        }
    }
}

#[test]
fn mvq_8x16() {
    check_mvq("mvq_8x16", 64, 8, 16);
}

#[test]
fn mvq_16x256() {
    check_mvq("mvq_16x256", 256, 16, 256);
}
