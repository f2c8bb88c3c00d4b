//! The matrix kernel: register tiles of rows by panels, and the order in which they cover an output.

use core::ops::Range;

use super::map::{Finish, FinishOp};
use super::simd::{Op, Simd};
use super::{Element, Epilogue, Matrix, PANEL, Rows, Start, narrow};

/// Values of a panel's depth that are worked through for all rows before the next: a pair of panels of this
/// depth stays in the second cache.
const DEPTH_BLOCK: usize = if cfg!(test) { 24 } else { 1024 };
/// Values of the left operand that are worked through for all panels before the next.
const ROW_BLOCK: usize = if cfg!(test) { 256 } else { 1 << 16 };

/// How far ahead of their use, in values of a panel's depth, weights are asked for.
const AHEAD: usize = 32;

/// Where a tile's sums start.
#[derive(Clone, Copy)]
pub(super) enum Init {
    Zero,
    Bias(*const f32),
    Output,
}

/// A tile: `M` rows by `N` vectors of neighbouring columns, all sums in registers.
#[derive(Clone, Copy)]
pub(super) struct Tile<E> {
    /// Row 0, tap 0.
    pub(super) a: *const f32,
    pub(super) row_stride: usize,
    pub(super) taps: usize,
    pub(super) tap_stride: isize,
    pub(super) depth: usize,
    /// The first panel, from the first value of the sum on.
    pub(super) b: *const E,
    /// Values between two panels.
    pub(super) panel_stride: usize,
    pub(super) init: Init,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

/// A [`Tile`] of known size that describes memory that is there.
pub(super) struct TileOf<'a, E, const M: usize, const N: usize>(&'a Tile<E>);

impl<'a, E, const M: usize, const N: usize> TileOf<'a, E, M, N> {
    /// # Safety
    /// `M` rows of `a`, as many panels as `N` vectors reach and a bias for all of these columns can be read, and
    /// the output be read, and written by nobody else.
    #[inline(always)]
    pub(super) unsafe fn new(tile: &'a Tile<E>) -> Self {
        Self(tile)
    }
}

impl<E: Element, const M: usize, const N: usize> Op for TileOf<'_, E, M, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let per_panel = PANEL / S::W;
        let mut acc = [[s.splat(0.0); N]; M];
        // SAFETY: `new`'s.
        unsafe {
            match t.init {
                Init::Zero => {}
                Init::Bias(p) => {
                    for row in &mut acc {
                        for (v, x) in row.iter_mut().enumerate() {
                            *x = s.load(p.add(v * S::W));
                        }
                    }
                }
                Init::Output => {
                    for (i, row) in acc.iter_mut().enumerate() {
                        for (v, x) in row.iter_mut().enumerate() {
                            *x = s.load(t.out.add(i * t.out_stride + v * S::W));
                        }
                    }
                }
            }
            let mut b = t.b;
            for j in 0..t.taps {
                let a = t.a.wrapping_offset(j as isize * t.tap_stride);
                for c in 0..t.depth {
                    let mut w = [s.splat(0.0); N];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = E::load(s, b.add(v / per_panel * t.panel_stride + v % per_panel * S::W));
                    }
                    // A single row reads nothing but weights, as fast as they come.
                    for v in (0..if M > 1 { N } else { 0 }).step_by(per_panel) {
                        s.prefetch(b.wrapping_add(v / per_panel * t.panel_stride + AHEAD * PANEL).cast());
                    }
                    b = b.wrapping_add(PANEL);
                    for (i, row) in acc.iter_mut().enumerate() {
                        let x = s.splat(*a.add(i * t.row_stride + c));
                        for (sum, w) in row.iter_mut().zip(w) {
                            *sum = s.fma(x, w, *sum);
                        }
                    }
                }
            }
            for (i, row) in acc.iter().enumerate() {
                for (v, x) in row.iter().enumerate() {
                    s.store(t.out.add(i * t.out_stride + v * S::W), *x);
                }
            }
        }
    }
}

/// A product whose slices are known to be long enough; pointers are at row 0, column 0.
#[derive(Clone, Copy)]
pub(super) struct Job<'a, E> {
    pub(super) a: Rows<'a>,
    pub(super) w: Matrix<'a, E>,
    pub(super) start: Start<'a>,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

// SAFETY: the output pointer is the only reason that it is not; parts of a job write disjoint outputs.
unsafe impl<E: Sync> Sync for Job<'_, E> {}

impl<E> Job<'_, E> {
    /// Where row `t`, tap 0 starts.
    #[inline(always)]
    pub(super) fn row(&self, t: usize) -> *const f32 {
        self.a.data.as_ptr().wrapping_add(self.a.origin + t * self.a.row_stride)
    }

    /// What is left to do to a block of finished sums, if anything.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&self, s: S, rows: Range<usize>, columns: Range<usize>) {
        let Epilogue { residual, then } = self.epilogue;
        if residual.is_none() && matches!(then, super::Pointwise::Identity) {
            return;
        }
        let block = Finish {
            then,
            out: self.out.wrapping_add(rows.start * self.out_stride + columns.start),
            out_stride: self.out_stride,
            residual: residual.map(|(data, origin, stride)| {
                (data.as_ptr().wrapping_add(origin + rows.start * stride + columns.start), stride)
            }),
            rows: rows.len(),
            first: columns.start,
            columns: columns.len(),
        };
        // SAFETY: the block lies in a job whose slices are long enough.
        s.call(unsafe { FinishOp::new(block) });
    }
}

/// Some rows and panels of a job.
pub(super) struct Part<'a, E> {
    job: &'a Job<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<'a, E: Element> Part<'a, E> {
    /// `columns` starts at a panel, and ends at one or with the job.
    /// # Safety
    /// The job's slices are long enough, and nobody else works on these rows and columns of its output.
    pub(super) unsafe fn new(job: &'a Job<'a, E>, rows: Range<usize>, columns: Range<usize>) -> Self {
        Self { job, rows, columns }
    }

    /// All values of the sum for some rows and the columns of `vectors` vectors.
    #[inline(always)]
    fn columns<S: Simd>(&self, s: S, tiles: Tiles, range: Range<usize>, columns: Range<usize>, vectors: usize) {
        let Job { a, w, start, out, out_stride, .. } = *self.job;
        let panel = w.data.as_ptr().wrapping_add(columns.start * w.depth);
        // One tile has no use for blocks.
        let block = if range.len() == 1 { usize::MAX } else { DEPTH_BLOCK };
        let tap_block = (block / a.depth.max(1)).clamp(1, a.taps.max(1));
        let depth_block = if a.depth > block { block } else { a.depth.max(1) };
        let (mut tap, mut c) = (0, 0);
        loop {
            let taps = tap_block.min(a.taps - tap);
            let depth = depth_block.min(a.depth - c);
            let first = tap == 0 && c == 0;
            let k = tap * a.depth + c;
            let offset = (tap as isize).wrapping_mul(a.tap_stride).wrapping_add(c as isize);
            c += depth;
            if c >= a.depth {
                (tap, c) = (tap + taps, 0);
            }
            let last = tap >= a.taps;
            for i in range.clone() {
                let rows = self.rows.start + tiles.start(i)..self.rows.start + tiles.start(i + 1);
                let out = out.wrapping_add(rows.start * out_stride + columns.start);
                let tile = Tile {
                    a: self.job.row(rows.start).wrapping_offset(offset),
                    row_stride: a.row_stride,
                    taps,
                    tap_stride: a.tap_stride,
                    depth,
                    b: panel.wrapping_add(k * PANEL),
                    panel_stride: w.depth * PANEL,
                    init: match start {
                        _ if !first => Init::Output,
                        Start::Zero => Init::Zero,
                        Start::Bias(b) => Init::Bias(b.as_ptr().wrapping_add(columns.start)),
                        Start::Output => Init::Output,
                    },
                    out,
                    out_stride,
                };
                // SAFETY: rows and columns are the job's, whose slices are long enough, or go by way of `partial`.
                unsafe {
                    if columns.len() == vectors * S::W {
                        s.tile(rows.len(), vectors, &tile);
                    } else {
                        partial(s, tile, rows.len(), columns.len(), vectors);
                    }
                }
                if last {
                    self.job.finish(s, rows, columns.clone());
                }
            }
            if last {
                return;
            }
        }
    }
}

/// Values of the largest tile.
const TILE: usize = 12 * 2 * PANEL;

/// A tile of which only the first `columns` columns are there.
/// # Safety
/// As [`TileOf::new`] for these.
#[inline(always)]
unsafe fn partial<S: Simd, E: Element>(s: S, tile: Tile<E>, rows: usize, columns: usize, vectors: usize) {
    let width = vectors * S::W;
    let mut bias = [0.0f32; TILE];
    let mut out = [0.0f32; TILE];
    let whole = Tile {
        init: match tile.init {
            Init::Bias(_) => Init::Bias(bias.as_ptr()),
            init => init,
        },
        out: out.as_mut_ptr(),
        out_stride: width,
        ..tile
    };
    // SAFETY: the caller's; `rows * width <= TILE`.
    unsafe {
        match tile.init {
            Init::Zero => {}
            Init::Bias(p) => core::ptr::copy_nonoverlapping(p, bias.as_mut_ptr(), columns),
            Init::Output => {
                for i in 0..rows {
                    let from = tile.out.add(i * tile.out_stride);
                    core::ptr::copy_nonoverlapping(from, whole.out.add(i * width), columns);
                }
            }
        }
        s.tile(rows, vectors, &whole);
        for i in 0..rows {
            let to = tile.out.add(i * tile.out_stride);
            core::ptr::copy_nonoverlapping(whole.out.add(i * width), to, columns);
        }
    }
}

/// `rows` split into tiles that differ by at most one row.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    count: usize,
}

impl Tiles {
    #[inline(always)]
    fn start(self, i: usize) -> usize {
        i * (self.rows / self.count) + i.min(self.rows % self.count)
    }
}

impl<E: Element> Op for Part<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.rows.is_empty() || self.columns.is_empty() {
            return;
        }
        if let Some(plan) = narrow::plan::<S, E>(self.job) {
            return narrow::run(s, self.job, self.rows, plan);
        }
        let rows = self.rows.len();
        let tiles = Tiles { rows, count: rows.div_ceil(S::ROWS) };
        let block = (ROW_BLOCK / self.job.a.row_stride.max(1) / S::ROWS).max(8);
        let mut tile = 0;
        while tile < tiles.count {
            let range = tile..tiles.count.min(tile + block);
            tile = range.end;
            let mut column = self.columns.start;
            while column < self.columns.end {
                let vectors = S::vectors(rows / tiles.count, (self.columns.end - column).div_ceil(S::W));
                let end = self.columns.end.min(column + vectors * S::W);
                self.columns(s, tiles, range.clone(), column..end, vectors);
                column = end;
            }
        }
    }
}
