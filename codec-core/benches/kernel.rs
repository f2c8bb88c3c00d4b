//! The kernels on the shapes of published codecs, beside the machine's peak: a loop of fused multiply-adds
//! between registers. Throughput is in multiply-adds, so `Gelem/s` times two is GFLOP/s.
//!
//! `cargo bench -p codec-core --bench kernel -- avx512` runs one instruction set.

use std::hint::black_box;
use std::time::Duration;

use codec_core::kernel::{
    Compute, Epilogue, Isa, Out, PANEL, Panels, Pointwise, Rows, Start, Weights, depthwise, lstm_cell, matmul,
    panel_len, pointwise,
};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

/// A convolution from `channels` to `columns` channels (a linear layer has one tap).
struct Shape {
    name: &'static str,
    rows: usize,
    channels: usize,
    taps: usize,
    stride: usize,
    dilation: usize,
    columns: usize,
}

const fn shape(
    name: &'static str,
    [rows, channels, columns]: [usize; 3],
    [taps, stride, dilation]: [usize; 3],
) -> Shape {
    Shape { name, rows, channels, taps, stride, dilation, columns }
}

const SHAPES: [Shape; 16] = [
    shape("1 to 32, 7 taps", [24_000, 1, 32], [7, 1, 1]),
    shape("32 to 32, 7 taps", [24_000, 32, 32], [7, 1, 1]),
    shape("32 to 16, 3 taps", [24_000, 32, 16], [3, 1, 1]),
    shape("64 to 64, 7 taps 3 apart", [12_000, 64, 64], [7, 1, 3]),
    shape("96 to 96, 7 taps", [8_000, 96, 96], [7, 1, 1]),
    shape("128 to 64, 3 taps", [3_000, 128, 64], [3, 1, 1]),
    shape("256 to 512, 16 taps, stride 8", [75, 256, 512], [16, 8, 1]),
    shape("512 to 2048", [75, 512, 2048], [1, 1, 1]),
    shape("768 to 768, 7 taps", [430, 768, 768], [7, 1, 1]),
    shape("1024 to 1024, 7 taps", [86, 1024, 1024], [7, 1, 1]),
    shape("512 to 2048, 1 row", [1, 512, 2048], [1, 1, 1]),
    shape("128 to 256, 4 taps, 1 row", [1, 128, 256], [4, 1, 1]),
    shape("128 to 256, 4 taps, 2 rows", [2, 128, 256], [4, 1, 1]),
    shape("32 to 1, 7 taps", [24_000, 32, 1], [7, 1, 1]),
    shape("96 to 1, 7 taps", [24_000, 96, 1], [7, 1, 1]),
    shape("32 to 2, 7 taps", [24_000, 32, 2], [7, 1, 1]),
];

/// Values from a cache line's start on, as an engine keeps its weights and signals: a vector that straddles two
/// lines costs two loads.
struct Aligned(Vec<f32>, usize);

impl core::ops::Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[self.1..]
    }
}

impl core::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0[self.1..]
    }
}

fn noise(len: usize) -> Aligned {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let mut values: Vec<f32> = Vec::with_capacity(len + PANEL);
    let start = values.as_ptr().align_offset(64);
    values.extend((0..(start + len) as u32).map(value));
    Aligned(values, start)
}

/// `MACS` multiply-adds on registers.
const MACS: usize = 24 * 16 * 4096;

macro_rules! peak {
    ($name:ident, $features:literal, $lanes:literal, $chains:literal, $vector:ty, $splat:path, $fma:expr) => {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        #[target_feature(enable = $features)]
        pub fn $name() {
            let mut sums: [$vector; $chains] = [$splat(black_box(1.0)); $chains];
            let (a, b) = ($splat(black_box(0.5)), $splat(black_box(0.25)));
            for _ in 0..MACS / $lanes / $chains {
                for sum in &mut sums {
                    *sum = $fma(a, b, *sum);
                }
            }
            black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod peaks {
    use super::{MACS, black_box};
    use core::arch::x86_64::*;
    peak!(avx512, "avx512f", 16, 24, __m512, _mm512_set1_ps, |a, b, c| _mm512_fmadd_ps(c, a, b));
    peak!(avx2, "avx2,fma", 8, 12, __m256, _mm256_set1_ps, |a, b, c| _mm256_fmadd_ps(c, a, b));
    peak!(scalar, "fma", 1, 12, __m128, _mm_set_ss, |a, b, c| _mm_fmadd_ss(c, a, b));
}

/// The fastest that multiply-adds of an instruction set can be, if this bench knows its instructions.
fn peak(isa: Isa) -> Option<fn()> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(|| {
            // SAFETY: the instruction set was found on this machine.
            unsafe { peaks::avx512() }
        }),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(|| {
            // SAFETY: the instruction set was found on this machine.
            unsafe { peaks::avx2() }
        }),
        #[cfg(target_arch = "x86_64")]
        Isa::Scalar if std::arch::is_x86_feature_detected!("fma") => Some(|| {
            // SAFETY: the instruction set was found on this machine.
            unsafe { peaks::scalar() }
        }),
        _ => None,
    }
}

fn products(group: &mut BenchmarkGroup<'_, WallTime>, cx: Compute<'_>) {
    for s in &SHAPES {
        let depth = s.taps * s.channels;
        let x = noise(((s.rows - 1) * s.stride + (s.taps - 1) * s.dilation + 1) * s.channels);
        let (w, bias) = (noise(panel_len(s.columns, depth)), noise(s.columns));
        let mut y = noise(s.rows * s.columns);
        let rows = Rows {
            data: &x,
            origin: 0,
            rows: s.rows,
            row_stride: s.stride * s.channels,
            taps: s.taps,
            tap_stride: (s.dilation * s.channels) as isize,
            depth: s.channels,
        };
        let panels = Panels { columns: s.columns, depth, data: Weights::F32(&w) };
        let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
        group.throughput(Throughput::Elements((s.rows * depth * s.columns) as u64));
        group.bench_function(s.name, |b| {
            b.iter(|| {
                let out = Out { data: &mut y, origin: 0, row_stride: s.columns };
                assert!(matmul(cx, rows, panels, Start::Bias(&bias), epilogue, out));
            });
        });
    }
}

fn others(group: &mut BenchmarkGroup<'_, WallTime>, cx: Compute<'_>) {
    const CHANNELS: usize = 64;
    const ROWS: usize = 1000;
    let (x, w) = (noise((ROWS + 6) * CHANNELS), noise(7 * CHANNELS));
    let mut y = noise(ROWS * CHANNELS);
    let rows = Rows {
        data: &x,
        origin: 0,
        rows: ROWS,
        row_stride: CHANNELS,
        taps: 7,
        tap_stride: CHANNELS as isize,
        depth: CHANNELS,
    };
    let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
    group.throughput(Throughput::Elements((7 * ROWS * CHANNELS) as u64));
    group.bench_function("depthwise, 64 channels, 7 taps", |b| {
        b.iter(|| {
            let out = Out { data: &mut y, origin: 0, row_stride: CHANNELS };
            assert!(depthwise(cx, rows, CHANNELS, &w, Start::Zero, epilogue, out));
        });
    });
    let parameters = vec![1.0; CHANNELS];
    let functions = [
        ("ELU", Pointwise::Elu(1.0)),
        ("Snake", Pointwise::Snake { alpha: &parameters, inverse: &parameters }),
        ("tanh", Pointwise::Tanh),
    ];
    group.throughput(Throughput::Elements((ROWS * CHANNELS) as u64));
    for (name, f) in functions {
        let mut y = noise(ROWS * CHANNELS);
        group.bench_function(name, |b| b.iter(|| pointwise(cx, f, CHANNELS, &mut y)));
    }
    let (gates, mut cell, mut hidden) = (noise(4 * 512), noise(512), noise(512));
    group.throughput(Throughput::Elements(512));
    group.bench_function("LSTM cell, 512 units", |b| b.iter(|| lstm_cell(cx, &gates, &mut cell, &mut hidden)));
}

fn kernels(c: &mut Criterion) {
    for isa in Isa::all_available() {
        let mut group = c.benchmark_group(isa.name());
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400)).sample_size(10);
        if let Some(peak) = peak(isa) {
            group.throughput(Throughput::Elements(MACS as u64));
            group.bench_function("peak", |b| b.iter(peak));
        }
        let cx = Compute { isa, pool: None };
        products(&mut group, cx);
        others(&mut group, cx);
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
