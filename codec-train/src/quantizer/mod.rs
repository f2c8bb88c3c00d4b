//! Trainable quantizers, built from the engine's spec.
//!
//! Inside, rows `[batch * time, channels]`. A codebook learns by gradients or by exponential moving averages; what the
//! latter need is handed out as [`BookUse`], so that several batches or machines can be put together before
//! [`TrainQuantizer::update`].

mod book;
mod fsq;
mod kmeans;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor};
use codec_core::spec::{self, Linear, Metric, Quantizer};

pub use book::{BookReport, BookUse, Revived};

use crate::{
    Store, TrainError, Vars,
    group::{self, Group},
    net::Random,
};

/// How codebooks learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Learning {
    /// Means of what is coded, by exponential moving averages (van den Oord et al. 2017, appendix A.1).
    Ema {
        /// What a step keeps of the past.
        decay: f32,
    },
    /// By the gradient of their distance from what is coded.
    Gradient,
}

/// How a gradient passes a codebook search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// As if the search were the identity (Bengio et al. 2013).
    StraightThrough,
    /// As if it were the rotation and scaling from the input to the entry (Fifty et al. 2024).
    Rotation,
}

/// How a quantizer is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How codebooks learn.
    pub learning: Learning,
    /// How gradients pass.
    pub estimator: Estimator,
    /// Rounds of k-means (Lloyd 1982) on the first latents; 0 to keep the codebooks' first values.
    pub kmeans: usize,
    /// An entry whose share of use falls below this part of `1 / entries` is dead, and takes the place of a row of the
    /// batch. A share, so that it means the same at any batch and length of signal; 0 for never.
    pub restart: f32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            learning: Learning::Ema { decay: 0.99 },
            estimator: Estimator::StraightThrough,
            kmeans: 10,
            restart: 0.1,
        }
    }
}

/// A quantizer.
#[derive(Clone, Debug)]
pub struct TrainQuantizer {
    spec: Quantizer,
    rules: Rules,
    books: Vec<Book>,
}

/// A codebook, in the order of codes.
#[derive(Clone, Debug)]
struct Book {
    /// Name in the spec; of a stage of FSQ, made up.
    name: String,
    size: usize,
    /// Channels of an entry; 0 where nothing is stored.
    dim: usize,
}

/// What quantising gave.
#[derive(Debug)]
pub struct Quantized {
    /// The latent as the decoder gets it, `[batch, channels, rows]`; gradients pass.
    pub latent: Tensor<3>,
    /// Mean squared distance of what was coded from its entries, whose gradient moves the encoder; the sum over codebooks.
    pub commitment: Tensor<1>,
    /// The same, whose gradient moves the codebooks; zero where they learn by averages.
    pub codebook: Tensor<1>,
    /// How each codebook was used, in the order of codes.
    pub uses: Vec<BookUse>,
}

/// How many codebooks each item of a batch uses (structured dropout: Zeghidour et al. 2021, section III.C; the order of codes says
/// which), where processes have equal parts of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// Of all items, those of process 0 first.
    pub all: &'a [usize],
    /// Which process this is.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
}

/// A pass in progress.
struct Pass<'a> {
    vars: &'a Vars,
    rules: &'a Rules,
    device: Device,
    /// Items of this process.
    items: usize,
    /// Codebooks of each row's item, if they are fewer than there are for some, here or elsewhere.
    limits: Option<Vec<usize>>,
    /// Items that use each codebook, the mean over processes; with `limits` only.
    users: Vec<f64>,
    commitment: Option<Tensor<1>>,
    codebook: Option<Tensor<1>>,
    uses: Vec<BookUse>,
    /// Codebooks found by k-means on the way.
    start: Option<Start>,
    /// Set where only codes are wanted.
    coding: Option<Coding>,
}

struct Coding {
    /// Codebooks to search.
    most: usize,
    codes: Vec<Tensor<1, Int>>,
}

struct Start {
    random: Random,
    found: BTreeMap<String, Tensor<2>>,
}

/// Rows that a part of a quantizer gave.
struct Coded {
    rows: Tensor<2>,
    /// No gradient has been given a way through yet: whoever knows the input does that.
    plain: bool,
}

impl TrainQuantizer {
    /// Checks that the quantizer can be trained.
    ///
    /// # Errors
    /// [`TrainError::Untrainable`].
    pub fn new(spec: &Quantizer, rules: Rules) -> Result<Self, TrainError> {
        let mut books = Vec::new();
        list(spec, &mut books)?;
        Ok(Self { spec: spec.clone(), rules, books })
    }

    /// Codebooks.
    pub fn codebooks(&self) -> usize {
        self.books.len()
    }

    /// How it is trained.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes codebooks that learn by averages away from the optimiser, and adds what their rule, or the counting of
    /// use, keeps: `name.ema_count` `[size]` and, for averages, `name.ema_sum` `[size, dim]`, zero until the first update.
    ///
    /// # Errors
    /// A codebook is missing.
    pub fn prepare(&self, store: &mut Store) -> Result<(), TrainError> {
        for book in self.books.iter().filter(|b| b.dim > 0) {
            let name = format!("{}.codebook", book.name);
            let mut entry = store.remove(&name).ok_or_else(|| TrainError::NoTensor(name.clone()))?;
            entry.trained = self.rules.learning == Learning::Gradient;
            let values = crate::store::host(entry.value);
            store.insert(name, &entry.shape, values, entry.trained);
            store.insert(format!("{}.ema_count", book.name), &[book.size], vec![0.0; book.size], false);
            if !entry.trained {
                let len = book.size * book.dim;
                store.insert(format!("{}.ema_sum", book.name), &[book.size, book.dim], vec![0.0; len], false);
            }
        }
        Ok(())
    }

    /// Quantises `[batch, channels, rows]`. `limits` is how many codebooks each item uses (see [`Limits`]), `None` for all.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn forward(&self, vars: &Vars, x: Tensor<3>, limits: Option<&[usize]>) -> Result<Quantized, TrainError> {
        self.forward_part(vars, x, limits.map(|all| Limits { all, rank: 0, size: 1 }))
    }

    /// As [`TrainQuantizer::forward`], of one process's part of a batch. The losses are such that their mean over processes is that
    /// of the whole batch.
    ///
    /// # Errors
    /// As there.
    pub fn forward_part(&self, vars: &Vars, x: Tensor<3>, limits: Option<Limits<'_>>) -> Result<Quantized, TrainError> {
        Ok(self.run(vars, x, limits, None)?.0)
    }

    /// Codes of `[batch, channels, rows]` by the greedy search: of each of the first `most` codebooks, in their order, those of
    /// all rows, item after item. A codebook of a lower rate has fewer; items are whole frames.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn codes(&self, vars: &Vars, x: Tensor<3>, most: usize) -> Result<Vec<Tensor<1, Int>>, TrainError> {
        let [batch, channels, rows] = x.dims();
        let device = x.device();
        let flat = x.swap_dims(1, 2).reshape([batch * rows, channels]);
        let coding = Some(Coding { most, codes: Vec::new() });
        let mut pass = Pass {
            vars,
            rules: &self.rules,
            device,
            items: batch,
            users: Vec::new(),
            limits: None,
            commitment: None,
            codebook: None,
            uses: Vec::new(),
            start: None,
            coding,
        };
        pass.quantizer(&self.spec, flat)?;
        Ok(pass.coding.map(|c| c.codes).unwrap_or_default())
    }

    /// Whether the codebooks begin by k-means.
    pub fn starts(&self) -> bool {
        self.rules.kmeans > 0 && self.books.iter().any(|b| b.dim > 0)
    }

    /// Rows of the latent that a k-means start wants: 16 for each entry of the largest codebook, at the rate of the slowest.
    pub fn start_rows(&self) -> usize {
        let largest = self.books.iter().filter(|b| b.dim > 0).map(|b| b.size).max().unwrap_or(0);
        16 * largest * stride(&self.spec)
    }

    /// Starts all codebooks by k-means on these latents, stage by stage. Of a group only process 0 looks at them, and the others get
    /// what it found.
    ///
    /// # Errors
    /// As [`TrainQuantizer::forward`].
    pub fn start(&self, group: &dyn Group, store: &mut Store, x: Tensor<3>, seed: u64) -> Result<(), TrainError> {
        if !self.starts() {
            return Ok(());
        }
        if group.rank() == 0 {
            let start = Start { random: Random::new(seed, "k-means", 0), found: BTreeMap::new() };
            let (_, found) = self.run(&store.vars(crate::Tracking::None), x.inner(), None, Some(start))?;
            for (name, entries) in found {
                store.set(&name, entries.reshape([-1]));
            }
        }
        if group.size() > 1 {
            for book in self.books.iter().filter(|b| b.dim > 0) {
                let name = format!("{}.codebook", book.name);
                let mut bytes = group::to_bytes(&crate::host(store.tensor::<2>(&name)?));
                group.broadcast(&mut bytes);
                store.set(&name, Tensor::from_floats(group::from_bytes(&bytes).as_slice(), store.device()));
            }
        }
        Ok(())
    }

    fn run(
        &self,
        vars: &Vars,
        x: Tensor<3>,
        limits: Option<Limits<'_>>,
        start: Option<Start>,
    ) -> Result<(Quantized, BTreeMap<String, Tensor<2>>), TrainError> {
        let [batch, channels, rows] = x.dims();
        let books = self.books.len();
        let limits = limits.filter(|l| l.all.iter().any(|n| *n < books));
        let users = limits.map_or_else(Vec::new, |l| {
            let users = |i: usize| l.all.iter().filter(|n| **n > i).count() as f64 / l.size as f64;
            (0..books).map(users).collect()
        });
        let limits = limits.map(|l| {
            let own = l.all.iter().skip(l.rank * batch).take(batch);
            own.flat_map(|n| std::iter::repeat_n(*n, rows)).collect()
        });
        let device = x.device();
        let flat = x.swap_dims(1, 2).reshape([batch * rows, channels]);
        let mut pass = Pass {
            vars,
            rules: &self.rules,
            device: device.clone(),
            items: batch,
            limits,
            users,
            commitment: None,
            codebook: None,
            uses: Vec::new(),
            start,
            coding: None,
        };
        let coded = pass.quantizer(&self.spec, flat.clone())?;
        let out = if coded.plain { pass.through(flat, coded.rows) } else { coded.rows };
        let zero = || Tensor::<1>::zeros([1], &device);
        let quantized = Quantized {
            latent: out.reshape([batch, rows, channels]).swap_dims(1, 2),
            commitment: pass.commitment.unwrap_or_else(zero),
            codebook: pass.codebook.unwrap_or_else(zero),
            uses: pass.uses,
        };
        Ok((quantized, pass.start.map(|s| s.found).unwrap_or_default()))
    }
}

/// Lists the codebooks and refuses what cannot be trained.
fn list(q: &Quantizer, books: &mut Vec<Book>) -> Result<(), TrainError> {
    let refuse = |kind, reason| Err(TrainError::Untrainable { layer: "quantizer".into(), kind, reason });
    match q {
        Quantizer::Vq(v) => books.push(Book { name: v.name.clone(), size: v.size as usize, dim: v.dim as usize }),
        Quantizer::Residual { stages: parts, .. }
        | Quantizer::Grouped { groups: parts }
        | Quantizer::Split { parts } => parts.iter().try_for_each(|p| list(p, books))?,
        Quantizer::Rated { inner, .. } => list(inner, books)?,
        Quantizer::Fsq(f) => {
            let size = f.levels.iter().try_fold(1_u32, |n, l| n.checked_mul(*l)).filter(|n| *n <= 1 << 16);
            let Some(size) = size else { return refuse("fsq", "it has more than 65536 codes") };
            if f.levels.iter().any(|l| *l < 2) {
                return refuse("fsq", "a channel has fewer than 2 levels");
            }
            let first = books.len();
            books.extend((0..f.stages).map(|s| Book {
                name: format!("fsq.{}", first + s as usize),
                size: size as usize,
                dim: 0,
            }));
        }
        Quantizer::Lfq { .. } => return refuse("lfq", "lookup-free quantizers are for running only, yet"),
        Quantizer::RandomProjection { .. } => return refuse("random-projection", "it has no inverse"),
        Quantizer::Mvq { .. } => return refuse("mvq", "multi-codebook quantizers are for running only, yet"),
    }
    Ok(())
}

impl Pass<'_> {
    fn quantizer(&mut self, q: &Quantizer, x: Tensor<2>) -> Result<Coded, TrainError> {
        if self.coding.as_ref().is_some_and(|c| c.codes.len() >= c.most) {
            return Ok(Coded { rows: x, plain: true });
        }
        match q {
            Quantizer::Vq(v) => self.vq(v, x),
            Quantizer::Residual { stages, project_in, project_out, .. } => {
                let h = self.project(project_in.as_ref(), x)?;
                let mut sum = self.residual(stages, h.clone())?;
                if sum.plain && (project_in.is_some() || project_out.is_some()) {
                    sum = Coded { rows: self.through(h, sum.rows), plain: false };
                }
                Ok(Coded { rows: self.project(project_out.as_ref(), sum.rows)?, plain: sum.plain })
            }
            Quantizer::Grouped { groups } => {
                let width = x.dims()[1] / groups.len().max(1);
                let parts = groups.iter().enumerate().map(|(i, group)| {
                    let part = x.clone().slice_dim(1, i * width..(i + 1) * width);
                    Ok((part.clone(), self.quantizer(group, part)?))
                });
                let parts = parts.collect::<Result<Vec<_>, TrainError>>()?;
                let plain = parts.iter().all(|(_, coded)| coded.plain);
                let rows = parts.into_iter().map(|(x, coded)| self.unless(plain, x, coded)).collect();
                Ok(Coded { rows: Tensor::cat(rows, 1), plain })
            }
            Quantizer::Split { parts } => {
                let coded = parts.iter().map(|p| self.quantizer(p, x.clone())).collect::<Result<Vec<_>, _>>()?;
                // With a way through each part, the parts' gradients would add up.
                let plain = coded.iter().all(|c| c.plain);
                let rows = coded.into_iter().map(|c| self.unless(plain, x.clone(), c));
                Ok(Coded { rows: rows.reduce(|a, b| a + b).unwrap_or(x), plain })
            }
            Quantizer::Rated { stride, inner } => self.rated(*stride as usize, inner, x),
            Quantizer::Fsq(f) => self.fsq(f, x),
            // Refused when it was built.
            _ => Err(TrainError::Untrainable { layer: "quantizer".into(), kind: "quantizer", reason: "unknown" }),
        }
    }

    fn residual(&mut self, stages: &[Quantizer], x: Tensor<2>) -> Result<Coded, TrainError> {
        let plain = stages.iter().all(plain);
        let mut rest = x;
        let mut sum: Option<Tensor<2>> = None;
        for stage in stages {
            let coded = self.quantizer(stage, rest.clone())?;
            // Without projections every stage sees the latent less constants, so that each one's commitment moves the
            // encoder. With them the gradient takes the same way as the signal.
            let rows = self.unless(plain, rest.clone(), coded);
            rest = rest - rows.clone();
            sum = Some(match sum {
                Some(sum) => sum + rows,
                None => rows,
            });
        }
        Ok(Coded { rows: sum.unwrap_or_else(|| rest.zeros_like()), plain })
    }

    fn rated(&mut self, stride: usize, inner: &Quantizer, x: Tensor<2>) -> Result<Coded, TrainError> {
        let [rows, channels] = x.dims();
        if stride == 0 || !rows.is_multiple_of(stride) {
            let layer = format!("a quantizer at every {stride} rows");
            return Err(TrainError::TooShort { layer, rows, needed: rows.next_multiple_of(stride.max(1)) });
        }
        // Rows of an item follow each other, and items are whole frames.
        let pooled = x.reshape([rows / stride, stride, channels]).mean_dim(1).reshape([rows / stride, channels]);
        let all = self.limits.clone();
        self.limits = all.as_ref().map(|l| l.iter().copied().step_by(stride).collect());
        let coded = self.quantizer(inner, pooled.clone())?;
        self.limits = all;
        let out = self.unless(false, pooled, coded);
        let out = out.reshape([rows / stride, 1, channels]).repeat_dim(1, stride);
        Ok(Coded { rows: out.reshape([rows, channels]), plain: false })
    }

    fn vq(&mut self, v: &spec::Vq, x: Tensor<2>) -> Result<Coded, TrainError> {
        let z = self.project(v.project_in.as_deref(), x)?;
        let name = format!("{}.codebook", v.name);
        let mut entries = self.vars.get::<2>(&name)?;
        if let Some(start) = &mut self.start {
            let values = kmeans::centres(z.clone().inner(), v, self.rules.kmeans, &mut start.random);
            start.found.insert(name, values.clone());
            entries = values;
        }
        let mask = self.mask();
        let codes = nearest(z.clone().inner(), entries.clone().inner(), v.metric);
        if let Some(coding) = &mut self.coding {
            coding.codes.push(codes.clone());
            let rows = self.project(v.project_out.as_deref(), entries.select(0, codes))?;
            return Ok(Coded { rows, plain: true });
        }
        let chosen = entries.select(0, if z.is_autodiff() { codes.clone().autodiff() } else { codes.clone() });
        let counted = mask.as_ref().map(|mask| (mask, self.users[self.uses.len()] / self.items as f64));
        let distance = |a: Tensor<2>, b: Tensor<2>| mean(a - b, counted);
        let commitment = distance(z.clone(), chosen.clone().detach());
        self.commitment = Some(plus(self.commitment.take(), commitment));
        if self.rules.learning == Learning::Gradient {
            let codebook = distance(chosen.clone(), z.clone().detach());
            self.codebook = Some(plus(self.codebook.take(), codebook));
        }
        let weights = mask.clone().map(|m| m.inner());
        self.uses.push(BookUse::of(&v.name, v.size as usize, codes, z.clone().inner(), weights));
        let chosen = chosen.detach();
        let (rows, plain) = match &v.project_out {
            Some(out) => (self.project(Some(out.as_ref()), self.through(z, chosen))?, false),
            None if v.project_in.is_some() => (self.through(z, chosen), false),
            None => (chosen, true),
        };
        let rows = match mask {
            Some(mask) => rows * mask,
            None => rows,
        };
        Ok(Coded { rows, plain })
    }

    /// 1 for rows whose item uses the codebook that comes now and 0 for others, `[rows, 1]`; `None` if all use it, here and
    /// elsewhere.
    fn mask(&self) -> Option<Tensor<2>> {
        let index = self.uses.len();
        let all = self.users.get(index).is_some_and(|users| *users == self.items as f64);
        let limits = self.limits.as_ref().filter(|_| !all)?;
        let values: Vec<f32> = limits.iter().map(|n| if *n > index { 1.0 } else { 0.0 }).collect();
        Some(Tensor::<1>::from_floats(values.as_slice(), &self.device).reshape([limits.len(), 1]))
    }

    fn project(&self, l: Option<&Linear>, x: Tensor<2>) -> Result<Tensor<2>, TrainError> {
        let Some(l) = l else { return Ok(x) };
        let y = x.matmul(self.vars.weight::<2>(&l.name)?.transpose());
        Ok(match self.vars.bias(&l.name, l.bias)? {
            Some(bias) => y + bias.reshape([1, l.output as usize]),
            None => y,
        })
    }

    /// Leaves coded rows as they are if all around them are plain; else gives gradients a way through.
    fn unless(&self, plain: bool, x: Tensor<2>, coded: Coded) -> Tensor<2> {
        if plain || !coded.plain { coded.rows } else { self.through(x, coded.rows) }
    }

    /// `q`, with gradients to `x`.
    fn through(&self, x: Tensor<2>, q: Tensor<2>) -> Tensor<2> {
        if self.coding.is_some() {
            return q;
        }
        match self.rules.estimator {
            Estimator::StraightThrough => straight(x, q),
            Estimator::Rotation => rotation(x, q),
        }
    }
}

/// Whether a quantizer gives entries of its codebooks, or sums of them, as they are.
fn plain(q: &Quantizer) -> bool {
    match q {
        Quantizer::Vq(v) => v.project_in.is_none() && v.project_out.is_none(),
        Quantizer::Residual { stages: parts, project_in: None, project_out: None, .. }
        | Quantizer::Grouped { groups: parts }
        | Quantizer::Split { parts } => parts.iter().all(plain),
        _ => false,
    }
}

fn plus(sum: Option<Tensor<1>>, term: Tensor<1>) -> Tensor<1> {
    match sum {
        Some(sum) => sum + term,
        None => term,
    }
}

/// Mean square, over the rows with weight 1, which are that share of all (in the mean over processes).
fn mean(x: Tensor<2>, counted: Option<(&Tensor<2>, f64)>) -> Tensor<1> {
    let squares = x.square();
    let Some((mask, share)) = counted else { return squares.mean() };
    let [rows, width] = squares.dims();
    (squares * mask.clone()).sum().div_scalar((share * (rows * width) as f64).max(1.0))
}

/// Rows of the latent for each row of the slowest codebook.
fn stride(q: &Quantizer) -> usize {
    match q {
        Quantizer::Residual { stages: parts, .. }
        | Quantizer::Grouped { groups: parts }
        | Quantizer::Split { parts } => parts.iter().map(stride).max().unwrap_or(1),
        Quantizer::Rated { stride: own, inner } => (*own as usize).max(1) * stride(inner),
        _ => 1,
    }
}

/// `q` exactly, with the gradient of `x`.
pub(crate) fn straight(x: Tensor<2>, q: Tensor<2>) -> Tensor<2> {
    q.detach() + (x.clone() - x.detach())
}

/// `q` exactly, with the gradient of the rotation and scaling from `x` to `q`: with unit vectors `a = x / |x|`, `b = q / |q|`
/// and `r = (a + b) / |a + b|`, `|q| / |x| (x - 2 r (r . x) + 2 b (a . x))` (Fifty et al. 2024, equation 4). Where it is
/// not defined (a vector of zero, or `b = -a`), as [`straight`].
pub(crate) fn rotation(x: Tensor<2>, q: Tensor<2>) -> Tensor<2> {
    const TINY: f32 = 1e-6;
    let norm = |v: &Tensor<2>| v.clone().square().sum_dim(1).sqrt();
    let (fixed, q) = (x.clone().detach(), q.detach());
    let (nx, nq) = (norm(&fixed), norm(&q));
    let a = fixed / nx.clone().clamp_min(TINY);
    let b = q.clone() / nq.clone().clamp_min(TINY);
    let sum = a.clone() + b.clone();
    let ns = norm(&sum);
    let r = sum / ns.clone().clamp_min(TINY);
    let along = |v: &Tensor<2>| (v.clone() * x.clone()).sum_dim(1);
    let turned = x.clone() - r.clone() * along(&r).mul_scalar(2.0) + b * along(&a).mul_scalar(2.0);
    let turned = turned * (nq.clone() / nx.clone().clamp_min(TINY));
    let lowest = nx.min_pair(nq).min_pair(ns);
    let undefined = lowest.lower_scalar(TINY).expand(x.dims());
    straight(turned.mask_where(undefined, x), q)
}

/// The nearest entry of each row; ties go to the lowest index.
pub(crate) fn nearest(x: Tensor<2>, entries: Tensor<2>, metric: Metric) -> Tensor<1, Int> {
    let unit = |v: Tensor<2>| {
        let norm = v.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        v / norm
    };
    let (x, entries) = if metric == Metric::Cosine { (unit(x), unit(entries)) } else { (x, entries) };
    let rows = x.dims()[0];
    let size = entries.dims()[0];
    let squares = entries.clone().square().sum_dim(1).reshape([1, size]);
    let entries = entries.transpose();
    // Not all distances at once: a batch's rows times thousands of entries are hundreds of megabytes.
    const BLOCK: usize = 4096;
    let blocks = (0..rows).step_by(BLOCK).map(|from| {
        let part = x.clone().slice_dim(0, from..rows.min(from + BLOCK));
        let n = part.dims()[0];
        (squares.clone() - part.matmul(entries.clone()).mul_scalar(2.0)).argmin(1).reshape([n])
    });
    Tensor::cat(blocks.collect(), 0)
}
