//! Multi-codebook quantisation with iterative refinement (Guo et al. 2022, "Predicting multi-codebook vector
//! quantization indexes for knowledge distillation"): a vector is the sum of one center a codebook.

use serde::{Deserialize, Serialize};

use super::program::{CodesMut, CodesRef};
use super::rows::{Matrix, Run, energy, keep_smallest, take};
use super::vq::Book;
use crate::RunError;
use crate::kernel::{argmax, pack, panel_len};

/// The most candidates that a choice keeps.
const MOST: usize = 128;

/// Codebooks (a power of two) of equal size, each with a row of logits that makes the first guess.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Mvq {
    pub codebooks: usize,
    pub refinements: usize,
    /// The first book of logits; its scores are the logits.
    pub logits: Book,
    /// The first book of centers, by distance.
    pub centers: Book,
}

impl Mvq {
    /// Candidates that are kept of a choice which covers `covered` codebooks: 16 (8 for books of up to 16
    /// entries), doubled whenever four times as many codebooks are covered; one when all are.
    fn keep(&self, covered: usize) -> usize {
        if covered == self.codebooks {
            return 1;
        }
        let base = if self.centers.size <= 16 { 8 } else { 16 };
        (base << (covered.ilog2() / 2).min(4)).min(MOST)
    }

    /// The most candidates over all choices, and of one choice, from level to level of the merging.
    fn largest(&self) -> (usize, usize) {
        let (mut all, mut one) = (0, 0);
        let (mut covered, mut kept) = (1, self.keep(1).min(self.centers.size));
        loop {
            all = all.max(self.codebooks / covered * kept);
            one = one.max(kept);
            if covered == self.codebooks {
                return (all, one);
            }
            covered *= 2;
            kept = self.keep(covered).min(kept * kept);
        }
    }

    pub fn scratch_len(&self, rows: usize) -> usize {
        let Book { size, dim, .. } = self.centers;
        let (all, one) = self.largest();
        let first = self.codebooks * self.keep(1).min(size);
        rows * (self.codebooks + 2 * dim + size + 2 * first)
            + 2 * (all * (dim + 1) + one * self.codebooks)
            + panel_len(one, dim)
            + one * one
            + 2 * one
    }

    /// Codes of `x`, `[rows, dim]`.
    pub fn encode(
        &self,
        run: Run<'_>,
        x: &[f32],
        mut scratch: &mut [f32],
        codes: &mut CodesMut<'_>,
    ) -> Result<(), RunError> {
        let Book { size, dim, .. } = self.centers;
        let rows = x.len() / dim;
        let kept = self.keep(1).min(size);
        // Indices are carried as f32, which holds them exactly.
        let chosen = take(&mut scratch, rows * self.codebooks);
        let residual = take(&mut scratch, rows * dim);
        let target = take(&mut scratch, rows * dim);
        let scores = take(&mut scratch, rows * size);
        let errors = take(&mut scratch, rows * self.codebooks * kept);
        let indices = take(&mut scratch, rows * self.codebooks * kept);

        for n in 0..self.codebooks {
            self.logits.nth(n).scores(run, Matrix::contiguous(x, rows, dim), scores)?;
            for (t, row) in scores.chunks_exact(size).enumerate() {
                chosen[t * self.codebooks + n] = argmax(run.cx, row).unwrap_or(0) as f32;
            }
        }
        for _ in 0..self.refinements {
            for (t, r) in residual.chunks_exact_mut(dim).enumerate() {
                r.fill(0.0);
                let codes = &chosen[t * self.codebooks..][..self.codebooks];
                for (n, &code) in codes.iter().enumerate() {
                    self.centers.nth(n).fold_entry(run.data, code as usize, r, |r, c| r + c);
                }
                r.iter_mut().zip(&x[t * dim..]).for_each(|(r, x)| *r = x - *r);
            }
            for n in 0..self.codebooks {
                let book = self.centers.nth(n);
                target.copy_from_slice(residual);
                for (t, row) in target.chunks_exact_mut(dim).enumerate() {
                    let code = chosen[t * self.codebooks + n] as usize;
                    book.fold_entry(run.data, code, row, |r, c| r + c);
                }
                book.scores(run, Matrix::contiguous(target, rows, dim), scores)?;
                for (t, row) in scores.chunks_exact(size).enumerate() {
                    let total = energy(&target[t * dim..][..dim]);
                    let at = (t * self.codebooks + n) * kept;
                    let candidates = row.iter().map(|score| total - 2.0 * score);
                    keep_smallest(candidates, &mut errors[at..][..kept], &mut indices[at..][..kept]);
                }
            }
            for t in 0..rows {
                let at = t * self.codebooks * kept;
                self.merge(
                    run,
                    &residual[t * dim..][..dim],
                    &errors[at..][..self.codebooks * kept],
                    &indices[at..][..self.codebooks * kept],
                    &mut chosen[t * self.codebooks..][..self.codebooks],
                    &mut *scratch,
                )?;
            }
        }
        for (t, row) in chosen.chunks_exact(self.codebooks).enumerate() {
            row.iter().enumerate().for_each(|(n, &code)| codes.set(t, n, code as usize));
        }
        Ok(())
    }

    /// One row's best joint replacement out of each book's kept candidates. A choice is one of `kept`
    /// candidates (its codes, its total squared error, and how it moves the sum); two neighbouring choices
    /// merge into one of all their pairs, for `|e + a + b|² = |e + a|² + |e + b|² - |e|² + 2 a · b`.
    fn merge(
        &self,
        run: Run<'_>,
        residual: &[f32],
        errors: &[f32],
        indices: &[f32],
        chosen: &mut [f32],
        mut scratch: &mut [f32],
    ) -> Result<(), RunError> {
        let dim = residual.len();
        let (all, one) = self.largest();
        let current = energy(residual);
        let mut kept = errors.len() / self.codebooks;
        let (mut moves, mut next_moves) = (take(&mut scratch, all * dim), take(&mut scratch, all * dim));
        let (mut totals, mut next_totals) = (take(&mut scratch, all), take(&mut scratch, all));
        let len = one * self.codebooks;
        let (mut codes, mut next_codes) = (take(&mut scratch, len), take(&mut scratch, len));
        let panels = take(&mut scratch, panel_len(one, dim));
        let products = take(&mut scratch, one * one);
        let (best, pairs) = (take(&mut scratch, one), take(&mut scratch, one));

        totals[..errors.len()].copy_from_slice(errors);
        codes[..indices.len()].copy_from_slice(indices);
        for (i, delta) in moves.chunks_exact_mut(dim).take(indices.len()).enumerate() {
            let (n, book) = (i / kept, self.centers.nth(i / kept));
            delta.fill(0.0);
            book.fold_entry(run.data, indices[i] as usize, delta, |_, c| c);
            book.fold_entry(run.data, chosen[n] as usize, delta, |d, c| d - c);
        }
        let mut covered = 1;
        while covered < self.codebooks {
            let keep = self.keep(2 * covered).min(kept * kept);
            for pair in 0..self.codebooks / covered / 2 {
                let (a, b) = (2 * pair * kept, (2 * pair + 1) * kept);
                let right = &moves[b * dim..][..kept * dim];
                let panels = &mut panels[..panel_len(kept, dim)];
                pack(kept, dim, |n, k| right[n * dim + k], panels);
                let left = Matrix::contiguous(&moves[a * dim..][..kept * dim], kept, dim);
                let products = &mut products[..kept * kept];
                left.times(run.cx, kept, panels, None, products)?;
                let candidates = products
                    .iter()
                    .enumerate()
                    .map(|(i, product)| (totals[a + i / kept] + totals[b + i % kept] - current) + 2.0 * product);
                let (best, pairs) = (&mut best[..keep], &mut pairs[..keep]);
                keep_smallest(candidates, best, pairs);
                for (i, (&total, &index)) in best.iter().zip(&*pairs).enumerate() {
                    let (left, right) = (a + index as usize / kept, b + index as usize % kept);
                    let to = pair * keep + i;
                    next_totals[to] = total;
                    let (head, tail) = next_codes[to * 2 * covered..][..2 * covered].split_at_mut(covered);
                    head.copy_from_slice(&codes[left * covered..][..covered]);
                    tail.copy_from_slice(&codes[right * covered..][..covered]);
                    let sources = moves[left * dim..].iter().zip(&moves[right * dim..]);
                    next_moves[to * dim..][..dim].iter_mut().zip(sources).for_each(|(o, (l, r))| *o = l + r);
                }
            }
            (moves, next_moves) = (next_moves, moves);
            (totals, next_totals) = (next_totals, totals);
            (codes, next_codes) = (next_codes, codes);
            (covered, kept) = (2 * covered, keep);
        }
        chosen.copy_from_slice(&codes[..self.codebooks]);
        Ok(())
    }

    /// The sum of the centers whose codes are there.
    pub fn decode(&self, run: Run<'_>, codes: CodesRef<'_>, out: &mut [f32]) {
        for (t, row) in out.chunks_exact_mut(self.centers.dim).enumerate() {
            row.fill(0.0);
            for n in 0..self.codebooks {
                if let Some(code) = codes.get(t, n) {
                    self.centers.nth(n).fold_entry(run.data, code, row, |sum, c| sum + c);
                }
            }
        }
    }
}
