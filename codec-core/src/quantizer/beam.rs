//! Beam search over the stages of a residual quantizer: of all partial codings of a row, those with the
//! smallest squared error are carried on, where the greedy search carries one.

use super::program::{Chain, Kind, Step, Vq};
use super::rows::{Matrix, Run, energy, keep_smallest, take};
use crate::RunError;
use crate::table::Table;

/// Whether all steps of a chain are codebooks whose entries can be taken off, once a frame.
pub(super) fn applies(steps: Table<'_, Step>) -> bool {
    steps.iter().all(|s| s.decodes && s.stride == 1 && s.times == 1 && matches!(s.kind, Kind::Vq(_)))
}

fn book(step: &Step) -> Option<&Vq> {
    match &step.kind {
        Kind::Vq(vq) => Some(vq),
        _ => None,
    }
}

/// The most that any step needs a beam: a row of the chain, its inner channels, its scores, its decoded entry.
fn widths(steps: Table<'_, Step>) -> [usize; 4] {
    let column = steps.iter().map(|s| s.column).min().unwrap_or(0);
    let mut most = [0; 4];
    for step in steps.iter() {
        let size = book(&step).map_or(0, |vq| vq.search.size);
        let needs = [step.column + step.width - column, step.inner, size, step.width];
        most.iter_mut().zip(needs).for_each(|(m, n)| *m = (*m).max(n));
    }
    most
}

pub(super) fn scratch_len(steps: Table<'_, Step>, rows: usize, beam: usize) -> usize {
    if !applies(steps) {
        return 0;
    }
    let [width, inner, scores, outer] = widths(steps);
    rows * beam * (2 * width + 2 + steps.len() + inner + scores + outer) + 2 * beam
}

/// Keeps where the chain starts from, before the greedy search takes from it.
pub(super) fn begin(start: Matrix<'_>, work: &mut [f32]) {
    start.copy_to(&mut work[..start.rows * start.width]);
}

/// What is free while [`begin`]'s copy is held.
pub(super) fn after_start(work: &mut [f32], rows: usize, width: usize) -> &mut [f32] {
    &mut work[rows * width..]
}

/// Replaces the codes of those rows for which the beam ends nearer than the greedy search, which ended at
/// `greedy` (what is left of the chain).
#[allow(clippy::too_many_arguments)]
pub(super) fn improve(
    run: Run<'_>,
    steps: Table<'_, Step>,
    chain: &Chain,
    beam: usize,
    greedy: Matrix<'_>,
    codes: &mut [u16],
    codebooks: usize,
    mut work: &mut [f32],
) -> Result<(), RunError> {
    let (rows, width) = (greedy.rows, chain.width);
    let [_, inner, scores, outer] = widths(steps);
    // `[rows, beams, width]`, rows of beams packed as tightly as there are beams; `begin` filled one each.
    let mut residuals = take(&mut work, rows * beam * width);
    let mut next_residuals = take(&mut work, rows * beam * width);
    let mut errors = take(&mut work, rows * beam);
    let mut next_errors = take(&mut work, rows * beam);
    // `[steps, rows, beam]`: `parent * size + entry`, exact in f32.
    let history = take(&mut work, steps.len() * rows * beam);
    let inner = take(&mut work, rows * beam * inner);
    let scores = take(&mut work, rows * beam * scores);
    let outer = take(&mut work, rows * beam * outer);
    let best = take(&mut work, beam);
    let indices = take(&mut work, beam);

    for (row, error) in residuals.chunks_exact(width).zip(&mut errors[..rows]) {
        *error = energy(row);
    }
    let mut active = 1;
    for (step, history) in steps.iter().zip(history.chunks_exact_mut(rows * beam)) {
        let Some(vq) = book(&step) else { continue };
        let (size, column) = (vq.entries.size, step.column - chain.column);
        let x = Matrix { data: residuals, origin: column, stride: width, rows: rows * active, width: step.width };
        let scores = &mut scores[..rows * active * size];
        match vq.back {
            Some(back) => {
                let inner = &mut inner[..rows * active * step.inner];
                back.apply(run, x, inner)?;
                vq.entries.scores(run, Matrix::contiguous(inner, rows * active, step.inner), scores)?;
            }
            None => vq.entries.scores(run, x, scores)?,
        }
        let bias = step.project_out.and_then(|dense| dense.bias(run.data)).unwrap_or(&[]);
        let kept = beam.min(active * size);
        for row in 0..rows {
            // An entry's distance is measured from the residual less the projection's bias.
            for (i, error) in errors[row * active..][..active].iter_mut().enumerate() {
                let x = x.row(row * active + i);
                *error += bias.iter().zip(x).map(|(b, r)| b * (b - 2.0 * r)).sum::<f32>();
            }
            let from = row * active;
            let candidates = scores[from * size..][..active * size]
                .chunks_exact(size)
                .zip(&errors[from..])
                .flat_map(|(scores, error)| scores.iter().map(move |score| error - 2.0 * score));
            keep_smallest(candidates, &mut best[..kept], &mut indices[..kept]);
            for (i, &index) in indices[..kept].iter().enumerate() {
                let (parent, entry, to) = (index as usize / size, index as usize % size, row * kept + i);
                history[row * beam + i] = index;
                let parent = &residuals[(from + parent) * width..][..width];
                next_residuals[to * width..][..width].copy_from_slice(parent);
                vq.entries.fold_entry(run.data, entry, &mut inner[to * step.inner..][..step.inner], |_, e| e);
            }
        }
        let outer = &mut outer[..rows * kept * step.width];
        step.leave(run, &inner[..rows * kept * step.inner], rows * kept, outer)?;
        for (i, entry) in outer.chunks_exact(step.width).enumerate() {
            let residual = &mut next_residuals[i * width..][..width];
            step.subtract(&mut residual[column..][..step.width], entry);
            next_errors[i] = energy(residual);
        }
        (residuals, next_residuals) = (next_residuals, residuals);
        (errors, next_errors) = (next_errors, errors);
        active = kept;
    }

    for row in 0..rows {
        let mut best = (energy(greedy.row(row)), None);
        for (i, &error) in errors[row * active..][..active].iter().enumerate() {
            if error < best.0 {
                best = (error, Some(i));
            }
        }
        let Some(mut at) = best.1 else { continue };
        let stages = (0..steps.len()).rev().filter_map(|i| steps.get(i));
        for (step, history) in stages.zip(history.chunks_exact(rows * beam).rev()) {
            let size = book(&step).map_or(1, |vq| vq.entries.size);
            let index = history[row * beam + at] as usize;
            codes[row * codebooks + step.code] = (index % size) as u16;
            at = index / size;
        }
    }
    Ok(())
}
