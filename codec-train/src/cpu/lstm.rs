//! The recurrence of a long short-term memory.

use burn::tensor::Tensor;
use codec_core::kernel::{self, Compute, Epilogue, Out, Panels, Pointwise, Rows, Start, Weights, matmul};
use rayon::prelude::*;

use super::{
    Operand, SIGNAL, all, ordered, plain,
    product::{Geometry, packed, weight_gradient},
    record, tensor,
};

/// A matrix for products of `items` rows that lie `rows` apart.
struct Matrix {
    columns: usize,
    depth: usize,
    panels: Vec<f32>,
}

impl Matrix {
    fn new(columns: usize, depth: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        Self { columns, depth, panels: packed(columns, depth, weight) }
    }

    /// Adds the product of row `from` of every item of `x` to row `to` of every item of `y`, which have `rows` rows.
    fn add(&self, cx: Compute<'_>, items: usize, x: (&[f32], usize, usize), y: (&mut [f32], usize, usize)) {
        let (x, from, x_rows) = x;
        let (y, to, y_rows) = y;
        let rows = Rows {
            data: x,
            origin: from * self.depth,
            rows: items,
            row_stride: x_rows * self.depth,
            taps: 1,
            tap_stride: 0,
            depth: self.depth,
        };
        let w = Panels { columns: self.columns, depth: self.depth, data: Weights::F32(&self.panels) };
        let out = Out { data: y, origin: to * self.columns, row_stride: y_rows * self.columns };
        let epilogue = Epilogue { residual: None, then: Pointwise::Identity };
        let fits = matmul(cx, rows, w, Start::Output, epilogue, out);
        debug_assert!(fits, "a product beyond its slices");
    }
}

/// Logistic functions of all but the third quarter of every row, hyperbolic tangents of that.
fn gates(sums: &[f32], wide: usize) -> Vec<f32> {
    let mut gates = sums.to_vec();
    gates.par_chunks_mut(wide.max(1)).for_each(|row| {
        let third = wide / 2..wide / 4 * 3;
        row[..third.start].iter_mut().for_each(|g| *g *= 0.5);
        row[third.end..].iter_mut().for_each(|g| *g *= 0.5);
        kernel::pointwise(super::alone(), Pointwise::Tanh, 1, row);
        row[..third.start].iter_mut().for_each(|g| *g = 0.5 + 0.5 * *g);
        row[third.end..].iter_mut().for_each(|g| *g = 0.5 + 0.5 * *g);
    });
    gates
}

/// The hidden states `[items, hidden, rows]` from what the input gives to the gates `[items, 4 * hidden, rows]` (input, forget,
/// cell, output) and the recurrent weight `[4 * hidden, hidden]`, from zero states.
pub(crate) fn recur(input: &Tensor<3>, weight: &Tensor<2>) -> Option<Tensor<3>> {
    let [items, wide, rows] = input.dims();
    let hidden = wide / 4;
    let (x, w) = (Operand::of(input)?, Operand::of(weight)?);
    let recurrent = w.plain();
    let weights: &[f32] = &recurrent;
    let matrix = Matrix::new(wide, hidden, |column, k| weights[column * hidden + k]);
    let mut sums = x.ordered(&SIGNAL).to_vec();
    let (mut cells, mut states) = (vec![0.0; items * rows * hidden], vec![0.0; items * rows * hidden]);
    let cx = all();
    for t in 0..rows {
        if t > 0 {
            matrix.add(cx, items, (&states, t - 1, rows), (&mut sums, t, rows));
        }
        for item in 0..items {
            let at = item * rows + t;
            if t > 0 {
                cells.copy_within((at - 1) * hidden..at * hidden, at * hidden);
            }
            let (cell, state) = (&mut cells[at * hidden..][..hidden], &mut states[at * hidden..][..hidden]);
            kernel::lstm_cell(cx, &sums[at * wide..][..wide], cell, state);
        }
    }
    let y = tensor(states.clone(), &[items, rows, hidden], &SIGNAL);
    Some(record([&x, &w], y, move |gradient, wanted| {
        let g = ordered(gradient, &SIGNAL);
        let (g, weights): (&[f32], &[f32]) = (&g, &recurrent);
        let matrix = Matrix::new(hidden, wide, |column, k| weights[k * hidden + column]);
        let gates = gates(&sums, wide);
        let mut bent = cells.clone();
        kernel::pointwise(all(), Pointwise::Tanh, 1, &mut bent);
        let zeros = vec![0.0; hidden];
        let mut slopes = vec![0.0; items * rows * wide];
        // Gradients of a row's states and cells that come from the row after it.
        let (mut of_states, mut of_cells) = (vec![0.0; items * hidden], vec![0.0; items * hidden]);
        for t in (0..rows).rev() {
            if t + 1 < rows {
                of_states.fill(0.0);
                matrix.add(all(), items, (&slopes, t + 1, rows), (&mut of_states, 0, 1));
            }
            for item in 0..items {
                let at = item * rows + t;
                let gates = &gates[at * wide..][..wide];
                let bent = &bent[at * hidden..][..hidden];
                let g = &g[at * hidden..][..hidden];
                let before = if t > 0 { &cells[(at - 1) * hidden..][..hidden] } else { &zeros[..] };
                let slopes = &mut slopes[at * wide..][..wide];
                let (next_state, next_cell) =
                    (&of_states[item * hidden..][..hidden], &mut of_cells[item * hidden..][..hidden]);
                for k in 0..hidden {
                    let (i, f) = (gates[k], gates[hidden + k]);
                    let (c, o) = (gates[2 * hidden + k], gates[3 * hidden + k]);
                    let state = g[k] + next_state[k];
                    let cell = next_cell[k] + state * o * (1.0 - bent[k] * bent[k]);
                    slopes[k] = cell * c * i * (1.0 - i);
                    slopes[hidden + k] = cell * before[k] * f * (1.0 - f);
                    slopes[2 * hidden + k] = cell * i * (1.0 - c * c);
                    slopes[3 * hidden + k] = state * bent[k] * o * (1.0 - o);
                    next_cell[k] = cell * f;
                }
            }
        }
        let weight = wanted[1].then(|| {
            // The states that every row starts from.
            let mut before = vec![0.0; states.len()];
            for (to, from) in before.chunks_exact_mut(rows * hidden).zip(states.chunks_exact(rows * hidden)) {
                to[hidden..].copy_from_slice(&from[..(rows - 1) * hidden]);
            }
            let geometry = Geometry {
                items,
                input: [1, rows],
                channels: [hidden, wide],
                kernel: [1, 1],
                stride: [1, 1],
                dilation: [1, 1],
                groups: 1,
            };
            plain(weight_gradient(geometry, &before, &slopes), &[wide, hidden])
        });
        [wanted[0].then(|| tensor(slopes, &[items, rows, wide], &SIGNAL)), weight]
    }))
}
