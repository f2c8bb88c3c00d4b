//! From a spec and its tensors to a flat program.

use alloc::{format, string::String, vec::Vec};

use super::Quantizer;
use super::fsq::{self, Fsq};
use super::lfq::Lfq;
use super::mvq::Mvq;
use super::program::{Chain, Kind, Space, Span, Step, Vq};
use super::random::Random;
use super::rows::Dense;
use super::vq::{Book, normalize};
use crate::BuildError;
use crate::kernel::{Arena, pack, panel_len};
use crate::spec::{self, FsqBound, Linear, Metric, ResidualRounding};
use crate::weights::{TensorView, Tensors};

/// The most channels, and the most entries of a codebook (a code is 16 bits).
const MOST: usize = 65536;
/// The most codes of a frame.
const MOST_CODES: usize = 4096;
/// The most stages of a residual FSQ; scales are long below f32's by then.
const MOST_STAGES: usize = 32;
/// The most rows of the latent in a frame.
const MOST_ROWS: usize = 1024;
/// The most values of all tables: a spec may name one tensor many times.
const MOST_VALUES: usize = 1 << 30;
/// The most refinement passes.
const MOST_REFINEMENTS: u32 = 1000;

pub(super) fn build(spec: &spec::Quantizer, tensors: &dyn Tensors) -> Result<Quantizer, BuildError> {
    let dim = outer(spec)?;
    let rows = rows(spec)?;
    let mut builder = Builder::new(tensors, rows);
    builder.spaces(spec, 0)?;
    let can_decode = builder.steps.iter().all(|s| s.decodes)
        && builder.spaces.iter().all(|s| s.project_out.is_some() || s.width == s.outer);
    let Builder { spaces, chains, steps, sizes, data, .. } = builder;
    let data = Arena::Plain(data);
    Ok(Quantizer { dim, rows, can_decode, spaces, chains, steps, sizes, data })
}

fn refuse<T>(text: String) -> Result<T, BuildError> {
    Err(BuildError::Spec(text))
}

/// Channels that a quantizer takes and gives.
fn outer(q: &spec::Quantizer) -> Result<usize, BuildError> {
    use spec::Quantizer as Q;
    match q {
        Q::Vq(v) => projected(channels(v.dim, &v.name)?, v.project_in.as_deref(), v.project_out.as_deref(), &v.name),
        Q::Residual { stages, project_in, project_out, .. } => {
            let dim = equal(stages, "the stages of a residual quantizer")?;
            projected(dim, project_in.as_ref(), project_out.as_ref(), "a residual quantizer")
        }
        Q::Split { parts } => equal(parts, "the parts of a split quantizer"),
        Q::Rated { inner, .. } => outer(inner),
        Q::Grouped { groups } => {
            let dim = equal(groups, "the groups of a grouped quantizer")?;
            within(dim.saturating_mul(groups.len()), "the channels of all groups")
        }
        Q::Fsq(f) => {
            let dim = within(f.levels.len(), "the channels of an FSQ")?;
            projected(dim, f.project_in.as_ref(), f.project_out.as_ref(), "an FSQ")
        }
        Q::Lfq { bits, codebooks, project_in, project_out } => {
            let bits = channels(*bits, "a lookup-free quantizer")?;
            if bits > 16 {
                return refuse(format!("a lookup-free codebook of {bits} bits: a code has 16 at most"));
            }
            let dim = within(bits.saturating_mul(*codebooks as usize), "the bits of all lookup-free codebooks")?;
            projected(dim, project_in.as_ref(), project_out.as_ref(), "a lookup-free quantizer")
        }
        Q::RandomProjection { name, input, .. } => channels(*input, name),
        Q::Mvq { name, dim, .. } => channels(*dim, name),
    }
}

/// Rows of the latent in a frame: the largest stride, which every other must divide.
fn rows(q: &spec::Quantizer) -> Result<usize, BuildError> {
    fn visit(q: &spec::Quantizer, f: &mut dyn FnMut(usize) -> Result<(), BuildError>) -> Result<(), BuildError> {
        use spec::Quantizer as Q;
        match q {
            Q::Residual { stages: parts, .. } | Q::Split { parts } | Q::Grouped { groups: parts } => {
                parts.iter().try_for_each(|part| visit(part, f))
            }
            Q::Rated { stride, .. } => f(*stride as usize),
            _ => Ok(()),
        }
    }
    let mut most = 1;
    visit(q, &mut |stride| {
        most = most.max(stride);
        if (1..=MOST_ROWS).contains(&stride) {
            return Ok(());
        }
        refuse(format!("a level with a stride of {stride} rows: from 1 to {MOST_ROWS} can be had"))
    })?;
    visit(q, &mut |stride| {
        if most % stride == 0 {
            return Ok(());
        }
        refuse(format!("a level's stride of {stride} rows does not divide the largest, {most}"))
    })?;
    Ok(most)
}

fn within(n: usize, what: &str) -> Result<usize, BuildError> {
    if (1..=MOST).contains(&n) { Ok(n) } else { refuse(format!("{what}: {n}, which is not from 1 to {MOST}")) }
}

fn channels(n: u32, name: &str) -> Result<usize, BuildError> {
    within(n as usize, &format!("channels of `{name}`"))
}

/// The channels of all `parts`, which must agree.
fn equal(parts: &[spec::Quantizer], what: &str) -> Result<usize, BuildError> {
    let Some((first, others)) = parts.split_first() else { return refuse(format!("{what}: there are none")) };
    let dim = outer(first)?;
    for (i, part) in others.iter().enumerate() {
        let other = outer(part)?;
        if other != dim {
            return refuse(format!("{what}: the first has {dim} channels and number {} has {other}", i + 2));
        }
    }
    Ok(dim)
}

/// The channels outside of projections to and from `dim`.
fn projected(dim: usize, to: Option<&Linear>, from: Option<&Linear>, what: &str) -> Result<usize, BuildError> {
    let side = |inner: u32, outer: u32, linear: &Linear| -> Result<usize, BuildError> {
        if inner as usize != dim {
            let Linear { name, input, output, .. } = linear;
            return refuse(format!("`{name}` is {input} to {output} channels, but inside it {what} has {dim}"));
        }
        channels(outer, &linear.name)
    };
    let input = to.map_or(Ok(dim), |l| side(l.output, l.input, l))?;
    // Projected and not back: a quantizer that only makes codes.
    let output = from.map_or(Ok(input), |l| side(l.input, l.output, l))?;
    if input == output {
        Ok(input)
    } else {
        refuse(format!("{what} takes {input} channels and gives {output}: its projections must agree"))
    }
}

struct Builder<'t> {
    tensors: &'t dyn Tensors,
    /// Rows of the latent in a frame.
    rows: usize,
    spaces: Vec<Space>,
    chains: Vec<Chain>,
    steps: Vec<Step>,
    sizes: Vec<u32>,
    data: Vec<f32>,
}

/// A chain whose steps are still being gathered.
struct Draft {
    column: usize,
    end: usize,
    steps: Vec<Step>,
}

impl<'t> Builder<'t> {
    fn new(tensors: &'t dyn Tensors, rows: usize) -> Self {
        let (spaces, chains, steps) = Default::default();
        Self { tensors, rows, spaces, chains, steps, sizes: Vec::new(), data: Vec::new() }
    }

    fn spaces(&mut self, q: &spec::Quantizer, column: usize) -> Result<(), BuildError> {
        use spec::Quantizer as Q;
        match q {
            Q::Split { parts } => parts.iter().try_for_each(|part| self.spaces(part, column)),
            Q::Grouped { groups } => {
                let dim = equal(groups, "the groups of a grouped quantizer")?;
                groups.iter().enumerate().try_for_each(|(i, group)| self.spaces(group, column + i * dim))
            }
            Q::Residual { stages, project_in, project_out, rounding } => {
                let project_in = project_in.as_ref().map(|l| self.dense(l)).transpose()?;
                let project_out = project_out.as_ref().map(|l| self.dense(l)).transpose()?;
                let width = equal(stages, "the stages of a residual quantizer")?;
                let mut drafts = Vec::new();
                for stage in stages {
                    self.place(stage, 0, *rounding, 1, &mut drafts)?;
                }
                self.close(
                    drafts,
                    Space {
                        column,
                        outer: outer(q)?,
                        width,
                        project_in,
                        project_out,
                        chains: Span { start: 0, end: 0 },
                    },
                )
            }
            _ => {
                let mut drafts = Vec::new();
                self.place(q, 0, ResidualRounding::Plain, 1, &mut drafts)?;
                let width = outer(q)?;
                self.close(
                    drafts,
                    Space {
                        column,
                        outer: width,
                        width,
                        project_in: None,
                        project_out: None,
                        chains: Span { start: 0, end: 0 },
                    },
                )
            }
        }
    }

    fn close(&mut self, drafts: Vec<Draft>, space: Space) -> Result<(), BuildError> {
        let start = self.chains.len();
        for draft in drafts {
            if draft.steps.len() > 1 && draft.steps.iter().any(|s| !s.decodes) {
                return refuse(String::from("a stage without a way back leaves no residual for the next"));
            }
            let steps = self.steps.len();
            self.steps.extend(draft.steps);
            self.chains.push(Chain {
                column: draft.column,
                width: draft.end - draft.column,
                steps: Span { start: steps, end: self.steps.len() },
            });
        }
        self.spaces.push(Space { chains: Span { start, end: self.chains.len() }, ..space });
        Ok(())
    }

    /// Appends the elementary quantizers of `q` to the chains of a space, by their columns.
    fn place(
        &mut self,
        q: &spec::Quantizer,
        column: usize,
        rounding: ResidualRounding,
        stride: usize,
        drafts: &mut Vec<Draft>,
    ) -> Result<(), BuildError> {
        use spec::Quantizer as Q;
        let (inner, project_in, project_out, kind, sizes) = match q {
            Q::Grouped { .. } | Q::Residual { .. } | Q::Split { .. } | Q::Rated { .. } if stride > 1 => {
                return refuse(String::from(
                    "a level of another rate holds one quantizer without parts: give each part a level of its own",
                ));
            }
            Q::Rated { stride, inner } => return self.place(inner, column, rounding, *stride as usize, drafts),
            Q::Grouped { groups } => {
                let dim = equal(groups, "the groups of a grouped quantizer")?;
                for (i, group) in groups.iter().enumerate() {
                    self.place(group, column + i * dim, rounding, stride, drafts)?;
                }
                return Ok(());
            }
            Q::Residual { stages, project_in: None, project_out: None, rounding } => {
                for stage in stages {
                    self.place(stage, column, *rounding, stride, drafts)?;
                }
                return Ok(());
            }
            Q::Residual { .. } => {
                return refuse(String::from("a residual quantizer with projections cannot be a stage of another"));
            }
            Q::Split { .. } => return refuse(String::from("a split quantizer cannot be a stage of a residual one")),
            Q::Vq(v) => {
                let project_in = v.project_in.as_deref().map(|l| self.dense(l)).transpose()?;
                let project_out = v.project_out.as_deref().map(|l| self.dense(l)).transpose()?;
                let vq = self.vq(v)?;
                (v.dim as usize, project_in, project_out, Kind::Vq(vq), Sizes::one(vq.search.size))
            }
            Q::Fsq(f) => {
                let project_in = f.project_in.as_ref().map(|l| self.dense(l)).transpose()?;
                let project_out = f.project_out.as_ref().map(|l| self.dense(l)).transpose()?;
                let (fsq, size) = self.fsq(f)?;
                (fsq.channels, project_in, project_out, Kind::Fsq(fsq), Sizes { size, count: fsq.stages })
            }
            Q::Lfq { bits, codebooks, project_in, project_out } => {
                let project_in = project_in.as_ref().map(|l| self.dense(l)).transpose()?;
                let project_out = project_out.as_ref().map(|l| self.dense(l)).transpose()?;
                let lfq = Lfq { bits: *bits as usize, codebooks: *codebooks as usize };
                let sizes = Sizes { size: 1 << bits, count: lfq.codebooks };
                (lfq.bits * lfq.codebooks, project_in, project_out, Kind::Lfq(lfq), sizes)
            }
            Q::RandomProjection { name, input, dim, size } => {
                let random = self.random(name, *input as usize, channels(*dim, name)?, entries(*size, name)?)?;
                (*input as usize, None, None, Kind::Random(random), Sizes::one(random.book.size))
            }
            Q::Mvq { name, dim, codebooks, size, refinements } => {
                let mvq = self.mvq(name, *dim as usize, *codebooks, entries(*size, name)?, *refinements)?;
                let sizes = Sizes { size: mvq.centers.size, count: mvq.codebooks };
                (*dim as usize, None, None, Kind::Mvq(mvq), sizes)
            }
        };
        if self.data.len() > MOST_VALUES {
            return refuse(format!("quantizers with more than {MOST_VALUES} values"));
        }
        let code = self.sizes.len();
        let times = self.rows / stride;
        if code + times * sizes.count > MOST_CODES {
            return refuse(format!("more than {MOST_CODES} codes a frame"));
        }
        self.sizes.extend((0..times * sizes.count).map(|_| sizes.size as u32));
        let width = outer(q)?;
        let decodes = !matches!(kind, Kind::Random(_)) && (project_out.is_some() || inner == width);
        let codes = sizes.count;
        let step =
            Step { column, width, inner, project_in, project_out, rounding, code, codes, stride, times, decodes, kind };
        // Chains that the step's columns touch become one; codes are in the order of the stages.
        let mut draft = Draft { column, end: column + width, steps: Vec::new() };
        let mut i = 0;
        while i < drafts.len() {
            if drafts[i].column < column + width && column < drafts[i].end {
                let other = drafts.remove(i);
                draft.column = draft.column.min(other.column);
                draft.end = draft.end.max(other.end);
                draft.steps.extend(other.steps);
            } else {
                i += 1;
            }
        }
        draft.steps.push(step);
        draft.steps.sort_by_key(|s| s.code);
        drafts.push(draft);
        Ok(())
    }

    fn fetch(&self, name: &str, shape: &[usize]) -> Result<TensorView<'t>, BuildError> {
        let view = self.tensors.tensor(name).ok_or_else(|| BuildError::MissingTensor(name.into()))?;
        let len = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        if view.shape == shape && len == Some(view.len()) {
            return Ok(view);
        }
        let found = format!("{:?} with {} elements", view.shape, view.len());
        Err(BuildError::TensorMismatch { name: name.into(), expected: format!("{shape:?}"), found })
    }

    /// Room for `len` more values; where it starts.
    fn room(&mut self, len: usize) -> usize {
        let at = self.data.len();
        self.data.resize(at + len, 0.0);
        at
    }

    fn panels(&mut self, columns: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> usize {
        let at = self.room(panel_len(columns, depth));
        pack(columns, depth, weight, &mut self.data[at..]);
        at
    }

    fn values(&mut self, values: impl Iterator<Item = f32>) -> usize {
        let at = self.data.len();
        self.data.extend(values);
        at
    }

    fn dense(&mut self, l: &Linear) -> Result<Dense, BuildError> {
        let (input, output) = (channels(l.input, &l.name)?, channels(l.output, &l.name)?);
        let weight = self.fetch(&format!("{}.weight", l.name), &[output, input])?.values();
        let bias = if l.bias { Some(self.fetch(&format!("{}.bias", l.name), &[output])?.values()) } else { None };
        let panels = self.panels(output, input, |n, k| weight[n * input + k]);
        let bias = bias.map(|b| self.values(b.iter().copied()));
        Ok(Dense { input, output, panels, bias })
    }

    fn vq(&mut self, v: &spec::Vq) -> Result<Vq, BuildError> {
        let (size, dim) = (entries(v.size, &v.name)?, v.dim as usize);
        let view = self.fetch(&format!("{}.codebook", v.name), &[size, dim])?;
        let rows = view.values();

        let panels = self.panels(size, dim, |n, k| rows[n * dim + k]);
        let distance = Distance::new(v.project_out.as_deref(), self)?;
        let bias = self.values(rows.chunks_exact(dim).map(|e| distance.bias(e)));
        let metric = Metric::Euclidean;
        let entries = Book { size, dim, metric, panels, bias, rows: None };
        let back = distance.back(self);

        let search = match v.metric {
            Metric::Euclidean if v.project_out.is_none() => entries,
            Metric::Euclidean => Book { bias: self.values(rows.chunks_exact(dim).map(half_square)), ..entries },
            Metric::EuclideanDirect => Book { metric: v.metric, ..entries },
            Metric::Cosine => {
                let mut unit = rows.into_owned();
                unit.chunks_exact_mut(dim).for_each(normalize);
                let panels = self.panels(size, dim, |n, k| unit[n * dim + k]);
                let bias = self.values(unit.chunks_exact(dim).map(half_square));
                Book { metric: v.metric, panels, bias, ..entries }
            }
        };
        Ok(Vq { search, entries, back })
    }

    fn fsq(&mut self, f: &spec::Fsq) -> Result<(Fsq, usize), BuildError> {
        let stages = f.stages as usize;
        let size = f.levels.iter().try_fold(1usize, |n, &l| n.checked_mul(l as usize));
        let size = within(size.unwrap_or(usize::MAX), "the product of an FSQ's levels")?;
        if let Some(levels) = f.levels.iter().find(|l| **l < 2) {
            return refuse(format!("an FSQ channel of {levels} levels: it takes 2"));
        }
        if !(1..=MOST_STAGES).contains(&stages) {
            return refuse(format!("an FSQ of {stages} stages: from 1 to {MOST_STAGES} can be had"));
        }
        if f.bound == FsqBound::Tanh && (stages > 1 || f.soft_clamp) {
            return refuse(String::from("residual stages and the soft clamp are for FSQ's symmetric bound"));
        }
        if !(-0.5..=0.5).contains(&f.margin) {
            return refuse(format!("an FSQ's margin is {}: it is from -0.5 to 0.5, usually 0.001", f.margin));
        }
        if f.margin < 0.0 && f.levels.contains(&2) {
            return refuse(String::from("two FSQ levels with a negative margin: the shift would be infinite"));
        }
        let parameters = self.values(f.levels.iter().flat_map(|&l| fsq::parameters(l, f.margin)));
        let fsq = Fsq { channels: f.levels.len(), stages, bound: f.bound, soft_clamp: f.soft_clamp, parameters };
        Ok((fsq, size))
    }

    fn random(&mut self, name: &str, input: usize, dim: usize, size: usize) -> Result<Random, BuildError> {
        let weight = self.fetch(&format!("{name}.projection"), &[input, dim])?.values();
        let codebook = self.fetch(&format!("{name}.codebook"), &[size, dim])?.values();
        let panels = self.panels(dim, input, |n, k| weight[k * dim + n]);
        let projection = Dense { input, output: dim, panels, bias: None };
        let panels = self.panels(size, dim, |n, k| codebook[n * dim + k]);
        let bias = self.room(size);
        Ok(Random { projection, book: Book { size, dim, metric: Metric::Euclidean, panels, bias, rows: None } })
    }

    fn mvq(
        &mut self,
        name: &str,
        dim: usize,
        codebooks: u32,
        size: usize,
        refinements: u32,
    ) -> Result<Mvq, BuildError> {
        if !codebooks.is_power_of_two() || codebooks > 256 {
            return refuse(format!("`{name}` has {codebooks} codebooks: a power of two up to 256 can be refined"));
        }
        if refinements > MOST_REFINEMENTS {
            return refuse(format!("`{name}` asks for {refinements} refinements, over {MOST_REFINEMENTS}"));
        }
        let count = codebooks as usize;
        let centers = self.fetch(&format!("{name}.centers"), &[count, size, dim])?.values();
        let weight = self.fetch(&format!("{name}.to_logits.weight"), &[count * size, dim])?.values();
        let bias = self.fetch(&format!("{name}.to_logits.bias"), &[count * size])?.values();
        let books = |this: &mut Self, view: &[f32]| {
            let at = this.data.len();
            for book in 0..count {
                this.panels(size, dim, |n, k| view[(book * size + n) * dim + k]);
            }
            at
        };
        let metric = Metric::Euclidean;
        let panels = books(self, &weight);
        let bias = self.values(bias.iter().copied());
        let logits = Book { size, dim, metric, panels, bias, rows: None };
        let panels = books(self, &centers);
        let bias = self.values(centers.chunks_exact(dim).map(half_square));
        let rows = Some(self.values(centers.iter().copied()));
        let centers = Book { size, dim, metric, panels, bias, rows };
        Ok(Mvq { codebooks: count, refinements: refinements as usize, logits, centers })
    }
}

/// Equal codebooks that a step adds.
struct Sizes {
    size: usize,
    count: usize,
}

impl Sizes {
    fn one(size: usize) -> Self {
        Self { size, count: 1 }
    }
}

fn entries(size: u32, name: &str) -> Result<usize, BuildError> {
    within(size as usize, &format!("entries of `{name}`"))
}

/// `-|e|²/2`.
fn half_square(e: &[f32]) -> f32 {
    (-0.5 * dot(e, e)) as f32
}

/// The distance of decoded entries `P e + b` from a residual, taken back into the codebook's channels:
/// `|r - b - P e|² = |r - b|² - 2 (Pᵀ (r - b) · e - eᵀ PᵀP e / 2)`.
struct Distance {
    dim: usize,
    outer: usize,
    /// `P`, `[outer, dim]`; empty without a projection.
    weight: Vec<f32>,
    /// `PᵀP`, `[dim, dim]`, where that is no larger than `P`.
    gram: Option<Vec<f64>>,
    /// `-Pᵀ b`.
    bias: Option<Vec<f32>>,
}

impl Distance {
    fn new(project_out: Option<&Linear>, builder: &Builder<'_>) -> Result<Self, BuildError> {
        let Some(l) = project_out else {
            return Ok(Self { dim: 0, outer: 0, weight: Vec::new(), gram: None, bias: None });
        };
        let (dim, outer) = (l.input as usize, l.output as usize);
        let view = builder.fetch(&format!("{}.weight", l.name), &[outer, dim])?;
        let weight = view.values().into_owned();
        let gram = (dim <= outer).then(|| {
            let mut gram = alloc::vec![0.0; dim * dim];
            for row in weight.chunks_exact(dim) {
                for (line, &a) in gram.chunks_exact_mut(dim).zip(row) {
                    line.iter_mut().zip(row).for_each(|(g, &b)| *g += f64::from(a) * f64::from(b));
                }
            }
            gram
        });
        let bias = if l.bias {
            let view = builder.fetch(&format!("{}.bias", l.name), &[outer])?.values();
            let product = |c: usize| {
                let terms = (0..outer).map(|k| f64::from(weight[k * dim + c]) * f64::from(view[k]));
                -terms.sum::<f64>() as f32
            };
            Some((0..dim).map(product).collect())
        } else {
            None
        };
        Ok(Self { dim, outer, weight, gram, bias })
    }

    /// `-|P e|²/2`.
    fn bias(&self, e: &[f32]) -> f32 {
        let square: f64 = match &self.gram {
            _ if self.weight.is_empty() => return half_square(e),
            Some(gram) => gram.chunks_exact(self.dim).zip(e).map(|(line, &v)| f64::from(v) * dot(line, e)).sum(),
            None => self.weight.chunks_exact(self.dim).map(|row| dot(row, e)).map(|x| x * x).sum(),
        };
        (-0.5 * square) as f32
    }

    fn back(self, builder: &mut Builder<'_>) -> Option<Dense> {
        if self.weight.is_empty() {
            return None;
        }
        let panels = builder.panels(self.dim, self.outer, |n, k| self.weight[k * self.dim + n]);
        let bias = self.bias.map(|b| builder.values(b.into_iter()));
        Some(Dense { input: self.outer, output: self.dim, panels, bias })
    }
}

fn dot<T: Copy + Into<f64>>(a: &[T], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a.into() * f64::from(b)).sum()
}
