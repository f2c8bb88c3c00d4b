//! Each test is a failure that a published codec or library had.

use burn::tensor::{Tensor, TensorData};
use codec_core::spec::{Fsq, FsqBound, Linear, Metric, Quantizer, ResidualRounding, Vq};

use super::*;
use crate::{Tracking, device, group::Alone, host};

fn vq(name: &str, size: u32, dim: u32) -> Quantizer {
    Quantizer::Vq(Vq { name: name.into(), size, dim, metric: Metric::Euclidean, project_in: None, project_out: None })
}

/// DAC's: projections around a codebook of unit vectors.
fn factorised(name: &str, input: u32, size: u32, dim: u32) -> Quantizer {
    let linear = |part: &str, input, output| {
        Some(Box::new(Linear { name: format!("{name}.{part}"), input, output, bias: true }))
    };
    Quantizer::Vq(Vq {
        name: name.into(),
        size,
        dim,
        metric: Metric::Cosine,
        project_in: linear("project_in", input, dim),
        project_out: linear("project_out", dim, input),
    })
}

fn residual(stages: Vec<Quantizer>) -> Quantizer {
    Quantizer::Residual { stages, project_in: None, project_out: None, rounding: ResidualRounding::Plain }
}

fn fsq(levels: &[u32], bound: FsqBound, stages: u32) -> Quantizer {
    Quantizer::Fsq(Fsq {
        levels: levels.to_vec(),
        bound,
        stages,
        soft_clamp: false,
        margin: 1e-3,
        project_in: None,
        project_out: None,
    })
}

fn rules(learning: Learning) -> Rules {
    Rules { learning, kmeans: 0, restart: 0.0, ..Rules::default() }
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut random = Random::new(seed, "test", 0);
    (0..n).map(|_| random.normal() as f32).collect()
}

fn latent(seed: u64, shape: [usize; 3]) -> Tensor<3> {
    Tensor::from_data(TensorData::new(noise(seed, shape.iter().product()), shape), &device::cpu())
}

/// A quantizer and random tensors for it.
fn made(spec: &Quantizer, rules: Rules) -> (TrainQuantizer, Store) {
    let quantizer = TrainQuantizer::new(spec, rules).unwrap();
    let mut store = Store::new(&device::cpu());
    let codec = codec_core::spec::CodecSpec {
        version: 1,
        name: "test".into(),
        sample_rate: 1,
        channels: 1,
        hop: 1,
        latent: 1,
        framing: codec_core::spec::Framing::Stream,
        codebook_choices: Vec::new(),
        encoder: None,
        quantizer: spec.clone(),
        decoder: None,
    };
    crate::net::initialise(&codec, &mut store, 5);
    quantizer.prepare(&mut store).unwrap();
    (quantizer, store)
}

fn forward(q: &TrainQuantizer, store: &Store, x: &Tensor<3>, limits: Option<&[usize]>) -> Quantized {
    q.forward(&store.vars(Tracking::None), x.clone(), limits).unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "value {i}: {a} for {b}");
    }
}

/// RSTnet#2: straight-through forgotten, the encoder learns nothing and all codes become one.
#[test]
fn gradients_pass_every_kind_of_quantizer() {
    let kinds = [
        residual((0..3).map(|i| vq(&format!("q{i}"), 16, 4)).collect()),
        residual((0..2).map(|i| factorised(&format!("q{i}"), 4, 16, 2)).collect()),
        residual(
            (0..2)
                .map(|s| Quantizer::Grouped { groups: (0..2).map(|g| vq(&format!("q{s}{g}"), 8, 2)).collect() })
                .collect(),
        ),
        Quantizer::Split { parts: vec![vq("a", 8, 4), residual(vec![vq("b", 8, 4), vq("c", 8, 4)])] },
        fsq(&[8, 5, 5, 4], FsqBound::Tanh, 1),
        fsq(&[3, 3, 3, 3], FsqBound::Symmetric, 2),
        residual(vec![Quantizer::Rated { stride: 2, inner: Box::new(vq("slow", 8, 4)) }, vq("fast", 8, 4)]),
    ];
    for spec in &kinds {
        for estimator in [Estimator::StraightThrough, Estimator::Rotation] {
            let (q, store) = made(spec, Rules { estimator, ..rules(Learning::Gradient) });
            let x = latent(1, [2, 4, 6]).mul_scalar(0.3).autodiff().require_grad();
            let out = q.forward(&store.vars(Tracking::Gradients), x.clone(), None).unwrap();
            let grads = out.latent.square().sum().backward();
            let size: f32 = x.grad(&grads).unwrap().abs().mean().into_scalar();
            assert!(size > 1e-3, "{spec:?}: mean gradient {size}");
        }
    }
}

/// With stages in a row the straight-through gradient is that of the identity, not as many times as there are stages.
#[test]
fn the_straight_through_gradient_is_one_whatever_the_stages() {
    for stages in [1, 4] {
        let spec = residual((0..stages).map(|i| vq(&format!("q{i}"), 16, 4)).collect());
        let (q, store) = made(&spec, rules(Learning::Ema { decay: 0.99 }));
        let x = latent(1, [2, 4, 6]).autodiff().require_grad();
        let out = q.forward(&store.vars(Tracking::Gradients), x.clone(), None).unwrap();
        let grad = x.grad(&out.latent.sum().backward()).unwrap();
        close(&host(grad), &[1.0; 48], 0.0);
    }
}

/// Each stage's commitment moves the encoder (in EnCodec's first release only that of the first did).
#[test]
fn every_stage_commits() {
    let spec = residual((0..2).map(|i| vq(&format!("q{i}"), 16, 4)).collect());
    let (q, store) = made(&spec, rules(Learning::Ema { decay: 0.99 }));
    let x = latent(1, [1, 4, 6]).autodiff().require_grad();
    let out = q.forward(&store.vars(Tracking::Gradients), x.clone(), None).unwrap();
    let got = host(x.grad(&out.commitment.backward()).unwrap());
    // d/dx mean((x - c)^2) = 2 (x - c) / n, of both stages.
    let first = forward(&q, &store, &x.clone().inner(), Some(&[1]));
    let both = forward(&q, &store, &x.clone().inner(), None);
    let rest = (x.clone().inner() - first.latent) + (x.inner() - both.latent);
    close(&got, &host(rest.mul_scalar(2.0 / 24.0)), 1e-6);
}

/// The gradient of the rotation has the length that turning and scaling give, and the output is the entry to the bit.
#[test]
fn the_rotation_turns_and_scales() {
    let d = device::cpu().autodiff();
    let x = Tensor::<2>::from_floats([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], &d).require_grad();
    let q = Tensor::<2>::from_floats([[0.0, 10.0], [0.0, 1.0], [1.0, 1.0], [-1.0, -1.0]], &d);
    let y = rotation(x.clone(), q.clone());
    assert_eq!(host(y.clone()), host(q));
    let c = Tensor::<2>::from_floats([[1.0, 0.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], &d);
    let grad = host(x.grad(&(y * c).sum().backward()).unwrap());
    // Row 0: (.6, .8) to (0, 1) and twice as long, R = 2 [[.8, -.6], [.6, .8]], and the gradient is its transpose times (1, 0).
    // Row 1: a quarter turn. Rows 2 and 3 are undefined: as if it were the identity.
    close(&grad, &[1.6, -1.2, 2.0, -1.0, 1.0, 2.0, 1.0, 2.0], 1e-5);
}

/// WavTokenizer#82: a threshold in counts is meaningless at another batch. The same use is as dead at any size.
#[test]
fn dead_is_a_share_and_not_a_count() {
    let spec = vq("q", 8, 2);
    let dead = |rows: usize| {
        let (q, mut store) = made(&spec, Rules { restart: 0.1, ..rules(Learning::Ema { decay: 0.0 }) });
        // Two of eight entries are hit.
        let x: Vec<f32> = (0..rows).flat_map(|i| if i % 2 == 0 { [5.0, 5.0] } else { [-5.0, -5.0] }).collect();
        let x = Tensor::<3>::from_data(TensorData::new(x, [1, rows, 2]), &device::cpu()).swap_dims(1, 2);
        let used = forward(&q, &store, &x, None).uses;
        let (reports, revived) = q.update(&Alone, &mut store, &used, 1, 0).unwrap();
        let revived = revived.first().map_or(0, |r| r.entries.len());
        assert_eq!(revived, 6.min(rows), "as many as there are rows for");
        reports[0].dead
    };
    assert_eq!([dead(10), dead(100), dead(10_000)], [0.75; 3]);
}

/// espnet#6284: the step after a revival put the old mean back.
#[test]
fn a_revived_entry_survives_the_next_step() {
    let spec = vq("q", 4, 2);
    let (q, mut store) = made(&spec, Rules { restart: 0.2, ..rules(Learning::Ema { decay: 0.5 }) });
    let mut entries = vec![100.0; 8];
    entries[..2].copy_from_slice(&[1.0, 1.0]);
    store.set("q.codebook", Tensor::from_floats(entries.as_slice(), &device::cpu()));
    let x = latent(3, [1, 2, 64]);
    let mut revived = Vec::new();
    for step in 0..8 {
        let used = forward(&q, &store, &x, None).uses;
        revived = q.update(&Alone, &mut store, &used, 1, step).unwrap().1;
        if !revived.is_empty() {
            break;
        }
    }
    let entries = revived.first().expect("three of four entries are far from everything").entries.clone();
    assert_eq!(entries, [1, 2, 3]);
    let placed = host(store.tensor::<2>("q.codebook").unwrap());
    // They are rows of the batch.
    let rows = host(x.clone().swap_dims(1, 2));
    for e in &entries {
        assert!(rows.chunks(2).any(|row| row == &placed[e * 2..e * 2 + 2]), "entry {e}");
    }
    // A step that uses none of them (one far point) moves nothing but the entry that is nearest to it.
    let far = Tensor::<3>::from_data(TensorData::new(vec![-50.0, -60.0], [1, 2, 1]), &device::cpu());
    let used = forward(&q, &store, &far, None).uses;
    let hit = host(used[0].counts.clone()).iter().position(|c| *c > 0.0).unwrap();
    let (_, again) = q.update(&Alone, &mut store, &used, 1, 9).unwrap();
    assert!(again.iter().all(|r| !r.entries.iter().any(|e| entries.contains(e) && *e != hit)), "{again:?}");
    let after = host(store.tensor::<2>("q.codebook").unwrap());
    for e in entries.iter().filter(|e| **e != hit) {
        close(&after[e * 2..e * 2 + 2], &placed[e * 2..e * 2 + 2], 1e-5);
    }
}

/// Statistics of two halves put together are those of the whole (espnet#6284: averages that were not shared).
#[test]
fn two_halves_learn_as_the_whole() {
    let spec = residual(vec![vq("a", 8, 3), vq("b", 8, 3)]);
    let make = || {
        let (q, mut store) = made(&spec, Rules { restart: 0.3, ..rules(Learning::Ema { decay: 0.9 }) });
        // An entry that nothing is near to, to be revived on the way.
        let mut entries = host(store.tensor::<2>("a.codebook").unwrap());
        entries[..3].fill(1000.0);
        store.set("a.codebook", Tensor::from_floats(entries.as_slice(), &device::cpu()));
        (q, store)
    };
    let ((q, mut whole), (_, mut halves)) = (make(), make());
    let mut revived = 0;
    for step in 0..16 {
        let x = latent(step, [4, 3, 16]);
        let uses = forward(&q, &whole, &x, None).uses;
        let first = q.update(&Alone, &mut whole, &uses, 7, step).unwrap();
        let mut sum = forward(&q, &halves, &x.clone().slice_dim(0, 0..2), None).uses;
        let other = forward(&q, &halves, &x.slice_dim(0, 2..4), None).uses;
        sum.iter_mut().zip(other).for_each(|(a, b)| a.add(b));
        let second = q.update(&Alone, &mut halves, &sum, 7, step).unwrap();
        assert_eq!(first.1, second.1);
        revived += first.1.len();
    }
    assert!(revived > 0);
    for name in ["a.codebook", "b.codebook", "a.ema_sum", "b.ema_sum"] {
        close(&host(whole.tensor::<2>(name).unwrap()), &host(halves.tensor::<2>(name).unwrap()), 1e-5);
    }
}

/// A group of processes with parts of the batches learns what one with the whole batches does: averages, restarts from the same
/// rows, dropout, losses, the start.
#[test]
fn a_group_learns_as_one() {
    use crate::group::tests::Threads;
    let stage = |s: usize| Quantizer::Grouped { groups: (0..2).map(|g| vq(&format!("q{s}{g}"), 8, 2)).collect() };
    let spec = residual((0..2).map(stage).collect());
    let learn = |group: &dyn crate::group::Group| {
        let (rank, size) = (group.rank(), group.size());
        let part = 6 / size;
        let rules = Rules { kmeans: 5, restart: 0.5, ..rules(Learning::Ema { decay: 0.7 }) };
        let (q, mut store) = made(&spec, rules);
        q.start(group, &mut store, latent(99, [6, 4, 16]), 1).unwrap();
        // Entries that nothing is near to, to be revived on the way.
        for name in ["q00.codebook", "q10.codebook"] {
            let mut entries = host(store.tensor::<2>(name).unwrap());
            entries[..6].fill(1000.0);
            store.set(name, Tensor::from_floats(entries.as_slice(), &device::cpu()));
        }
        let (mut all_revived, mut losses) = (Vec::new(), Vec::new());
        for step in 0..12 {
            let mut uses: Vec<BookUse> = Vec::new();
            // Two batches a step. The rows grow and shrink, so that entries die.
            for half in 0..2 {
                let x = latent(2 * step + half, [6, 4, 16]).mul_scalar(1.0 + (step % 4) as f32);
                let all: Vec<usize> = (0..6).map(|i| if i == half as usize { 2 } else { 4 - 2 * (i % 2) }).collect();
                let x = x.slice_dim(0, rank * part..(rank + 1) * part);
                let limits = Some(Limits { all: &all, rank, size });
                let out = q.forward_part(&store.vars(Tracking::None), x, limits).unwrap();
                let mut loss = [host(out.commitment)[0]];
                group.sum(&mut loss);
                losses.push(loss[0] / size as f32);
                match uses.is_empty() {
                    true => uses = out.uses,
                    false => uses.iter_mut().zip(out.uses).for_each(|(a, b)| a.add(b)),
                }
            }
            let (reports, revived) = q.update(group, &mut store, &uses, 7, step).unwrap();
            all_revived.push((reports, revived));
        }
        let tensors: Vec<(String, Vec<f32>)> =
            store.iter().map(|(name, e)| (name.to_owned(), host(e.value.clone()))).collect();
        (tensors, all_revived, losses)
    };
    let whole = learn(&Alone);
    assert!(whole.1.iter().any(|(_, revived)| revived.len() > 1));
    for size in [2, 3] {
        let parts = Threads::run(size, learn);
        for part in &parts {
            assert_eq!(part.1, whole.1, "of {size}");
            close(&part.2, &whole.2, 1e-5);
            for ((name, values), (_, expected)) in part.0.iter().zip(&whole.0) {
                if name.ends_with("ema_count") {
                    assert_eq!(values, expected, "{name}");
                }
                let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                close(values, expected, 1e-6 * scale);
            }
            assert!(part.0 == parts[0].0, "the same bits in all processes");
        }
    }
}

/// AcademiCodec's grouped residual codebooks never revived; here a collapsed one spreads again, with k-means or without.
#[test]
fn grouped_residual_codebooks_are_used() {
    let group = |s: usize| Quantizer::Grouped { groups: (0..2).map(|g| vq(&format!("q{s}{g}"), 32, 2)).collect() };
    let spec = residual(vec![group(0), group(1)]);
    for kmeans in [0, 10] {
        for learning in [Learning::Ema { decay: 0.8 }, Learning::Gradient] {
            let rules = Rules { kmeans, restart: 0.1, ..rules(learning) };
            let (q, mut store) = made(&spec, rules);
            for s in ["q00", "q01", "q10", "q11"] {
                // All entries far away but one: everything has one code.
                let mut entries = vec![1000.0; 64];
                entries[..2].copy_from_slice(&[0.0, 0.0]);
                store.set(&format!("{s}.codebook"), Tensor::from_floats(entries.as_slice(), &device::cpu()));
            }
            q.start(&Alone, &mut store, latent(0, [4, 4, 128]), 1).unwrap();
            let mut reports = Vec::new();
            // Stage by stage, some ln(0.1) / ln(decay) steps each time; codebooks that learn by gradients count with 0.99.
            let steps = if learning == Learning::Gradient { 1200 } else { 60 };
            for step in 0..steps {
                let used = forward(&q, &store, &latent(step, [4, 4, 128]), None).uses;
                reports = q.update(&Alone, &mut store, &used, 1, step).unwrap().0;
            }
            for r in &reports {
                assert!(r.perplexity > 16.0, "kmeans {kmeans}, {learning:?}: {r:?}");
            }
        }
    }
}

/// Means converge to what is coded.
#[test]
fn averages_find_the_means() {
    let (q, mut store) = made(&vq("q", 2, 1), rules(Learning::Ema { decay: 0.5 }));
    store.set("q.codebook", Tensor::from_floats([-0.1, 0.1], &device::cpu()));
    let x = Tensor::<3>::from_data(TensorData::new(vec![-3.0, -1.0, 4.0, 6.0], [1, 1, 4]), &device::cpu());
    for step in 0..40 {
        let used = forward(&q, &store, &x, None).uses;
        q.update(&Alone, &mut store, &used, 1, step).unwrap();
    }
    close(&host(store.tensor::<2>("q.codebook").unwrap()), &[-2.0, 5.0], 1e-4);
}

/// vq-pytorch#25: k-means with fewer rows than entries ends, and no two entries are equal.
#[test]
fn kmeans_of_too_few_rows() {
    let (q, mut store) = made(&vq("q", 16, 2), Rules { kmeans: 10, ..rules(Learning::Ema { decay: 0.9 }) });
    for x in [latent(1, [1, 2, 3]), Tensor::zeros([1, 2, 5], &device::cpu())] {
        q.start(&Alone, &mut store, x, 3).unwrap();
        let entries = host(store.tensor::<2>("q.codebook").unwrap());
        assert!(entries.iter().all(|v| v.is_finite()));
        let mut rows: Vec<_> = entries.chunks(2).map(|r| (r[0].to_bits(), r[1].to_bits())).collect();
        rows.sort_unstable();
        rows.dedup();
        assert!(rows.len() >= 12, "{} different entries", rows.len());
    }
}

/// k-means goes through the stages: each starts from what the stages before leave.
#[test]
fn kmeans_starts_every_stage_from_its_residual() {
    let spec = residual((0..3).map(|i| vq(&format!("q{i}"), 8, 2)).collect());
    let (q, mut store) = made(&spec, Rules { kmeans: 20, ..rules(Learning::Ema { decay: 0.9 }) });
    let x = latent(1, [4, 2, 256]);
    q.start(&Alone, &mut store, x.clone(), 3).unwrap();
    let error = |n: usize| {
        let limits = [n; 4];
        let y = forward(&q, &store, &x, Some(&limits)).latent;
        f64::from((y - x.clone()).square().mean().into_scalar::<f32>())
    };
    let errors = [error(1), error(2), error(3)];
    assert!(errors[0] < 0.35 && errors[1] < 0.4 * errors[0] && errors[2] < 0.5 * errors[1], "{errors:?}");
}

/// One model for all bitrates: an item with fewer codebooks gives what the prefix gives, and takes no part in the rest
/// (DAC#40: `n_quantizers` silently ignored).
#[test]
fn dropout_is_a_prefix_for_each_item() {
    for factor in [false, true] {
        let stage =
            |i: usize| if factor { factorised(&format!("q{i}"), 4, 16, 2) } else { vq(&format!("q{i}"), 16, 4) };
        let (q, store) = made(&residual((0..3).map(stage).collect()), rules(Learning::Gradient));
        let x = latent(1, [3, 4, 5]);
        let mixed = forward(&q, &store, &x, Some(&[1, 3, 2]));
        for (item, n) in [1, 3, 2].into_iter().enumerate() {
            let alone = forward(&q, &store, &x.clone().slice_dim(0, item..item + 1), Some(&[n]));
            let got = mixed.latent.clone().slice_dim(0, item..item + 1);
            close(&host(got), &host(alone.latent), 1e-6);
        }
        let counts: Vec<f32> = mixed.uses.iter().map(|u| host(u.counts.clone()).iter().sum()).collect();
        assert_eq!(counts, [15.0, 10.0, 5.0]);
        assert_eq!(mixed.uses[2].pool.as_ref().unwrap().dims()[0], 5);
    }
}

/// vq-pytorch#114, #207: every code can be had, and none is out of range; also from half precision.
#[test]
fn every_level_of_fsq_is_reached() {
    for (levels, bound) in [
        (&[8, 5, 5, 5][..], FsqBound::Tanh),
        (&[4, 2, 3], FsqBound::Tanh),
        (&[8, 5, 5, 5], FsqBound::Symmetric),
        (&[2, 2, 7], FsqBound::Symmetric),
    ] {
        for half in [false, true] {
            let (q, store) = made(&fsq(levels, bound, 1), rules(Learning::Gradient));
            let channels = levels.len();
            let rows = 100_000;
            let mut random = Random::new(1, "fsq", 0);
            // Even over what the bound maps to.
            let mut value = |level: u32| match bound {
                FsqBound::Tanh => {
                    let offset = if level.is_multiple_of(2) { 1.0 / (f64::from(level - 1) * 1.001) } else { 0.0 };
                    (random.within(0.9999).atanh() - offset.atanh()) as f32
                }
                FsqBound::Symmetric => random.within(1.2) as f32,
            };
            let values: Vec<f32> = (0..rows * channels).map(|i| value(levels[i % channels])).collect();
            let x = Tensor::<3>::from_data(TensorData::new(values, [1, rows, channels]), &device::cpu());
            let x = if half { x.cast(burn::tensor::FloatDType::BF16) } else { x };
            let out = forward(&q, &store, &x.swap_dims(1, 2), None);
            let counts = host(out.uses[0].counts.clone());
            assert_eq!(counts.len() as u32, levels.iter().product::<u32>());
            assert_eq!(counts.iter().sum::<f32>(), rows as f32);
            let missing = counts.iter().filter(|c| **c == 0.0).count();
            assert_eq!(missing, 0, "{missing} of {} codes of {levels:?} ({bound:?})", counts.len());
        }
    }
}

/// What training computes is what the engine runs.
#[test]
fn outputs_are_the_engines() {
    let kinds = [
        (residual((0..3).map(|i| vq(&format!("q{i}"), 16, 4)).collect()), 4),
        (residual((0..2).map(|i| factorised(&format!("q{i}"), 4, 16, 2)).collect()), 4),
        (Quantizer::Split { parts: vec![vq("a", 8, 4), residual(vec![vq("b", 8, 4), vq("c", 8, 4)])] }, 4),
        (fsq(&[8, 5, 5, 4], FsqBound::Tanh, 1), 4),
        (fsq(&[5, 3, 3], FsqBound::Symmetric, 3), 3),
        (residual(vec![Quantizer::Rated { stride: 2, inner: Box::new(vq("slow", 8, 4)) }, vq("fast", 8, 4)]), 4),
    ];
    for (spec, channels) in &kinds {
        let (q, store) = made(spec, rules(Learning::Gradient));
        let rows = 48;
        let x = latent(9, [1, *channels, rows]);
        let out = forward(&q, &store, &x, None);
        let mut map = codec::model_file::TensorMap::default();
        for (name, (shape, values)) in store.plain() {
            map.0.insert(name, codec::model_file::OwnedTensor::f32(&shape, &values));
        }
        let engine = codec_core::quantizer::Quantizer::new(spec, &map).unwrap();
        let cx = codec_core::kernel::Compute { isa: codec_core::kernel::Isa::detect(), pool: None };
        let frames = rows / engine.rows_per_frame();
        let books = engine.codebooks();
        let mut codes = vec![0; frames * books];
        let mut scratch = vec![0.0; engine.scratch_len(frames, 1)];
        let values = host(x.swap_dims(1, 2));
        engine.encode(cx, &values, books, 1, &mut codes, &mut scratch).unwrap();
        let mut expected = vec![0.0; values.len()];
        engine.decode(cx, &codes, frames, books, &mut expected, &mut scratch).unwrap();
        close(&host(out.latent.swap_dims(1, 2)), &expected, 1e-5);
    }
}

#[test]
fn quantizers_that_cannot_be_trained_are_named() {
    let lfq = Quantizer::Lfq { bits: 4, codebooks: 1, project_in: None, project_out: None };
    let error = TrainQuantizer::new(&residual(vec![vq("q", 4, 4), lfq]), Rules::default()).unwrap_err();
    assert!(matches!(error, TrainError::Untrainable { kind: "lfq", .. }), "{error}");
}

#[test]
fn revived_entries_of_gradient_codebooks_lose_their_momentum() {
    use crate::{
        Grads,
        group::Alone,
        optim::{Optimizer, OptimizerRecipe},
    };
    let (_, mut store) = made(&vq("q", 3, 2), rules(Learning::Gradient));
    let mut optimizer = Optimizer::new(&OptimizerRecipe::default());
    let grads = Grads([("q.codebook".to_owned(), Tensor::ones([6], &device::cpu()))].into());
    let norm = grads.norm();
    optimizer.step(&Alone, &mut store, grads, norm, 0.1);
    optimizer.forget(&[Revived { tensor: "q.codebook".into(), dim: 2, entries: vec![1] }]);
    let first = host(optimizer.moments()["q.codebook"].first.clone());
    assert_eq!((first[2], first[3]), (0.0, 0.0));
    assert!(first[0] > 0.0 && first[5] > 0.0);
}
