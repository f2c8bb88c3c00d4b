//! What holds for every quantizer, published or not.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/quantizer.rs"]
mod support;

use codec_core::bitstream::CodeGroup;
use codec_core::quantizer::{MAX_BEAM, Quantizer};
use codec_core::spec::{self, Fsq, FsqBound, Metric, Quantizer as Spec, ResidualRounding, Vq};
use codec_core::{BuildError, RunError};
use golden::{TensorMap, uniform};
use proptest::prelude::*;
use support::{compute, decode, encode, frame_len, linear, prefix, residual, residual_vq, vq};

/// Every tensor that `spec` asks for, with entries of stage `i` scaled by `0.7^i`.
fn tensors(spec: &Spec) -> TensorMap {
    fn dense(map: &mut TensorMap, l: &spec::Linear) {
        let (input, output) = (l.input as usize, l.output as usize);
        let name = format!("{}.weight", l.name);
        map.insert(&name, &[output, input], &uniform(&name, output * input, 7, 1.5 / (input as f32).sqrt(), 0.0));
        let name = format!("{}.bias", l.name);
        map.insert(&name, &[output], &uniform(&name, output, 7, 0.1, 0.0));
    }
    fn walk(map: &mut TensorMap, spec: &Spec, scale: f32) {
        let mut table = |name: String, shape: &[u32]| {
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            map.insert(&name, &shape, &uniform(&name, shape.iter().product(), 7, scale, 0.0));
        };
        match spec {
            Spec::Vq(v) => {
                table(format!("{}.codebook", v.name), &[v.size, v.dim]);
                v.project_in.iter().chain(&v.project_out).for_each(|l| dense(map, l));
            }
            Spec::Residual { stages, project_in, project_out, .. } => {
                stages.iter().enumerate().for_each(|(i, s)| walk(map, s, scale * 0.7f32.powi(i as i32)));
                project_in.iter().chain(project_out).for_each(|l| dense(map, l));
            }
            Spec::Grouped { groups: parts } | Spec::Split { parts } => parts.iter().for_each(|p| walk(map, p, scale)),
            Spec::Rated { inner, .. } => walk(map, inner, scale),
            Spec::Fsq(f) => f.project_in.iter().chain(&f.project_out).for_each(|l| dense(map, l)),
            Spec::Lfq { project_in, project_out, .. } => {
                project_in.iter().chain(project_out).for_each(|l| dense(map, l));
            }
            Spec::RandomProjection { name, input, dim, size } => {
                table(format!("{name}.projection"), &[*input, *dim]);
                table(format!("{name}.codebook"), &[*size, *dim]);
            }
            Spec::Mvq { name, dim, codebooks, size, .. } => {
                table(format!("{name}.centers"), &[*codebooks, *size, *dim]);
                table(format!("{name}.to_logits.weight"), &[codebooks * size, *dim]);
                table(format!("{name}.to_logits.bias"), &[codebooks * size]);
            }
        }
    }
    let mut map = TensorMap::default();
    walk(&mut map, spec, 1.0);
    map
}

fn build(spec: &Spec) -> Quantizer {
    Quantizer::new(spec, &tensors(spec)).expect("a valid quantizer")
}

fn latents(name: &str, frames: usize, dim: usize) -> Vec<f32> {
    uniform(name, frames * dim, 11, 1.7, 0.0)
}

fn fsq(bound: FsqBound, levels: &[u32], stages: u32) -> Fsq {
    Fsq { levels: levels.into(), bound, stages, soft_clamp: false, margin: 1e-3, project_in: None, project_out: None }
}

fn factorised(name: &str, metric: Metric, outer: u32) -> Spec {
    Spec::Vq(Vq {
        name: name.into(),
        size: 32,
        dim: 4,
        metric,
        project_in: Some(Box::new(linear(&format!("{name}.in"), outer, 4, true))),
        project_out: Some(Box::new(linear(&format!("{name}.out"), 4, outer, true))),
    })
}

fn direct(name: &str, rounding: ResidualRounding) -> Spec {
    let stage = |i| match vq(&format!("{name}.{i}"), 16, 6) {
        Spec::Vq(v) => Spec::Vq(Vq { metric: Metric::EuclideanDirect, ..v }),
        other => other,
    };
    Spec::Residual { stages: (0..5).map(stage).collect(), project_in: None, project_out: None, rounding }
}

fn rated(stride: u32, inner: Spec) -> Spec {
    Spec::Rated { stride, inner: Box::new(inner) }
}

/// One of each kind and composition.
fn zoo() -> Vec<(&'static str, Spec)> {
    let grouped = |name: &str| Spec::Grouped { groups: (0..2).map(|g| vq(&format!("{name}.{g}"), 24, 5)).collect() };
    let projected = |name: &str, books| Spec::Residual {
        stages: (0..books).map(|i| vq(&format!("{name}.{i}"), 20, 3)).collect(),
        project_in: Some(linear(&format!("{name}.in"), 9, 3, false)),
        project_out: Some(linear(&format!("{name}.out"), 3, 9, true)),
        rounding: ResidualRounding::Plain,
    };
    let lfq = |codebooks, to: Option<u32>| Spec::Lfq {
        bits: 5,
        codebooks,
        project_in: to.map(|n| linear("lfq.in", n, 5 * codebooks, true)),
        project_out: to.map(|n| linear("lfq.out", 5 * codebooks, n, true)),
    };
    let soft = Fsq { soft_clamp: true, ..fsq(FsqBound::Symmetric, &[5, 4, 3], 3) };
    let fsq_in = Fsq {
        project_in: Some(linear("fsq.in", 8, 4, true)),
        project_out: Some(linear("fsq.out", 4, 8, true)),
        ..fsq(FsqBound::Tanh, &[8, 5, 5, 2], 1)
    };
    let fsq_slow = Fsq {
        project_in: Some(linear("slow.in", 9, 3, true)),
        project_out: Some(linear("slow.out", 3, 9, true)),
        ..fsq(FsqBound::Symmetric, &[5, 4, 3], 2)
    };
    vec![
        ("vq", vq("vq", 100, 7)),
        ("one entry", vq("one", 1, 3)),
        ("residual", residual_vq("rvq", 4, 33, 6)),
        ("nested", residual(vec![residual_vq("a", 2, 17, 6), vq("b", 9, 6)])),
        ("residual of groups", residual(vec![grouped("s0"), grouped("s1"), grouped("s2")])),
        (
            "groups of residual",
            Spec::Grouped { groups: vec![residual_vq("g0", 3, 16, 4), residual_vq("g1", 2, 20, 4)] },
        ),
        ("groups after a whole", residual(vec![vq("w", 40, 10), grouped("g"), vq("x", 12, 10)])),
        ("projected residual", projected("p", 3)),
        ("split", Spec::Split { parts: vec![projected("semantic", 1), projected("acoustic", 4)] }),
        ("cosine", residual((0..3).map(|i| factorised(&format!("c{i}"), Metric::Cosine, 12)).collect())),
        ("factorised", residual((0..3).map(|i| factorised(&format!("e{i}"), Metric::Euclidean, 12)).collect())),
        ("wide factorised", residual(vec![factorised("w0", Metric::Cosine, 2), vq("w1", 8, 2)])),
        ("direct", direct("d", ResidualRounding::StraightThrough)),
        ("fsq", Spec::Fsq(fsq(FsqBound::Tanh, &[8, 5, 5, 5], 1))),
        ("fsq projected", Spec::Fsq(fsq_in)),
        ("fsq symmetric", Spec::Fsq(fsq(FsqBound::Symmetric, &[7, 5], 2))),
        ("fsq soft", Spec::Fsq(soft)),
        ("lfq", lfq(1, None)),
        ("lfq projected", lfq(3, Some(8))),
        ("vq then lfq", residual(vec![vq("v", 8, 5), lfq(1, None), vq("u", 8, 5)])),
        (
            "levels",
            residual(vec![rated(4, vq("l0", 20, 6)), rated(2, factorised("l1", Metric::Cosine, 6)), vq("l2", 15, 6)]),
        ),
        ("levels of several codes", residual(vec![rated(3, lfq(2, Some(8))), vq("t", 12, 8), rated(3, vq("u", 8, 8))])),
        (
            "split of rates",
            Spec::Split {
                parts: vec![
                    projected("slow", 2),
                    rated(6, Spec::Fsq(fsq_slow)),
                    residual(vec![rated(2, vq("f", 9, 9)), rated(6, vq("g", 7, 9))]),
                ],
            },
        ),
        ("random projection", Spec::RandomProjection { name: "rp".into(), input: 10, dim: 4, size: 50 }),
        ("mvq", Spec::Mvq { name: "mvq".into(), dim: 6, codebooks: 4, size: 20, refinements: 2 }),
        ("mvq of small books", Spec::Mvq { name: "mvq".into(), dim: 6, codebooks: 8, size: 4, refinements: 2 }),
        ("mvq of one", Spec::Mvq { name: "mvq".into(), dim: 6, codebooks: 1, size: 30, refinements: 1 }),
    ]
}

fn in_range(q: &Quantizer, codes: &[u16], codebooks: usize) -> bool {
    codes.chunks_exact(codebooks).all(|f| f.iter().zip(q.sizes()).all(|(&c, &size)| u32::from(c) < size))
}

/// A frame's codes do not depend on its neighbours, nor on where a block ends.
#[test]
fn frames_are_independent() {
    for (name, spec) in zoo() {
        let q = build(&spec);
        let x = latents(name, 131, frame_len(&q));
        for beam in [1, 3] {
            let all = encode(&q, &x, q.codebooks(), beam);
            assert!(in_range(&q, &all, q.codebooks()), "{name}");
            let single: Vec<u16> =
                x.chunks_exact(frame_len(&q)).flat_map(|frame| encode(&q, frame, q.codebooks(), beam)).collect();
            assert_eq!(all, single, "{name}, beam {beam}");
            if q.can_decode() {
                let frames = single.chunks_exact(q.codebooks());
                let out: Vec<f32> = frames.flat_map(|frame| decode(&q, frame, q.codebooks())).collect();
                assert_eq!(decode(&q, &all, q.codebooks()), out, "{name}");
            }
        }
    }
}

/// With the greedy search, fewer codebooks give the first codes of more.
#[test]
fn greedy_codes_are_prefixes() {
    for (name, spec) in zoo() {
        let q = build(&spec);
        let x = latents(name, 40, frame_len(&q));
        let all = encode(&q, &x, q.codebooks(), 1);
        for count in 1..=q.codebooks() {
            if let Err(error) = q.check_codebooks(0, count) {
                assert!(matches!(error, RunError::Level { .. }), "{name}, {count}: {error}");
                continue;
            }
            assert_eq!(encode(&q, &x, count, 1), prefix(&all, q.codebooks(), count), "{name}, {count}");
            assert!(in_range(&q, &encode(&q, &x, count, 2), count), "{name}, {count}");
        }
    }
}

/// What single codebooks decode to adds up to what all decode to, where no bias is added more than once.
#[test]
fn ranges_add_up() {
    for name in ["residual", "residual of groups", "groups of residual", "mvq", "fsq symmetric"] {
        let (_, spec) = zoo().into_iter().find(|(n, _)| *n == name).unwrap();
        let q = build(&spec);
        let n = q.codebooks();
        let codes = encode(&q, &latents(name, 70, q.dim()), n, 1);
        let mut sum = vec![0.0; 70 * q.dim()];
        for book in 0..n {
            let column: Vec<u16> = codes.chunks_exact(n).map(|f| f[book]).collect();
            let (mut out, mut scratch) = (vec![0.0; 70 * q.dim()], vec![0.0; q.scratch_len(70, 1)]);
            q.decode_range(compute(), &column, 70, book, 1, &mut out, &mut scratch).unwrap();
            sum.iter_mut().zip(&out).for_each(|(s, o)| *s += o);
        }
        golden::assert_close(name, &sum, &decode(&q, &codes, n), 1e-6);
    }
}

#[test]
fn silence_gives_the_same_codes_in_every_frame() {
    for (name, spec) in zoo() {
        let q = build(&spec);
        let codes = encode(&q, &vec![0.0; 3 * frame_len(&q)], q.codebooks(), 2);
        assert!(in_range(&q, &codes, q.codebooks()), "{name}");
        assert_eq!(codes, codes[..q.codebooks()].repeat(3), "{name}");
    }
}

/// The squared error of a row's codes, in the arithmetic of the residual.
fn residual_error(books: &[Vec<f32>], dim: usize, x: &[f32], codes: &[u16]) -> f32 {
    let mut r = x.to_vec();
    for (book, &code) in books.iter().zip(codes) {
        r.iter_mut().zip(&book[usize::from(code) * dim..]).for_each(|(r, e)| *r -= e);
    }
    r.iter().fold(0.0, |sum, v| sum + v * v)
}

/// A codebook search, done plainly in f64: no entry is nearer than the one found, but for rounding.
#[test]
fn searches_find_the_nearest() {
    let spec = residual_vq("near", 3, 77, 9);
    let (map, q) = (tensors(&spec), build(&spec));
    let x = latents("near", 100, 9);
    let codes = encode(&q, &x, 3, 1);
    for (x, codes) in x.chunks_exact(9).zip(codes.chunks_exact(3)) {
        let mut r: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        for (i, &code) in codes.iter().enumerate() {
            let book = map.values(&format!("near.{i}.codebook"));
            let distance = |e: &[f32]| e.iter().zip(&r).map(|(&e, r)| (r - f64::from(e)).powi(2)).sum::<f64>();
            let least = book.chunks_exact(9).map(distance).fold(f64::INFINITY, f64::min);
            let entry = &book[usize::from(code) * 9..][..9];
            assert!(distance(entry) <= least + 1e-5, "{} over {least}", distance(entry));
            r.iter_mut().zip(entry).for_each(|(r, &e)| *r -= f64::from(e));
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    for metric in [Metric::Euclidean, Metric::EuclideanDirect, Metric::Cosine] {
        let spec = Spec::Vq(Vq { metric, name: "t".into(), size: 40, dim: 2, project_in: None, project_out: None });
        let mut map = TensorMap::default();
        let values: Vec<f32> = (0..40).flat_map(|i| if i % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
        map.insert("t.codebook", &[40, 2], &values);
        let q = Quantizer::new(&spec, &map).unwrap();
        assert_eq!(encode(&q, &[2.0, 0.5, 0.5, 2.0, 1.0, 1.0], 1, 1), [0, 1, 0], "{metric:?}");
    }
}

/// The direct metric and the straight-through residual, bit for bit as written down.
#[test]
fn direct_search_is_the_plain_sum() {
    for rounding in [ResidualRounding::Plain, ResidualRounding::StraightThrough] {
        let spec = direct("d", rounding);
        let (map, q) = (tensors(&spec), build(&spec));
        let x = latents("direct", 300, 6);
        let mut expected = Vec::new();
        for x in x.chunks_exact(6) {
            let mut r = x.to_vec();
            for i in 0..5 {
                let book = map.values(&format!("d.{i}.codebook"));
                let mut best = (f32::INFINITY, 0);
                for (k, e) in book.chunks_exact(6).enumerate() {
                    let distance = r.iter().zip(e).fold(0.0f32, |sum, (r, e)| sum + (r - e) * (r - e));
                    if distance < best.0 {
                        best = (distance, k);
                    }
                }
                expected.push(best.1 as u16);
                for (r, e) in r.iter_mut().zip(&book[best.1 * 6..]) {
                    *r = match rounding {
                        ResidualRounding::Plain => *r - e,
                        ResidualRounding::StraightThrough => *r - (*r + (e - *r)),
                    };
                }
            }
        }
        assert_eq!(encode(&q, &x, 5, 1), expected);
    }
}

/// Groups of residuals and residuals of groups are one thing, up to the order of the codes.
#[test]
fn groups_and_stages_commute() {
    let book = |s: usize, g: usize| vq(&format!("{s}.{g}"), 24, 5);
    let by_stage = residual((0..3).map(|s| Spec::Grouped { groups: (0..2).map(|g| book(s, g)).collect() }).collect());
    let by_group = Spec::Grouped { groups: (0..2).map(|g| residual((0..3).map(|s| book(s, g)).collect())).collect() };
    let map = tensors(&by_stage);
    let (a, b) = (Quantizer::new(&by_stage, &map).unwrap(), Quantizer::new(&by_group, &map).unwrap());
    let x = latents("commute", 90, 10);
    for beam in [1, 4] {
        let (stages, groups) = (encode(&a, &x, 6, beam), encode(&b, &x, 6, beam));
        for (s, g) in stages.chunks_exact(6).zip(groups.chunks_exact(6)) {
            assert_eq!(s, [g[0], g[3], g[1], g[4], g[2], g[5]]);
        }
        assert_eq!(decode(&a, &stages, 6), decode(&b, &groups, 6));
    }
}

/// A wider beam is worth it, and for projected books the error counts where it is heard, outside.
#[test]
fn beams_lower_the_error() {
    for name in ["residual", "nested", "residual of groups", "groups after a whole", "cosine", "factorised", "direct"] {
        let (_, spec) = zoo().into_iter().find(|(n, _)| *n == name).unwrap();
        let q = build(&spec);
        let x = latents(name, 200, q.dim());
        let error = |beam| {
            let out = decode(&q, &encode(&q, &x, q.codebooks(), beam), q.codebooks());
            x.iter().zip(&out).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let (greedy, beam) = (error(1), error(8));
        println!("{name}: {greedy} greedy, {beam} with 8");
        assert!(beam < 0.99 * greedy, "{name}: {greedy} greedy, {beam} with 8");
    }
}

/// A beam over every entry finds the best of all codings.
#[test]
fn a_full_beam_is_exhaustive() {
    let spec = residual_vq("full", 2, 8, 4);
    let (map, q) = (tensors(&spec), build(&spec));
    let books: Vec<Vec<f32>> = (0..2).map(|i| map.values(&format!("full.{i}.codebook"))).collect();
    let x = latents("full", 50, 4);
    let codes = encode(&q, &x, 2, 8);
    assert_eq!(codes, encode(&q, &x, 2, usize::MAX), "no beam is wider than all codings");
    for (x, codes) in x.chunks_exact(4).zip(codes.chunks_exact(2)) {
        let all = (0..64).map(|i| residual_error(&books, 4, x, &[i / 8, i % 8]));
        let least = all.fold(f32::INFINITY, f32::min);
        assert!(residual_error(&books, 4, x, codes) <= least * (1.0 + 1e-5));
    }
}

#[test]
fn scalar_codes_are_a_fixed_point() {
    for name in ["fsq symmetric", "lfq"] {
        let (_, spec) = zoo().into_iter().find(|(n, _)| *n == name).unwrap();
        let q = build(&spec);
        let codes = encode(&q, &latents(name, 500, q.dim()), q.codebooks(), 1);
        assert_eq!(encode(&q, &decode(&q, &codes, q.codebooks()), q.codebooks(), 1), codes, "{name}");
    }
}

/// Every code of an FSQ decodes to what its bound takes back to that code.
#[test]
fn every_fsq_code_is_met() {
    let levels = [8, 5, 3, 2];
    let q = build(&Spec::Fsq(fsq(FsqBound::Tanh, &levels, 1)));
    let codes: Vec<u16> = (0..240).collect();
    let mut values = decode(&q, &codes, 1);
    assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
    for row in values.chunks_exact_mut(4) {
        for (v, levels) in row.iter_mut().zip(levels) {
            let half = (levels - 1) as f32 * 1.001 / 2.0;
            let offset = if levels % 2 == 0 { 0.5 } else { 0.0 };
            let width = (levels / 2) as f32;
            *v = ((*v * width + offset) / half).atanh() - (offset / half).atanh();
        }
    }
    assert_eq!(encode(&q, &values, 1, 1), codes);
}

/// A level is its quantizer on the averages of neighbouring rows of what is left, repeated.
#[test]
fn levels_quantise_averages() {
    let parts = [(4, vq("l0", 20, 6)), (2, factorised("l1", Metric::Cosine, 6)), (1, vq("l2", 15, 6))];
    let spec = residual(parts.iter().map(|(stride, part)| rated(*stride, part.clone())).collect());
    let map = tensors(&spec);
    let q = Quantizer::new(&spec, &map).unwrap();
    let frames = 37;
    let mut rest = latents("levels", frames, frame_len(&q));
    let codes = encode(&q, &rest, 7, 1);
    let mut sum = vec![0.0; rest.len()];
    let mut first = 0;
    for (stride, part) in parts {
        let (stride, part) = (stride as usize, Quantizer::new(&part, &map).unwrap());
        let mean = |rows: &[f32]| -> Vec<f32> {
            (0..6).map(|c| rows.iter().skip(c).step_by(6).sum::<f32>() / stride as f32).collect()
        };
        let averages: Vec<f32> = rest.chunks_exact(stride * 6).flat_map(mean).collect();
        let level = encode(&part, &averages, 1, 1);
        let times = 4 / stride;
        let ours: Vec<u16> = codes.chunks_exact(7).flat_map(|f| &f[first..first + times]).copied().collect();
        assert_eq!(ours, level, "stride {stride}");
        let repeated: Vec<f32> = decode(&part, &level, 1).chunks_exact(6).flat_map(|row| row.repeat(stride)).collect();
        rest.iter_mut().zip(&repeated).for_each(|(r, e)| *r -= e);
        sum.iter_mut().zip(&repeated).for_each(|(s, e)| *s += e);
        first += times;
        assert_eq!(decode(&q, &prefix(&codes, 7, first), first), sum, "stride {stride}");
    }
}

#[test]
fn levels_are_whole_or_not_there() {
    let q = build(&residual(vec![rated(4, vq("a", 1024, 2)), rated(2, vq("b", 512, 2)), vq("c", 256, 2)]));
    assert_eq!(q.sizes(), [1024, 512, 512, 256, 256, 256, 256]);
    assert_eq!([1, 3, 7].map(|n| q.bits_per_frame(n)), [10, 28, 60]);
    let allowed: Vec<usize> = (0..9).filter(|&n| q.check_codebooks(0, n).is_ok()).collect();
    assert_eq!(allowed, [1, 3, 7]);
    assert_eq!(q.check_codebooks(0, 5), Err(RunError::Level { asked: 5, first: 3, end: 7 }));
    assert_eq!(q.check_codebooks(2, 5), Err(RunError::Level { asked: 2, first: 1, end: 3 }));
    assert_eq!(q.check_codebooks(1, 2), Ok(()));

    let group = |level, first_book, books, steps, size| CodeGroup { level, first_book, books, steps, size };
    let all = [group(0, 0, 1, 1, 1024), group(1, 1, 1, 2, 512), group(2, 2, 1, 4, 256)];
    assert_eq!(CodeGroup::of(&q, 0, 7).unwrap(), all);
    assert_eq!(CodeGroup::of(&q, 1, 6).unwrap(), all[1..]);

    // Neighbours of one rate are one group; codes of several codebooks come step by step.
    let lfq = Spec::Lfq { bits: 2, codebooks: 3, project_in: None, project_out: None };
    let q = build(&residual(vec![rated(2, vq("a", 8, 6)), rated(2, vq("b", 8, 6)), rated(2, vq("c", 4, 6)), lfq]));
    let groups = [group(0, 0, 2, 1, 8), group(0, 2, 1, 1, 4), group(1, 3, 3, 2, 4)];
    assert_eq!(CodeGroup::of(&q, 0, 9).unwrap(), groups);
    let q = build(&residual_vq("e", 8, 16, 4));
    assert_eq!(CodeGroup::of(&q, 0, 8).unwrap(), [CodeGroup::single_rate(8, 16)]);
    assert_eq!(CodeGroup::of(&q, 3, 2).unwrap(), [group(0, 3, 2, 1, 16)]);
}

#[test]
fn bits_are_whole() {
    let q = build(&residual(vec![vq("a", 1024, 2), vq("b", 1000, 2), vq("c", 1, 2), vq("d", 2, 2)]));
    assert_eq!([1, 2, 3, 4, 5].map(|n| q.bits_per_frame(n)), [10, 20, 20, 21, 21]);
    assert_eq!(q.sizes(), [1024, 1000, 1, 2]);
}

#[test]
fn memory_does_not_grow_with_length() {
    for (name, spec) in zoo() {
        let q = build(&spec);
        for beam in [1, 5, MAX_BEAM, usize::MAX] {
            assert_eq!(q.scratch_len(1_000_000, beam), q.scratch_len(1000, beam), "{name}");
        }
    }
}

#[test]
fn bad_calls_are_errors_and_write_nothing() {
    let q = build(&residual_vq("e", 3, 16, 4));
    let x = latents("e", 5, 4);
    let scratch = &mut vec![0.0; q.scratch_len(5, 2)][..];
    let codes = &mut [9u16; 15][..];
    let run = |x: &[f32], n, codes: &mut [u16], scratch: &mut [f32]| q.encode(compute(), x, n, 2, codes, scratch);
    assert_eq!(run(&x, 0, codes, scratch), Err(RunError::Codebooks { asked: 0, available: 3 }));
    assert_eq!(run(&x, 4, codes, scratch), Err(RunError::Codebooks { asked: 4, available: 3 }));
    assert_eq!(run(&x[1..], 3, codes, scratch), Err(RunError::BufferTooShort { needed: 20, got: 19 }));
    assert_eq!(run(&x, 3, &mut codes[1..], scratch), Err(RunError::BufferTooShort { needed: 15, got: 14 }));
    let needed = scratch.len();
    assert_eq!(run(&x, 3, codes, &mut scratch[1..]), Err(RunError::BufferTooShort { needed, got: needed - 1 }));
    assert!(codes.iter().all(|&c| c == 9));
    assert_eq!(run(&[], 3, &mut [], scratch), Ok(()));

    let out = &mut [9.0f32; 20][..];
    let run = |codes: &[u16], frames, n, out: &mut [f32], scratch: &mut [f32]| {
        q.decode(compute(), codes, frames, n, out, scratch)
    };
    let bad = RunError::CodeOutOfRange { frame: 1, codebook: 2, code: 16, size: 16 };
    assert_eq!(run(&[0, 0, 0, 0, 0, 16], 2, 3, out, scratch), Err(bad));
    assert_eq!(run(&[0; 5], 2, 3, out, scratch), Err(RunError::BufferTooShort { needed: 6, got: 5 }));
    assert_eq!(run(&[0; 6], 2, 3, &mut out[..7], scratch), Err(RunError::BufferTooShort { needed: 8, got: 7 }));
    assert_eq!(run(&[0; 6], 2, 0, out, scratch), Err(RunError::Codebooks { asked: 0, available: 3 }));
    let endless = RunError::BufferTooShort { needed: usize::MAX, got: 6 };
    assert_eq!(run(&[0; 6], usize::MAX, 3, out, scratch), Err(endless));
    assert!(out.iter().all(|&v| v == 9.0));
    let range = q.decode_range(compute(), &[0; 6], 2, usize::MAX, 3, out, scratch);
    assert_eq!(range, Err(RunError::Codebooks { asked: usize::MAX, available: 3 }));

    let (_, spec) = zoo().into_iter().find(|(n, _)| *n == "random projection").unwrap();
    let random = build(&spec);
    assert!(matches!(random.decode(compute(), &[0], 1, 1, out, scratch), Err(RunError::Unsupported(_))));
}

#[test]
fn contradictions_are_refused() {
    let spec_error = |spec: Spec| {
        let error = Quantizer::new(&spec, &TensorMap::default()).expect_err("a contradiction");
        assert!(matches!(error, BuildError::Spec(_)), "{error}");
        assert!(!error.to_string().is_empty());
    };
    let with = |f: fn(&mut Fsq)| {
        let mut spec = fsq(FsqBound::Symmetric, &[4, 4], 2);
        f(&mut spec);
        Spec::Fsq(spec)
    };
    let lfq = |bits, codebooks| Spec::Lfq { bits, codebooks, project_in: None, project_out: None };
    let mvq = |codebooks, refinements| Spec::Mvq { name: "m".into(), dim: 4, codebooks, size: 4, refinements };
    for spec in [
        residual(vec![]),
        residual(vec![vq("a", 4, 4), lfq(5, 1)]),
        rated(0, lfq(4, 1)),
        rated(1025, lfq(4, 1)),
        residual(vec![rated(4, lfq(4, 1)), rated(3, lfq(4, 1))]),
        rated(4, residual(vec![lfq(4, 1)])),
        rated(2, rated(2, lfq(4, 1))),
        residual(vec![rated(1024, lfq(4, 1)), lfq(1, 4), lfq(1, 4)]),
        residual(vec![lfq(4, 1), Spec::Split { parts: vec![lfq(4, 1)] }]),
        Spec::Grouped { groups: vec![] },
        Spec::Grouped { groups: vec![lfq(4, 1), lfq(5, 1)] },
        Spec::Split { parts: vec![] },
        Spec::Split { parts: vec![lfq(4, 1), lfq(5, 1)] },
        vq("zero", 4, 0),
        vq("huge", 4, u32::MAX),
        lfq(0, 1),
        lfq(17, 1),
        lfq(4, 0),
        lfq(16, u32::MAX),
        lfq(1, 4097),
        with(|f| f.levels = vec![]),
        with(|f| f.levels = vec![4, 1]),
        with(|f| f.levels = vec![0, 4]),
        with(|f| f.levels = vec![256, 257]),
        with(|f| f.levels = vec![u32::MAX; 8]),
        with(|f| f.stages = 0),
        with(|f| f.stages = u32::MAX),
        with(|f| f.bound = FsqBound::Tanh),
        with(|f| f.margin = f32::NAN),
        with(|f| f.project_in = Some(linear("in", 8, 3, false))),
        with(|f| f.project_out = Some(linear("out", 2, 8, false))),
        mvq(3, 1),
        mvq(0, 1),
        mvq(512, 1),
        mvq(4, u32::MAX),
    ] {
        spec_error(spec);
    }
    let random = Spec::RandomProjection { name: "r".into(), input: 4, dim: 2, size: 4 };
    let spec = residual(vec![random, lfq(4, 1)]);
    assert!(matches!(Quantizer::new(&spec, &tensors(&spec)), Err(BuildError::Spec(_))));
    for size in [0, 65537, u32::MAX] {
        assert!(matches!(Quantizer::new(&vq("a", size, 4), &TensorMap::default()), Err(BuildError::Spec(_))));
    }
}

#[test]
fn wrong_tensors_are_named() {
    let spec = vq("a", 4, 4);
    let missing = Quantizer::new(&spec, &TensorMap::default()).unwrap_err();
    assert_eq!(missing, BuildError::MissingTensor("a.codebook".into()));
    let mut map = TensorMap::default();
    map.insert("a.codebook", &[2, 8], &[0.0; 16]);
    assert!(matches!(
        Quantizer::new(&spec, &map).unwrap_err(),
        BuildError::TensorMismatch { name, .. } if name == "a.codebook"
    ));
    for (name, spec) in zoo() {
        let all = tensors(&spec);
        for tensor in all.names() {
            let mut fewer = all.clone();
            fewer.rename(tensor, "elsewhere", all.shape(tensor));
            // Projections without a bias in the spec have one here.
            match Quantizer::new(&spec, &fewer) {
                Err(e) => assert_eq!(e, BuildError::MissingTensor(tensor.into()), "{name}"),
                Ok(_) => assert!(tensor.ends_with(".bias"), "{name}: {tensor}"),
            }
        }
    }
}

#[test]
fn specs_survive_json() {
    for (name, spec) in zoo() {
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec, "{name}");
    }
    let text = r#"{"type":"fsq","levels":[8,5],"bound":"tanh"}"#;
    assert_eq!(serde_json::from_str::<Spec>(text).unwrap(), Spec::Fsq(fsq(FsqBound::Tanh, &[8, 5], 1)));
    assert!(serde_json::from_str::<Spec>(r#"{"type":"split","parts":[],"extra":1}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In the residual's own arithmetic, a beam's error is never above greedy's: not by a bit.
    #[test]
    fn beams_never_lose(seed in any::<u64>(), beam in 2usize..9, codebooks in 1usize..5, scale in 0.01f32..30.0) {
        let spec = residual_vq("rvq", 4, 33, 6);
        let (map, q) = (tensors(&spec), build(&spec));
        let books: Vec<Vec<f32>> = (0..4).map(|i| map.values(&format!("rvq.{i}.codebook"))).collect();
        let x = uniform("x", 20 * 6, seed, scale, 0.0);
        let (greedy, wide) = (encode(&q, &x, codebooks, 1), encode(&q, &x, codebooks, beam));
        let rows = x.chunks_exact(6).zip(greedy.chunks_exact(codebooks)).zip(wide.chunks_exact(codebooks));
        for ((x, greedy), wide) in rows {
            prop_assert!(residual_error(&books, 6, x, wide) <= residual_error(&books, 6, x, greedy));
        }
    }

    /// Any bits at all, NaN and infinities among them, give codes in range.
    #[test]
    fn any_input_gives_codes(bits in proptest::collection::vec(any::<u32>(), 64), beam in 1usize..4, which in 0usize..27) {
        let zoo = zoo();
        let (name, spec) = &zoo[which % zoo.len()];
        let q = build(spec);
        let mut x: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        x[0] = f32::NAN;
        x[3] = f32::INFINITY;
        x.truncate(x.len() / frame_len(&q) * frame_len(&q));
        for codebooks in (1..=q.codebooks()).filter(|&n| q.check_codebooks(0, n).is_ok()) {
            let codes = encode(&q, &x, codebooks, beam);
            prop_assert!(in_range(&q, &codes, codebooks), "{}", name);
        }
    }

    /// Codes from anywhere decode, or are refused for what is wrong with them.
    #[test]
    fn any_codes_decode_or_are_refused(codes in proptest::collection::vec(any::<u16>(), 36), which in 0usize..27) {
        let zoo = zoo();
        let (name, spec) = &zoo[which % zoo.len()];
        let q = build(spec);
        if q.can_decode() {
            let n = q.codebooks();
            let frames = codes.len() / n;
            let (mut out, mut scratch) = (vec![0.0; frames * frame_len(&q)], vec![0.0; q.scratch_len(frames, 1)]);
            let result = q.decode(compute(), &codes, frames, n, &mut out, &mut scratch);
            prop_assert_eq!(result.is_ok(), in_range(&q, &codes[..frames * n], n), "{}", name);
            prop_assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}
