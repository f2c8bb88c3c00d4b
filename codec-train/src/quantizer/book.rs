//! What a codebook learns from being used: averages, revival of dead entries, measures of use.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::{Book, Learning, TrainQuantizer};
use crate::{Store, TrainError, group::Group, net::Random, store::host};

/// Rows of a whole batch that are kept to revive entries from, at most.
const POOL: usize = 4096;

/// How one codebook was used in one or several batches.
#[derive(Clone, Debug)]
pub struct BookUse {
    /// Name of the codebook.
    pub name: String,
    /// Rows coded by each entry, `[size]`.
    pub counts: Tensor<1>,
    /// Sums of these rows, `[size, dim]`.
    pub sums: Tensor<2>,
    /// Rows to take the place of dead entries, `[rows, dim]`, if any row counted.
    pub pool: Option<Tensor<2>>,
    /// Rows of the pool from each batch.
    batches: Vec<usize>,
}

/// What is known of a codebook after an update.
#[derive(Clone, Debug, PartialEq)]
pub struct BookReport {
    /// Name of the codebook.
    pub name: String,
    /// `exp` of the entropy of the batch's use: how many entries it was as good as evenly spread over.
    pub perplexity: f64,
    /// Share of entries that are dead, before they were revived; for FSQ that were not used in the batch.
    pub dead: f64,
}

/// Entries that were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revived {
    /// Name of the codebook's tensor.
    pub tensor: String,
    /// Elements of an entry.
    pub dim: usize,
    /// Which entries.
    pub entries: Vec<usize>,
}

impl BookUse {
    /// From codes `[rows]`, rows `[rows, dim]` and weights `[rows, 1]`, 0 for rows that do not count.
    pub(super) fn of(
        name: &str,
        size: usize,
        codes: Tensor<1, Int>,
        rows: Tensor<2>,
        weights: Option<Tensor<2>>,
    ) -> Self {
        let [n, dim] = rows.dims();
        let device = rows.device();
        let weight = weights.clone().unwrap_or_else(|| Tensor::ones([n, 1], &device));
        let counts = Tensor::<1>::zeros([size], &device).select_assign(
            0,
            codes.clone(),
            weight.clone().reshape([n]),
            IndexingUpdateOp::Add,
        );
        let pool = match weights {
            None => Some(rows.clone()),
            // Rows that do not count would revive entries that nothing is near to.
            Some(weights) => {
                let kept: Vec<i32> =
                    host(weights).iter().enumerate().filter(|(_, w)| **w > 0.5).map(|(i, _)| i as i32).collect();
                (!kept.is_empty()).then(|| rows.clone().select(0, Tensor::from_data(kept.as_slice(), &device)))
            }
        };
        let sums = Tensor::<2>::zeros([size, dim], &device);
        let sums = sums.select_assign(0, codes, rows * weight, IndexingUpdateOp::Add);
        let pool = pool.map(first_rows);
        let batches = vec![pool.as_ref().map_or(0, |p| p.dims()[0])];
        Self { name: name.to_owned(), counts, sums, pool, batches }
    }

    /// Adds the use of another batch.
    pub fn add(&mut self, other: Self) {
        self.counts = self.counts.clone() + other.counts;
        self.sums = self.sums.clone() + other.sums;
        self.pool = match (self.pool.take(), other.pool) {
            (Some(a), Some(b)) => Some(first_rows(Tensor::cat(vec![a, b], 0))),
            (a, b) => a.or(b),
        };
        let mut room = POOL;
        self.batches.extend(other.batches);
        for rows in &mut self.batches {
            *rows = room.min(*rows);
            room -= *rows;
        }
    }
}

/// Where the rows of the whole batch lie, in its order: batch by batch, and in each process by process.
struct Pool {
    /// Process, first row in its pool, rows.
    parts: Vec<(usize, usize, usize)>,
    rows: usize,
}

impl Pool {
    /// From the numbers of rows in each batch, by process.
    fn new(batches: &[Vec<usize>]) -> Self {
        let mut pool = Self { parts: Vec::new(), rows: 0 };
        let mut next = vec![0; batches.len()];
        for batch in 0..batches.iter().map(Vec::len).max().unwrap_or(0) {
            for (rank, counts) in batches.iter().enumerate() {
                let own = counts.get(batch).copied().unwrap_or(0);
                let rows = own.min(POOL - pool.rows);
                pool.parts.push((rank, next[rank], rows));
                next[rank] += own;
                pool.rows += rows;
            }
        }
        pool
    }

    /// The process that has a row, and its place there.
    fn find(&self, mut row: usize) -> Option<(usize, usize)> {
        self.parts.iter().find_map(|(rank, first, rows)| {
            if row < *rows {
                return Some((*rank, first + row));
            }
            row -= rows;
            None
        })
    }
}

/// As many rows as a pool may have.
fn first_rows(pool: Tensor<2>) -> Tensor<2> {
    let rows = pool.dims()[0].min(POOL);
    pool.slice_dim(0, 0..rows)
}

impl TrainQuantizer {
    /// Learns from a step: moves codebooks that learn by averages, and gives dead entries a new place. The random choices
    /// follow from `seed` and `step`. Of a group, each process gives the use of its part of the batch, and all learn from the whole.
    ///
    /// # Errors
    /// A tensor of [`TrainQuantizer::prepare`] is missing.
    pub fn update(
        &self,
        group: &dyn Group,
        store: &mut Store,
        uses: &[BookUse],
        seed: u64,
        step: u64,
    ) -> Result<(Vec<BookReport>, Vec<Revived>), TrainError> {
        let (mut reports, mut revived) = (Vec::new(), Vec::new());
        let uses = self.put_together(group, uses);
        for (book, used) in self.books.iter().zip(&uses) {
            let counts: Vec<f64> = host(used.counts.clone()).into_iter().map(f64::from).collect();
            let perplexity = perplexity(&counts);
            let unused = counts.iter().filter(|c| **c == 0.0).count();
            let mut dead = unused as f64 / book.size as f64;
            if book.dim > 0 {
                let entries = self.learn(group, store, book, used, &mut Random::new(seed, &book.name, step))?;
                dead = entries.dead as f64 / book.size as f64;
                if !entries.revived.is_empty() {
                    let tensor = format!("{}.codebook", book.name);
                    revived.push(Revived { tensor, dim: book.dim, entries: entries.revived });
                }
            }
            reports.push(BookReport { name: book.name.clone(), perplexity, dead });
        }
        Ok((reports, revived))
    }

    /// Counts and sums over all processes; pools stay where they are.
    fn put_together(&self, group: &dyn Group, uses: &[BookUse]) -> Vec<BookUse> {
        let mut uses = uses.to_vec();
        if group.size() == 1 {
            return uses;
        }
        // Counts stay exact: they are far below 2^24.
        let averages = self.rules.learning != Learning::Gradient;
        let mut values: Vec<f32> = Vec::new();
        for used in &uses {
            values.extend(host(used.counts.clone()));
            if averages {
                values.extend(host(used.sums.clone()));
            }
        }
        group.sum(&mut values);
        let mut values = values.as_slice();
        for used in &mut uses {
            let mut take = |n: usize| values.split_off(..n).unwrap_or_default();
            let (device, [size, dim]) = (used.counts.device(), used.sums.dims());
            used.counts = Tensor::from_floats(take(size), &device);
            if averages {
                used.sums = Tensor::<1>::from_floats(take(size * dim), &device).reshape([size, dim]);
            }
        }
        uses
    }

    fn learn(
        &self,
        group: &dyn Group,
        store: &mut Store,
        book: &Book,
        used: &BookUse,
        random: &mut Random,
    ) -> Result<Learnt, TrainError> {
        let (size, dim) = (book.size, book.dim);
        let [codebook, count, sum] = ["codebook", "ema_count", "ema_sum"].map(|part| format!("{}.{part}", book.name));
        let mut entries = store.tensor::<2>(&codebook)?;
        let mut counts = host(store.tensor::<1>(&count)?);
        let batch = host(used.counts.clone());
        let total: f32 = batch.iter().sum();
        if total == 0.0 {
            return Ok(Learnt { dead: 0, revived: Vec::new() });
        }
        let first = counts.iter().all(|c| *c == 0.0);
        if first {
            // As if all entries had been used evenly until now.
            counts.fill(total / size as f32);
        }
        let decay = match self.rules.learning {
            Learning::Ema { decay } => decay,
            Learning::Gradient => 0.99,
        };
        let averages = self.rules.learning != Learning::Gradient;
        counts.iter_mut().zip(&batch).for_each(|(c, n)| *c = decay * *c + (1.0 - decay) * n);
        let mean = counts.iter().sum::<f32>() / size as f32;
        let dead: Vec<usize> = (0..size).filter(|i| counts[*i] < self.rules.restart * mean).collect();
        let pool = if dead.is_empty() { Pool::new(&[]) } else { whole_pool(group, used) };
        let from = random.distinct(dead.len(), pool.rows);
        let revived: Vec<usize> = dead.iter().copied().take(from.len()).collect();
        let device = store.device().clone();
        let indices = |list: &[usize]| {
            let list: Vec<i32> = list.iter().map(|i| *i as i32).collect();
            Tensor::<1, Int>::from_data(list.as_slice(), &device)
        };
        let fresh = (!revived.is_empty()).then(|| {
            let rows = rows_of(group, used, &pool, &from, dim);
            (indices(&revived), Tensor::<1>::from_floats(rows.as_slice(), &device).reshape([from.len(), dim]))
        });
        // A revived entry starts as one of average use, in its average and not in its value alone: else the next step would
        // put the old mean back, or find it dead again.
        revived.iter().for_each(|i| counts[*i] = mean);
        if averages {
            let old = store.tensor::<2>(&sum)?;
            let old = if first { entries.clone().mul_scalar(total / size as f32) } else { old };
            let mut sums = old.mul_scalar(decay) + used.sums.clone().mul_scalar(1.0 - decay);
            if let Some((at, rows)) = &fresh {
                sums = replace_rows(sums, at, rows.clone().mul_scalar(mean));
            }
            let divisor = Tensor::<1>::from_floats(counts.as_slice(), &device).reshape([size, 1]);
            // An entry that is hardly used, and not revived, stays where it is.
            let faint = divisor.clone().lower_scalar(1e-6).expand([size, dim]);
            entries = (sums.clone() / divisor.clamp_min(1e-6)).mask_where(faint, entries);
            store.set(&sum, sums.reshape([-1]));
        }
        if let Some((at, rows)) = fresh {
            entries = replace_rows(entries, &at, rows);
        }
        store.set(&codebook, entries.reshape([-1]));
        store.set(&count, Tensor::from_floats(counts.as_slice(), &device));
        Ok(Learnt { dead: dead.len(), revived })
    }
}

/// Where the rows of all processes lie.
fn whole_pool(group: &dyn Group, used: &BookUse) -> Pool {
    let own: Vec<u8> = used.batches.iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
    let counts = |bytes: &Vec<u8>| bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b) as usize).collect();
    Pool::new(&group.gather(&own).iter().map(counts).collect::<Vec<_>>())
}

/// Rows of the pool of all processes: only those that are wanted travel.
fn rows_of(group: &dyn Group, used: &BookUse, pool: &Pool, wanted: &[usize], dim: usize) -> Vec<f32> {
    let mut rows = vec![0.0; wanted.len() * dim];
    let own = used.pool.clone().map(host).unwrap_or_default();
    for (row, to) in wanted.iter().zip(rows.chunks_mut(dim.max(1))) {
        if let Some((_, at)) = pool.find(*row).filter(|(rank, _)| *rank == group.rank())
            && let Some(from) = own.get(at * dim..(at + 1) * dim)
        {
            to.copy_from_slice(from);
        }
    }
    group.sum(&mut rows);
    rows
}

struct Learnt {
    dead: usize,
    revived: Vec<usize>,
}

/// `x` with some rows replaced.
fn replace_rows(x: Tensor<2>, at: &Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
    let old = x.clone().select(0, at.clone());
    let change = rows.clone() - old;
    let moved = x.select_assign(0, at.clone(), change, IndexingUpdateOp::Add);
    // The sum above is rounded; an entry is to be the row itself.
    let exact = rows - moved.clone().select(0, at.clone());
    moved.select_assign(0, at.clone(), exact, IndexingUpdateOp::Add)
}

/// `exp` of the entropy of counts.
fn perplexity(counts: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    let entropy = |c: &f64| if *c > 0.0 { -(c / total) * (c / total).ln() } else { 0.0 };
    if total > 0.0 { counts.iter().map(entropy).sum::<f64>().exp() } else { 0.0 }
}
