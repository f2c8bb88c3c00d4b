//! Losses, discriminators and the balancer against what PyTorch and the published implementations compute
//! (`fixtures/make.py`), and gradients against finite differences.

#[path = "../../codec-core/tests/support/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use codec_train::{
    Store, Tracking, device,
    disc::{DiscriminatorSpec, Discriminators, StackLayer},
    loss::*,
};
use golden::uniform;
use serde_json::Value;

fn fixtures() -> Value {
    serde_json::from_str(include_str!("fixtures/losses.json")).unwrap()
}

const N: usize = 4801;

/// Two signals `[2, 1, n]`, one a distorted copy of the other, as `make.py` has them.
fn signals() -> (Tensor<3>, Tensor<3>) {
    let tone = |item: usize, t: f64| match item {
        0 => 0.4 * (0.05 * t).sin() + 0.2 * (0.9 * t).sin(),
        _ => 0.3 * (0.013 * t * (1.0 + t / N as f64)).sin(),
    };
    let signal = |key: &str, noise: f32, factor: f32| {
        let noise = uniform(key, 2 * N, 0, noise, 0.0);
        let values = noise.iter().enumerate().map(|(i, n)| factor * tone(i / N, (i % N) as f64) as f32 + n);
        tensor(values.collect(), [2, 1, N])
    };
    (signal("real", 0.05, 1.0), signal("fake", 0.1, 0.8))
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &device::cpu())
}

fn host<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.inner().try_into_vec_as::<f32>().unwrap()
}

fn scalar(t: Tensor<1>) -> f64 {
    f64::from(t.into_scalar::<f32>())
}

fn number(v: &Value) -> f64 {
    v.as_f64().expect("a number")
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(number).collect()
}

fn near(what: &str, got: f64, expected: f64, relative: f64) {
    let scale = expected.abs().max(1e-6);
    assert!((got - expected).abs() <= relative * scale, "{what}: {got} for {expected}");
}

/// Value and gradient of a loss on the two signals.
fn check(what: &str, loss: impl Fn(Tensor<3>, Tensor<3>) -> Tensor<1>, expected: &Value) {
    let (real, fake) = signals();
    let leaf = fake.autodiff().require_grad();
    let value = loss(leaf.clone(), real.autodiff());
    near(what, scalar(value.clone().inner()), number(&expected["value"]), 1e-4);
    let gradient = host(leaf.grad(&value.backward()).unwrap());
    let norm = gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
    near(&format!("{what}, norm of the gradient"), norm, number(&expected["gradient_norm"]), 2e-3);
    let scale = norm / (gradient.len() as f64).sqrt();
    for (got, expected) in gradient[1000..].iter().zip(numbers(&expected["gradient"])) {
        assert!((f64::from(*got) - expected).abs() < 2e-2 * scale, "{what}: gradient {got} for {expected}");
    }
}

#[test]
fn multi_resolution_stft() {
    let loss = StftLoss::new(&StftLoss::usual_scales());
    check("stft", |fake, real| loss.forward(fake, real), &fixtures()["stft"]);
}

#[test]
fn mel() {
    let scales = [(512, 40), (1024, 80), (2048, 64)].map(|(window, mels)| MelScale { window, hop: window / 4, mels });
    for (key, terms) in [("100", [1.0, 0.0, 0.0]), ("010", [0.0, 1.0, 0.0]), ("001", [0.0, 0.0, 1.0])] {
        let mut loss = MelLoss::new(24_000, &scales);
        [loss.log, loss.linear, loss.square] = terms;
        check(&format!("mel {key}"), |fake, real| loss.forward(fake, real), &fixtures()["mel"][key]);
    }
}

/// Every differentiable loss along a random direction.
#[test]
fn gradients_are_those_of_finite_differences() {
    let stft = StftLoss::new(&[StftScale { n_fft: 64, hop: 12, window: 40 }]);
    let mel = MelLoss::new(16_000, &[MelScale { window: 64, hop: 16, mels: 8 }]);
    type Loss<'a> = &'a dyn Fn(Tensor<3>, Tensor<3>) -> Tensor<1>;
    let (loudness, similarity) = (LoudnessLoss::new(16_000), SimilarityLoss::new(16_000));
    // What was added has a weight that has no part in the gradient: 0 where all is quieter, and the greatest where all is louder.
    let losses: [(&str, usize, Loss<'_>); 8] = [
        ("l1", 300, &waveform_l1),
        ("l2", 300, &waveform_l2),
        ("si_sdr", 300, &|a, b| negative_si_sdr(a + b.clone(), b)),
        ("stft", 300, &|a, b| stft.forward(a, b)),
        ("mel", 300, &|a, b| mel.forward(a, b)),
        ("loudness, what is lost", 1600, &|a, b| loudness.forward(a.mul_scalar(0.1), b)),
        ("loudness, what was added", 1600, &|a, b| loudness.forward(a, b.mul_scalar(0.001))),
        ("similarity", 3000, &|a, b| similarity.forward(a, b)),
    ];
    for (name, n, loss) in losses {
        let x = tensor(uniform("x", n, 0, 0.5, 0.0), [1, 1, n]);
        let real = tensor(uniform("y", n, 0, 0.5, 0.0), [1, 1, n]);
        let direction = tensor(uniform("d", n, 0, 1.0, 0.0), [1, 1, n]);
        let leaf = x.clone().autodiff().require_grad();
        let grads = loss(leaf.clone(), real.clone().autodiff()).backward();
        let analytic = scalar((leaf.grad(&grads).unwrap() * direction.clone()).sum());
        let eps = 1e-3_f32;
        let at = |sign: f32| scalar(loss(x.clone() + direction.clone().mul_scalar(sign * eps), real.clone()));
        let numeric = (at(1.0) - at(-1.0)) / (2.0 * f64::from(eps));
        let scale = analytic.abs().max(numeric.abs()).max(0.05);
        assert!((analytic - numeric).abs() < 3e-2 * scale, "{name}: {analytic}, by differences {numeric}");
        assert!(numeric.abs() > 0.002, "{name} does not depend on the signal: {numeric}");
    }
}

/// A voice of syllables with gliding harmonics, as `codec::eval`'s tests have them, and white noise.
fn voice(samples: usize) -> Vec<f32> {
    let noise = uniform("breath", samples, 0, 0.003, 0.0);
    let at = |i: usize| {
        let t = i as f64 / 16_000.0;
        let (pitch, syllable) = (110.0 * t + 9.0 * (2.0 * t).sin(), (0.5 - 0.5 * (25.0 * t).cos()).powi(2));
        let harmonic =
            |k: f64| (std::f64::consts::TAU * k * pitch).sin() / (1.0 + (k - 5.0 - 4.0 * (9.0 * t).sin()).powi(2));
        (0.25 * syllable * (1..30).map(|k| harmonic(f64::from(k))).sum::<f64>()) as f32 + noise[i]
    };
    (0..samples).map(at).collect()
}

fn one(values: &[f32]) -> Tensor<3> {
    tensor(values.to_vec(), [1, 1, values.len()])
}

fn with(x: &[f32], noise: f32) -> Vec<f32> {
    x.iter().zip(uniform("added", x.len(), 0, noise, 0.0)).map(|(x, n)| x + n).collect()
}

/// The same is no distance, more noise is more, the level of both does not matter, what cannot be heard does not count, nor a little more of
/// what is there, and what was added is worse than what is lost.
#[test]
fn loudness() {
    let loss = LoudnessLoss::new(16_000);
    let distance = |a: &[f32], b: &[f32]| scalar(loss.forward(one(a), one(b)));
    let x = voice(16_000);
    assert!(distance(&x, &x) < 0.005, "{}", distance(&x, &x));
    let rising = [0.001, 0.01, 0.1].map(|noise| distance(&with(&x, noise), &x));
    assert!(rising[0] < 0.5 * rising[1] && rising[1] < 0.5 * rising[2], "{rising:?}");
    let half = |x: &[f32]| x.iter().map(|v| 0.5 * v).collect::<Vec<f32>>();
    let noisy = with(&x, 0.02);
    near("of half the level", distance(&half(&noisy), &half(&x)), distance(&noisy, &x), 1e-3);
    assert!(distance(&noisy, &x) > 1.5 * distance(&x, &noisy));
    let tone =
        |level: f32| (0..16_000).map(|i| level * (std::f32::consts::FRAC_PI_8 * i as f32).sin()).collect::<Vec<f32>>();
    let below_threshold = with(&tone(0.3), 0.0002);
    assert!(distance(&below_threshold, &tone(0.3)) < 0.02, "{}", distance(&below_threshold, &tone(0.3)));
    // A tenth more loudness is masked, and a half more is not.
    let louder = [0.36, 1.0].map(|level| distance(&tone(level), &tone(0.3)));
    assert!(louder[0] < 0.01 && louder[1] > 0.1, "{louder:?}");
    let silence = vec![0.0; 16_000];
    assert!(distance(&silence, &silence) < 0.01);
}

/// Each signal by itself, whatever its level; silence for silence is worth nothing, and so is an inverted copy.
#[test]
fn si_sdr_is_that_of_codec_eval() {
    let (real, fake) = (voice(16_000), with(&voice(16_000), 0.03));
    let wide = |x: &[f32]| x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let expected = codec::eval::si_sdr(&wide(&real), &wide(&fake));
    let louder: Vec<f32> = fake.iter().map(|v| 3.0 * v).collect();
    assert!(expected > 3.0, "{expected}");
    for degraded in [&fake, &louder] {
        let got = -scalar(negative_si_sdr(one(degraded), one(&real)));
        assert!((got - expected).abs() < 0.02, "{got} for {expected}");
    }
    let silence = vec![0.0; real.len()];
    assert_eq!(scalar(negative_si_sdr(one(&silence), one(&silence))), 0.0);
    let two = Tensor::cat(vec![one(&fake), one(&silence)], 0);
    let mean = -scalar(negative_si_sdr(two, Tensor::cat(vec![one(&real), one(&silence)], 0)));
    assert!((mean - expected / 2.0).abs() < 0.02, "{mean}");
    let inverted: Vec<f32> = real.iter().map(|v| -v).collect();
    assert!(scalar(negative_si_sdr(one(&inverted), one(&real))) > 20.0);
}

/// Against ViSQOL's own index of the same signals, whose filters ring in time where these are spectra under their responses.
#[test]
fn similarity_is_that_of_codec_eval() {
    let loss = SimilarityLoss::new(16_000);
    let x = voice(48_000);
    let signal = |samples: &[f32]| codec::eval::Signal { samples: samples.to_vec(), sample_rate: 16_000 };
    let (silence, half) = (vec![0.0; 48_000], [&x[..24_000], &[0.0; 24_000]].concat());
    for same in [&silence, &half] {
        let distance = scalar(loss.forward(one(same), one(same)));
        assert!(distance.abs() < 0.02, "{distance}");
    }
    // What lacks its high frequencies, and more and more noise.
    let dull: Vec<f32> = (0..x.len()).map(|i| x[i.saturating_sub(5)..=i].iter().sum::<f32>() / 6.0).collect();
    let noisy = [0.0, 0.003, 0.01, 0.03, 0.1].map(|noise| with(&x, noise));
    let mut last = 1.1;
    for (i, y) in [dull].into_iter().chain(noisy).enumerate() {
        let got = 1.0 - scalar(loss.forward(one(&y), one(&x)));
        let found = codec::eval::score(&signal(&x), &signal(&y), &codec::eval::Options::default()).unwrap();
        let expected = found.nsim.unwrap();
        assert!((got - expected).abs() < 0.05, "signal {i}: {got}, and codec::eval has {expected}");
        if i > 0 {
            assert!(got < last, "signal {i}: {got} after {last}");
            last = got;
        }
    }
}

#[test]
fn adversarial_and_feature_losses() {
    let f = &fixtures()["adversarial"];
    let judged = |key: &str| -> Vec<Judged> {
        let one = |i: usize| Judged {
            score: tensor(uniform(&format!("{key}{i}"), 30, 0, 2.0, 0.0), [2, 1, 3, 5]),
            features: (0..3)
                .map(|j| tensor(uniform(&format!("f{key}{i}{j}"), 120, 0, 1.0, 0.0), [2, 4, 3, 5]))
                .collect(),
        };
        (0..2).map(one).collect()
    };
    let (real, fake) = (judged("r"), judged("f"));
    for (key, kind) in [("hinge", AdversarialKind::Hinge), ("least_squares", AdversarialKind::LeastSquares)] {
        let expected = numbers(&f[key]);
        near(key, scalar(discriminator_loss(kind, &real, &fake).unwrap()), expected[0], 1e-5);
        near(key, scalar(generator_loss(kind, &fake).unwrap()), expected[1], 1e-5);
    }
    near("absolute", scalar(feature_loss(FeatureNorm::Absolute, &real, &fake).unwrap()), number(&f["absolute"]), 1e-5);
    near("relative", scalar(feature_loss(FeatureNorm::Relative, &real, &fake).unwrap()), number(&f["relative"]), 1e-5);
    assert!(generator_loss(AdversarialKind::Hinge, &[]).is_none());
}

/// Sets all weights by the rule, in the order in which the published code defines its convolutions.
fn filled(discriminators: &Discriminators) -> Store {
    let mut store = Store::new(&device::cpu());
    discriminators.initialise(&mut store, 0).unwrap();
    let mut names: Vec<String> =
        store.iter().filter_map(|(n, _)| n.strip_suffix(".weight_v").map(str::to_owned)).collect();
    // Bands and layers are numbers; the last convolution comes last.
    names.sort_by_key(|n| {
        let number = |part: &str| part.parse::<usize>().unwrap_or(usize::MAX);
        n.split('.').map(number).collect::<Vec<_>>()
    });
    for (i, name) in names.iter().enumerate() {
        let shape = store.get(&format!("{name}.weight_v")).unwrap().shape.clone();
        let fan_in: usize = shape[1..].iter().product();
        let bound = (1.7 / (fan_in as f64).sqrt()) as f32;
        let values = uniform(&format!("conv{i}.weight"), shape.iter().product(), 0, bound, 0.0);
        store.remove(&format!("{name}.weight_v"));
        store.remove(&format!("{name}.weight_g"));
        store.insert(format!("{name}.weight"), &shape, values, true);
        store.add_weight_norm(name).unwrap();
        store.insert(
            format!("{name}.bias"),
            &shape[..1],
            uniform(&format!("conv{i}.bias"), shape[0], 0, 0.1, 0.0),
            true,
        );
    }
    store
}

fn judges(what: &str, discriminators: &Discriminators) {
    let expected = &fixtures()[what];
    let store = filled(discriminators);
    let (_, fake) = signals();
    let judged = discriminators.forward(&store.vars(Tracking::None), fake).unwrap().remove(0);
    let statistics = |what: &str, values: &[f32], expected: &Value| {
        let n = values.len() as f64;
        let rms = (values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / n).sqrt();
        near(&format!("{what}, root mean square"), rms, number(&expected["rms"]), 1e-4);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        assert!((mean - number(&expected["mean"])).abs() < 1e-4 * rms, "{what}: mean {mean}, {expected}");
    };
    let features = expected["features"].as_array().unwrap();
    assert_eq!(judged.features.len(), features.len(), "{what}");
    for (i, (got, expected)) in judged.features.into_iter().zip(features).enumerate() {
        let values = host(got);
        assert_eq!(values.len() as u64, expected["size"].as_u64().unwrap(), "{what}, feature {i}");
        statistics(&format!("{what}, feature {i}"), &values, expected);
    }
    let score = host(judged.score);
    let e = &expected["score"];
    statistics(&format!("{what}, score"), &score, e);
    let rms = number(&e["rms"]) as f32;
    let ends =
        score[..4].iter().zip(numbers(&e["first"])).chain(score[score.len() - 4..].iter().zip(numbers(&e["last"])));
    for (got, expected) in ends {
        assert!((got - expected as f32).abs() < 1e-3 * rms, "{what}: {got} for {expected}");
    }
}

#[test]
fn multi_period_discriminator() {
    let spec = DiscriminatorSpec::MultiPeriod { periods: vec![3], channels: 32 };
    judges("period3", &Discriminators::new(&[spec], 1));
}

#[test]
fn multi_scale_discriminator() {
    let layer = |channels, kernel, stride, groups| StackLayer {
        channels,
        kernel: [1, kernel],
        stride: [1, stride],
        dilation: [1, 1],
        groups,
    };
    let mut discriminators = Discriminators::default();
    let dac = [
        layer(16, 15, 1, 1),
        layer(64, 41, 4, 4),
        layer(256, 41, 4, 16),
        layer(1024, 41, 4, 64),
        layer(1024, 41, 4, 256),
        layer(1024, 5, 1, 1),
    ];
    discriminators.add_scale("disc.0.0", 1, 0, &dac);
    judges("scale", &discriminators);
}

#[test]
fn multi_stft_discriminator() {
    let spec = DiscriminatorSpec::MultiStft { windows: vec![512], channels: 8 };
    judges("stft512", &Discriminators::new(&[spec], 1));
}

#[test]
fn multi_band_discriminator() {
    let bands = codec_train::disc::dac_bands();
    let spec = DiscriminatorSpec::MultiBand { windows: vec![512], channels: 32, bands };
    judges("bands512", &Discriminators::new(&[spec], 1));
}

/// Its first layer by the definition, and the way back to the samples by finite differences.
#[test]
fn multi_frame_discriminator() {
    const WINDOW: usize = 16;
    const BINS: usize = WINDOW / 2 + 1;
    let spec = DiscriminatorSpec::MultiFrame { windows: vec![WINDOW], channels: 5 };
    let discriminators = Discriminators::new(&[spec], 1);
    let vars = filled(&discriminators).vars(Tracking::None);
    let samples = uniform("frames", 70, 0, 0.5, 0.0);
    let judged = discriminators.forward(&vars, tensor(samples.clone(), [1, 1, 70])).unwrap().remove(0);
    assert_eq!((judged.features.len(), judged.score.dims()), (4, [1, 1, 1, 14]));

    let hann = |t: usize| 0.5 - 0.5 * (std::f64::consts::TAU * t as f64 / WINDOW as f64).cos();
    let scale = 1.0 / (0..WINDOW).map(|t| hann(t) * hann(t)).sum::<f64>().sqrt();
    // Of frame `f`: real parts of all bins, then imaginary ones.
    let frame = |f: usize| {
        let part = |k: usize, g: fn(f64) -> f64| {
            let angle = |t: usize| std::f64::consts::TAU * (k * t) as f64 / WINDOW as f64;
            (0..WINDOW).map(|t| f64::from(samples[f * 4 + t]) * hann(t) * scale * g(angle(t))).sum::<f64>()
        };
        let values: Vec<(f64, f64)> = (0..BINS).map(|k| (part(k, f64::cos), -part(k, f64::sin))).collect();
        let compress = |(re, im): (f64, f64)| (re * re + im * im + 1e-6).powf(-0.35);
        let real = values.iter().map(|v| v.0 * compress(*v));
        real.chain(values.iter().map(|v| v.1 * compress(*v))).collect::<Vec<f64>>()
    };
    let frames: Vec<Vec<f64>> = (0..14).map(frame).collect();
    let weight = host(vars.weight::<4>("disc.0.0.0.0").unwrap());
    let bias = host(vars.get::<1>("disc.0.0.0.0.bias").unwrap());
    for (i, got) in host(judged.features[0].clone()).into_iter().enumerate() {
        let (channel, at) = (i / 14, i % 14);
        let mut sum = f64::from(bias[channel]);
        for tap in 0..3 {
            let Some(row) = (at + tap).checked_sub(1).and_then(|f| frames.get(f)) else { continue };
            for (c, value) in row.iter().enumerate() {
                sum += value * f64::from(weight[(channel * 2 * BINS + c) * 3 + tap]);
            }
        }
        let expected = if sum < 0.0 { 0.2 * sum } else { sum };
        assert!((f64::from(got) - expected).abs() < 1e-4, "value {i}: {got} for {expected}");
    }

    let loss = |x: Tensor<3>| discriminators.forward(&vars, x).unwrap().remove(0).score.square().mean();
    let leaf = tensor(samples.clone(), [1, 1, 70]).autodiff().require_grad();
    let gradient = host(leaf.grad(&loss(leaf.clone()).backward()).unwrap());
    // Along its signs, where the slope is steepest: compressed magnitudes bend sharply near zero.
    let analytic: f64 = gradient.iter().map(|g| f64::from(g.abs())).sum();
    let moved = |sign: f32| {
        let x = samples.iter().zip(&gradient).map(|(x, g)| x + sign * 5e-4 * g.signum()).collect();
        f64::from(host(loss(tensor(x, [1, 1, 70])))[0])
    };
    near("gradient", analytic, (moved(1.0) - moved(-1.0)) / 1e-3, 0.02);
}

/// HiFi-GAN's pooling between scales: means of four samples, two apart, over zeros at the ends.
#[test]
fn lower_scales_see_averages() {
    let one = StackLayer { channels: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], groups: 1 };
    let mut discriminators = Discriminators::default();
    discriminators.add_scale("d", 1, 1, &[one]);
    let mut store = Store::new(&device::cpu());
    discriminators.initialise(&mut store, 0).unwrap();
    store.set("d.0.0.weight_v", Tensor::from_floats([1.0], &device::cpu()));
    store.set("d.0.0.weight_g", Tensor::from_floats([1.0], &device::cpu()));
    store.set("d.0.0.bias", Tensor::from_floats([0.0], &device::cpu()));
    let x = tensor((1..=6).map(|v| v as f32).collect(), [1, 1, 6]);
    let judged = discriminators.forward(&store.vars(Tracking::None), x).unwrap();
    assert_eq!(host(judged[0].features[0].clone()), [0.75, 2.5, 4.5, 2.75]);
}

#[test]
fn balancer() {
    let weights = BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 3.0)]);
    let mut balancer = Balancer::new(weights, 0.9);
    for (step, expected) in fixtures()["balancer"].as_array().unwrap().iter().enumerate() {
        let y = tensor(uniform(&format!("y{step}"), 100, 0, 1.0, 0.0), [2, 1, 50]);
        let gradient = |loss: &dyn Fn(Tensor<3>) -> Tensor<1>| {
            let leaf = y.clone().autodiff().require_grad();
            leaf.grad(&loss(leaf.clone()).backward()).unwrap()
        };
        let a = gradient(&|y| y.square().mean());
        let b = gradient(&|y| y.sub_scalar(1.0).abs().mean().mul_scalar(100.0));
        let balanced = balancer.combine(vec![("a", a), ("b", b), ("unknown", y.clone())]).unwrap();
        for name in ["a", "b"] {
            near(name, balanced.norms[name], number(&expected["norms"][name]), 1e-5);
        }
        let got = host(balanced.gradient);
        let norm = got.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        near("norm", norm, number(&expected["gradient_norm"]), 1e-5);
        for (got, expected) in got.iter().zip(numbers(&expected["gradient"])) {
            near("gradient", f64::from(*got), expected, 1e-4);
        }
    }
}

/// A loss of no gradient (its average is zero) has no part, and does not turn the others into NaN.
#[test]
fn a_loss_without_gradient_is_left_out_of_balance() {
    let weights = BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]);
    let mut balancer = Balancer::new(weights, 0.9);
    let (zero, one) = (tensor(vec![0.0; 4], [1, 1, 4]), tensor(vec![1.0; 4], [1, 1, 4]));
    let balanced = balancer.combine(vec![("a", zero.clone()), ("b", one)]).unwrap();
    assert_eq!(host(balanced.gradient), [0.25; 4]);
    assert!(balancer.combine(vec![("a", zero)]).is_none());
}
