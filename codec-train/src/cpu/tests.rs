//! Against burn's own operations, and against finite differences.

use burn::tensor::{Device, Tensor, TensorData, activation, module::conv_transpose1d, ops::ConvTransposeOptions};

use super::{
    conv, layers,
    layers::Function,
    lstm,
    spectrum::{self, Compared, Filters, Frames, MelTerms, hann},
};
use crate::{loss::Ends, net::Random, store::host};

fn values(purpose: &str, count: usize) -> Vec<f32> {
    let mut random = Random::new(7, purpose, count as u64);
    (0..count).map(|_| random.normal() as f32).collect()
}

fn made<const D: usize>(purpose: &str, shape: [usize; D]) -> Tensor<D> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values(purpose, shape.iter().product()), shape), &device).require_grad()
}

fn near(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    let size = b.iter().map(|b| b.abs()).fold(1e-3, f32::max);
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 2e-5 * size, "{what}, {i}: {a} for {b}, of {size}");
    }
}

/// Takes a leaf's gradient.
type Leaf<'a> = &'a dyn Fn(&burn::tensor::Gradients) -> Vec<f32>;

/// Values and gradients of a sum that weighs every element differently.
fn graded<const D: usize, const E: usize>(y: Tensor<D>, leaves: [Leaf<'_>; E]) -> Vec<Vec<f32>> {
    let shape = y.dims();
    let weights = Tensor::from_data(TensorData::new(values("weights", shape.iter().product()), shape), &y.device());
    let out = host(y.clone());
    let gradients = (y * weights).sum().backward();
    let mut all = vec![out];
    all.extend(leaves.iter().map(|leaf| leaf(&gradients)));
    all
}

fn of<const D: usize>(x: &Tensor<D>) -> impl Fn(&burn::tensor::Gradients) -> Vec<f32> {
    let x = x.clone();
    move |gradients| host(x.grad(gradients).unwrap())
}

fn same(what: &str, ours: Vec<Vec<f32>>, burns: Vec<Vec<f32>>) {
    for (i, (a, b)) in ours.iter().zip(&burns).enumerate() {
        near(&format!("{what}, {}", ["result", "first", "second", "third"][i]), a, b);
    }
}

/// A convolution of images without padding, by its definition: values, and the gradients that [`graded`] takes.
fn defined(x: &Tensor<4>, w: &Tensor<4>, b: Option<&Tensor<1>>, options: conv::Options) -> Vec<Vec<f32>> {
    let conv::Options { stride, dilation, groups } = options;
    let ([items, input, height, width], [output, per_group, kh, kw]) = (x.dims(), w.dims());
    let rows = (height - (kh - 1) * dilation[0] - 1) / stride[0] + 1;
    let columns = (width - (kw - 1) * dilation[1] - 1) / stride[1] + 1;
    let (x, w) = (host(x.clone()), host(w.clone()));
    let b = b.map_or(vec![0.0; output], |b| host(b.clone()));
    let g = values("weights", items * output * rows * columns);
    let (mut y, mut gx, mut gw, mut gb) =
        (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; output]);
    for item in 0..items {
        for o in 0..output {
            for r in 0..rows {
                for t in 0..columns {
                    let at = ((item * output + o) * rows + r) * columns + t;
                    y[at] += f64::from(b[o]);
                    gb[o] += f64::from(g[at]);
                    for (c, h, k) in (0..per_group * kh * kw).map(|i| (i / (kh * kw), i / kw % kh, i % kw)) {
                        let c_in = o / (output / groups) * per_group + c;
                        let (h_in, t_in) = (r * stride[0] + h * dilation[0], t * stride[1] + k * dilation[1]);
                        let from = ((item * input + c_in) * height + h_in) * width + t_in;
                        let tap = ((o * per_group + c) * kh + h) * kw + k;
                        y[at] += f64::from(x[from]) * f64::from(w[tap]);
                        gx[from] += f64::from(g[at]) * f64::from(w[tap]);
                        gw[tap] += f64::from(g[at]) * f64::from(x[from]);
                    }
                }
            }
        }
    }
    [y, gx, gw, gb].map(|all: Vec<f64>| all.into_iter().map(|v| v as f32).collect()).to_vec()
}

#[test]
fn convolutions_are_as_defined() {
    // Items, input, output, taps, stride, dilation, groups, rows.
    for [items, input, output, taps, stride, dilation, groups, rows] in [
        [2, 3, 5, 1, 1, 1, 1, 9],
        [1, 1, 20, 7, 1, 1, 1, 40],
        [3, 20, 17, 3, 1, 2, 1, 23],
        [2, 8, 12, 4, 2, 1, 1, 30],
        [2, 8, 12, 5, 3, 1, 4, 31],
        [2, 6, 6, 5, 1, 1, 6, 19],
        [2, 6, 6, 3, 1, 4, 6, 29],
        [2, 6, 12, 3, 2, 1, 6, 29],
        [1, 4, 4, 3, 2, 3, 1, 33],
        [1, 4, 4, 3, 6, 4, 2, 47],
        [1, 2, 3, 2, 5, 1, 1, 31],
        [1, 3, 2, 3, 1, 1, 1, 2500],
        // Several pieces and parts.
        [2, 8, 12, 5, 3, 2, 4, 7000],
        [1, 20, 17, 1, 1, 1, 1, 3000],
    ] {
        let what = format!("{input} to {output}, taps {taps}, stride {stride}, dilation {dilation}, groups {groups}");
        let (x, w, b) =
            (made("x", [items, input, rows]), made("w", [output, input / groups, taps]), made("b", [output]));
        let ours = conv::conv1d(&x, &w, Some(&b), stride, dilation, groups).unwrap();
        let ours = graded(ours, [&of(&x), &of(&w), &of(&b)]);
        let options = conv::Options { stride: [1, stride], dilation: [1, dilation], groups };
        same(&what, ours, defined(&x.unsqueeze_dim(2), &w.unsqueeze_dim(2), Some(&b), options));
    }
}

#[test]
fn transposed_convolutions_are_burns() {
    for [items, input, output, taps, stride, groups, rows] in [
        [2, 5, 3, 4, 2, 1, 9],
        [1, 4, 8, 7, 3, 2, 11],
        [2, 6, 6, 2, 2, 1, 13],
        [1, 3, 2, 3, 5, 1, 8],
        [2, 4, 4, 8, 4, 4, 7],
    ] {
        let (x, w, b) =
            (made("x", [items, input, rows]), made("w", [input, output / groups, taps]), made("b", [output]));
        let ours = conv::conv_transpose1d(&x, &w, Some(&b), stride, groups).unwrap();
        let ours = graded(ours, [&of(&x), &of(&w), &of(&b)]);
        let options = ConvTransposeOptions::new([stride], [0], [0], [1], groups);
        let burns = conv_transpose1d(x.clone(), w.clone(), Some(b.clone()), options);
        same(&format!("taps {taps}, stride {stride}"), ours, graded(burns, [&of(&x), &of(&w), &of(&b)]));
    }
}

#[test]
fn convolutions_of_images_are_as_defined() {
    for (channels, [height, width], kernel, stride, dilation, padding, groups) in [
        ([2, 5], [14, 21], [3, 9], [1, 2], [1, 1], [1, 4], 1),
        ([4, 6], [14, 21], [3, 9], [1, 2], [4, 1], [4, 4], 1),
        ([4, 4], [14, 21], [5, 1], [3, 1], [1, 1], [2, 0], 1),
        ([8, 4], [14, 21], [1, 7], [1, 4], [1, 1], [0, 3], 4),
        ([3, 1], [14, 21], [3, 3], [1, 1], [1, 1], [1, 1], 1),
        ([3, 20], [14, 21], [1, 1], [1, 1], [1, 1], [0, 0], 1),
        // Several parts.
        ([4, 6], [24, 61], [3, 9], [1, 2], [2, 1], [2, 4], 2),
    ] {
        let [input, output] = channels;
        let (x, w) = (made("x", [2, input, height, width]), made("w", [output, input / groups, kernel[0], kernel[1]]));
        let b = made("b", [output]);
        let side = kernel[1] == 1 && kernel[0] > 1;
        let options = conv::Options { stride, dilation, groups };
        let padded = conv::zeros_around(&x, padding, side).unwrap();
        let ours = graded(conv::conv2d(&padded, &w, &b, options).unwrap(), [&of(&x), &of(&w), &of(&b)]);
        let [top, left] = padding;
        let mut defined = defined(&x.clone().pad((left, left, top, top), 0.0), &w, Some(&b), options);
        let shape = [2, input, height + 2 * top, width + 2 * left];
        let inner = Tensor::<4>::from_data(TensorData::new(defined[1].clone(), shape), &Device::flex());
        defined[1] = host(inner.slice([0..2, 0..input, top..top + height, left..left + width]));
        same(&format!("kernel {kernel:?}, stride {stride:?}"), ours, defined);
    }
}

#[test]
fn functions_are_burns() {
    let x = made("x", [2, 5, 33]);
    let elu = |x: Tensor<3>| x.clone().clamp_min(0.0) + x.clamp_max(0.0).exp().sub_scalar(1.0).mul_scalar(0.7);
    let all: [(Function, &dyn Fn(Tensor<3>) -> Tensor<3>); 5] = [
        (Function::Elu(0.7), &elu),
        (Function::LeakyRelu(0.1), &|x| activation::leaky_relu(x, 0.1)),
        (Function::Tanh, &|x| x.tanh()),
        (Function::Gelu, &activation::gelu),
        (Function::Silu, &activation::silu),
    ];
    for (f, burns) in all {
        // As it is, and as it lies after a convolution.
        for lying in [false, true] {
            let moved = || if lying { x.clone().swap_dims(1, 2) } else { x.clone() };
            let ours = graded(layers::pointwise(&moved(), f).unwrap(), [&of(&x)]);
            same(&format!("{f:?}"), ours, graded(burns(moved()), [&of(&x)]));
        }
    }
}

#[test]
fn layers_are_burns() {
    let (x, y) = (made("x", [2, 37, 11]), made("y", [2, 37, 11]));
    let (w, b) = (made("w", [37]), made("b", [37]));
    let channel = |v: &Tensor<1>| v.clone().reshape([1, 37, 1]);
    same(
        "scale",
        graded(layers::scale(&x, &w).unwrap(), [&of(&x), &of(&w)]),
        graded(x.clone() * channel(&w), [&of(&x), &of(&w)]),
    );
    let laid = conv::rows(&x, (0..11).map(Some).collect()).unwrap();
    same(
        "add",
        graded(layers::add(&laid, &y).unwrap(), [&of(&x), &of(&y)]),
        graded(x.clone() + y.clone(), [&of(&x), &of(&y)]),
    );
    let centred = x.clone() - x.clone().mean_dim(1);
    let norm = centred.clone() / centred.square().mean_dim(1).add_scalar(1e-5).sqrt() * channel(&w) + channel(&b);
    same(
        "layer norm",
        graded(layers::layer_norm(&x, &w, &b, 1e-5).unwrap(), [&of(&x), &of(&w), &of(&b)]),
        graded(norm, [&of(&x), &of(&w), &of(&b)]),
    );
    let alpha = channel(&w).add_scalar(3.0);
    let snake = x.clone() + (x.clone() * alpha.clone()).sin().square() / alpha.add_scalar(1e-9);
    same(
        "snake",
        graded(layers::snake(&x, &w.clone().add_scalar(3.0)).unwrap(), [&of(&x), &of(&w)]),
        graded(snake, [&of(&x), &of(&w)]),
    );
    same(
        "mean difference",
        graded(layers::mean_difference(&x, &y.clone().detach()).unwrap(), [&of(&x)]),
        graded((x.clone() - y.clone().detach()).abs().mean(), [&of(&x)]),
    );
    near("mean magnitude", &[layers::mean_magnitude(&laid).unwrap()], &host(x.abs().mean()));
}

#[test]
fn recurrences_are_burns() {
    let (items, hidden, rows) = (3, 5, 7);
    let (x, w) = (made("x", [items, 4 * hidden, rows]), made("w", [4 * hidden, hidden]));
    let mut state: Option<(Tensor<2>, Tensor<2>)> = None;
    let mut states = Vec::new();
    for t in 0..rows {
        let mut row = x.clone().slice_dim(2, t..t + 1).reshape([items, 4 * hidden]);
        if let Some((h, _)) = &state {
            row = row + h.clone().matmul(w.clone().transpose());
        }
        let gate = |k: usize| row.clone().slice_dim(1, k * hidden..(k + 1) * hidden);
        let new = activation::sigmoid(gate(0)) * gate(2).tanh();
        let cell = match state {
            Some((_, cell)) => activation::sigmoid(gate(1)) * cell + new,
            None => new,
        };
        let h = activation::sigmoid(gate(3)) * cell.clone().tanh();
        states.push(h.clone());
        state = Some((h, cell));
    }
    let burns = graded(Tensor::stack::<3>(states, 2), [&of(&x), &of(&w)]);
    same("lstm", graded(lstm::recur(&x, &w).unwrap(), [&of(&x), &of(&w)]), burns);
}

/// A loss's gradient along a direction against the loss at both sides.
fn slope(what: &str, loss: &dyn Fn(&[f32]) -> Compared) {
    let (x, direction) = (values("x", 1400), values("direction", 1400));
    let along: f64 = loss(&x).gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
    let step = 1e-4;
    let at = |sign: f32| loss(&x.iter().zip(&direction).map(|(x, d)| x + sign * step * d).collect::<Vec<_>>()).value;
    let slope = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
    assert!((along - slope).abs() <= 0.01 * slope.abs(), "{what}: {along}, by differences {slope}");
}

#[test]
fn gradients_of_spectral_losses_are_slopes() {
    let real = values("real", 1400);
    for (n, hop) in [(128, 32), (60, 25)] {
        let frames = Frames::new(n, hop, Ends::Centred, &hann(n, n, 1.0));
        let filters = Filters::new(&codec_core::pipeline::mel_filters(16_000.0, n, 9), n / 2 + 1);
        for (log, linear, square) in [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)] {
            let terms = MelTerms { log, linear, square, floor: 1e-5, power: 1e-12 };
            slope(&format!("mel of {n}: {log} {linear} {square}"), &|x| {
                spectrum::mel(&frames, &filters, terms, 700, x, &real)
            });
        }
        slope(&format!("compressed of {n}"), &|x| spectrum::compressed(&frames, 1e-6, 700, x, &real));
        slope(&format!("stft of {n}"), &|x| spectrum::stft(&crate::group::Alone, &frames, 1e-8, 1e-12, 700, x, &real));
    }
}

/// Both branches to the loss, either one, and one fork after the other: gradients are those of a tensor that is used twice.
#[test]
fn forks_lose_no_gradient() {
    let x = made("x", [2, 3, 5]);
    // As signals lie.
    let lying = |x: &Tensor<3>| conv::rows(x, (0..5).map(Some).collect()).unwrap();
    type Way = fn([Tensor<3>; 2]) -> Tensor<3>;
    let ways: [Way; 4] = [
        |[a, b]| a.clone() * a + b.sin(),
        |[a, _]| a.sin(),
        |[_, b]| b.sin(),
        |[a, b]| {
            let [c, d] = layers::forked(a);
            c.sin() * d + b.mul_scalar(3.0)
        },
    ];
    let plainly: [Way; 4] = [ways[0], ways[1], ways[2], |[a, b]| a.clone().sin() * a + b.mul_scalar(3.0)];
    for (i, (way, plain)) in ways.into_iter().zip(plainly).enumerate() {
        let burns = graded(plain([lying(&x), lying(&x)]), [&of(&x)]);
        same(&format!("way {i}"), graded(way(layers::forked(lying(&x))), [&of(&x)]), burns);
    }
}

#[test]
fn weight_norms_are_as_defined() {
    let (v, g) = (made("v", [5, 37]), made("g", [5]));
    let burns = v.clone() / v.clone().square().sum_dim(1).sqrt() * g.clone().reshape([5, 1]);
    let ours = graded(layers::weight_norm(&v, &g).unwrap(), [&of(&v), &of(&g)]);
    same("weight norm", ours, graded(burns, [&of(&v), &of(&g)]));
    let squares = layers::sum_of_squares(&v.clone().reshape([185])).unwrap();
    let expected: f64 = host(v).iter().map(|v| f64::from(*v).powi(2)).sum();
    assert!((squares - expected).abs() < 1e-6 * expected, "{squares} for {expected}");
}
