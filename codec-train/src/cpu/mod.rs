//! Operations on the processor with gradients of their own, by the engine's kernels.
//!
//! burn's backward passes of convolutions, and its spectra as matrix products, are what a step on a processor would spend its
//! time in. Here an operation takes whole tensors and hands out its result with a function that gives the gradients. On
//! other devices [`Operand::of`] is `None`, and burn's own operations are taken.
//!
//! Signals lie in memory channels last, which is what the kernels want, whatever the order of a tensor's axes says: a result
//! is a permuted view of its memory, and the next operation permutes it back at no cost.

pub(crate) mod conv;
pub(crate) mod layers;
pub(crate) mod lstm;
mod product;
pub(crate) mod spectrum;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use burn::{
    backend::{
        Autodiff, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        flex::FlexTensor,
    },
    tensor::{DType, Shape, Tensor, TensorData},
};
use codec_core::kernel::{Compute, Isa, Pool};
use rayon::prelude::*;

/// The order of axes in which a signal `[items, channels, rows]` lies in memory, and the way back.
const SIGNAL: [usize; 3] = [0, 2, 1];

type Tracked = burn::backend::tensor::FloatTensor<Autodiff<Flex>>;

/// A tensor on the processor, recorded or not.
#[derive(Clone)]
pub(crate) struct Operand {
    value: FlexTensor,
    tracked: Option<Tracked>,
}

impl Operand {
    /// `None` for tensors of other devices or another precision.
    pub fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        if x.dtype() != DType::F32 {
            return None;
        }
        if let Ok(tracked) = x.clone().try_into_primitive::<Autodiff<Flex>>() {
            return Some(Self { value: tracked.primitive().clone(), tracked: Some(tracked) });
        }
        let value = x.clone().try_into_primitive::<Flex>().ok()?;
        Some(Self { value, tracked: None })
    }

    /// The elements in the order of these axes, copied only if they do not lie so.
    pub fn ordered(&self, axes: &[usize]) -> Elements {
        ordered(&self.value, axes)
    }

    /// The elements in the order of the tensor's own axes.
    pub fn plain(&self) -> Elements {
        Elements(self.value.to_contiguous())
    }

    fn node(&self) -> NodeGuard {
        self.tracked.clone().unwrap_or_else(|| Tracked::new(self.value.clone())).node()
    }
}

/// Elements one after the other.
#[derive(Clone)]
pub(crate) struct Elements(FlexTensor);

impl std::ops::Deref for Elements {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }
}

fn ordered(value: &FlexTensor, axes: &[usize]) -> Elements {
    Elements(value.permute(axes).to_contiguous())
}

/// A tensor of these elements, whose shape is in the order in which they lie, seen with its axes in the order `axes`.
pub(crate) fn tensor(elements: Vec<f32>, shape: &[usize], axes: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(elements, Shape::from(shape.to_vec()))).permute(axes)
}

/// A tensor of these elements.
pub(crate) fn plain(elements: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(elements, Shape::from(shape.to_vec())))
}

/// Gradients of the operands of which they are wanted, from the gradient of the result.
type Rule<const N: usize> = dyn Fn(&FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync;

/// The result of an operation, recorded if an operand is.
pub(crate) fn record<const N: usize, const D: usize>(
    operands: [&Operand; N],
    result: FlexTensor,
    rule: impl Fn(&FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync + 'static,
) -> Tensor<D> {
    if operands.iter().all(|o| o.tracked.is_none()) {
        return Tensor::from_primitive::<Flex>(result);
    }
    let nodes = operands.map(Operand::node);
    let result = match Operation.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(State(Arc::new(rule)), result),
        OpsKind::UnTracked(prep) => prep.finish(result),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(result)
}

#[derive(Debug)]
struct Operation;

struct State<const N: usize>(Arc<Rule<N>>);

impl<const N: usize> Clone for State<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<const N: usize> fmt::Debug for State<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl<const N: usize> Backward<Flex, N> for Operation {
    type State = State<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = (ops.state.0)(&gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// The threads that burn uses too.
struct Threads;

impl Pool for Threads {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// One thread.
pub(crate) fn alone() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// All threads.
pub(crate) fn all() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: Some(&Threads) }
}
