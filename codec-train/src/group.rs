//! Processes that train one model together. Each has a device and a part of every batch; what they know of the whole batch
//! goes through a [`Group`], and nothing else of the trainer knows how many there are.

use std::rc::Rc;

use crate::TrainError;

/// Processes that call the same methods in the same order. Every process gets the same results, to the bit.
pub trait Group {
    /// Which process this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Which of the processes on this machine this is, from 0.
    fn local_rank(&self) -> usize;

    /// Replaces each value by its sum over all processes, which all have equally many.
    fn sum(&self, values: &mut [f32]);

    /// As [`Group::sum`].
    fn sum_f64(&self, values: &mut [f64]);

    /// What each process has, by rank; any number of bytes.
    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>>;

    /// Replaces the bytes by those of process 0.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// Returns when all processes have come here.
    fn barrier(&self);

    /// Ends all processes; returns if this is the only one.
    fn abort(&self);

    /// Whether the flag is set anywhere.
    fn agree(&self, flag: bool) -> bool {
        let mut any = [f64::from(u8::from(flag))];
        self.sum_f64(&mut any);
        any[0] > 0.0
    }
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local_rank(&self) -> usize {
        0
    }

    fn sum(&self, _: &mut [f32]) {}

    fn sum_f64(&self, _: &mut [f64]) {}

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        vec![own.to_vec()]
    }

    fn broadcast(&self, _: &mut Vec<u8>) {}

    fn barrier(&self) {}

    fn abort(&self) {}
}

/// The processes that `mpirun` started this one with, or this one alone.
///
/// # Errors
/// [`TrainError::Group`]: there are several, and MPI is not built in. Each would train alone and write the same files.
pub fn open() -> Result<Rc<dyn Group>, TrainError> {
    // Open MPI; MPICH and Intel's; MVAPICH. A process that nobody launched does without MPI's start.
    let size = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
    match size {
        None | Some(0..=1) => Ok(Rc::new(Alone)),
        #[cfg(feature = "mpi")]
        Some(_) => Ok(Rc::new(mpi::Mpi::open()?)),
        #[cfg(not(feature = "mpi"))]
        Some(size) => Err(TrainError::Group(format!(
            "{size} processes were started, and this build has no MPI: `cargo install --path codec-train --features mpi`"
        ))),
    }
}

/// The result of a part that each process does by itself: an error if it is one for any of them, in the words of the first that has
/// one; the others get [`TrainError::Elsewhere`].
///
/// # Errors
/// As said.
pub fn together<T>(group: &dyn Group, result: Result<T, TrainError>) -> Result<T, TrainError> {
    let failed = group.gather(&[u8::from(result.is_err())]);
    match failed.iter().position(|flag| flag.first() == Some(&1)) {
        Some(rank) if rank != group.rank() => Err(TrainError::Elsewhere { rank }),
        _ => result,
    }
}

/// Errors unless all processes have the same value of `what`.
///
/// # Errors
/// [`TrainError::Group`] for all of them.
pub(crate) fn same(group: &dyn Group, what: &str, value: u64) -> Result<(), TrainError> {
    let all = group.gather(&value.to_le_bytes());
    match all.iter().position(|other| Some(other) != all.first()) {
        None => Ok(()),
        Some(rank) => {
            let reason = format!("{what} of process {rank} is not that of process 0; give all machines the same files");
            together(group, if group.rank() == 0 { Err(TrainError::Group(reason)) } else { Ok(()) })
        }
    }
}

/// A number that tells values apart (FNV-1a).
pub(crate) fn digest(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Values as bytes.
pub(crate) fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The reverse of [`to_bytes`].
pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[cfg(feature = "mpi")]
mod mpi {
    use ::mpi::{
        Threading,
        collective::SystemOperation,
        datatype::Equivalence,
        environment::Universe,
        topology::SimpleCommunicator,
        traits::{Communicator as _, CommunicatorCollectives as _, Root as _},
    };

    use super::Group;
    use crate::TrainError;

    /// Elements of a message at most: MPI counts in 32 bits, and sums need a copy.
    const MESSAGE: usize = 1 << 22;

    /// Processes started by `mpirun`.
    pub(super) struct Mpi {
        world: SimpleCommunicator,
        local: usize,
        // Ends MPI when it is dropped, so it comes last.
        _universe: Universe,
    }

    impl Mpi {
        pub(super) fn open() -> Result<Self, TrainError> {
            // Data and matrix products have threads of their own; this one alone talks.
            let (universe, threading) = ::mpi::initialize_with_threading(Threading::Funneled)
                .ok_or_else(|| TrainError::Group("MPI was started twice".to_owned()))?;
            if threading < Threading::Funneled {
                return Err(TrainError::Group("this MPI cannot be used beside threads".to_owned()));
            }
            let world = universe.world();
            let local = world.split_shared(world.rank()).rank() as usize;
            Ok(Self { world, local, _universe: universe })
        }

        fn sum_of<T: Equivalence + Copy>(&self, values: &mut [T]) {
            for part in values.chunks_mut(MESSAGE) {
                let own = part.to_vec();
                self.world.all_reduce_into(&own[..], part, SystemOperation::sum());
            }
        }

        fn broadcast_from(&self, root: usize, bytes: &mut Vec<u8>) {
            let root = self.world.process_at_rank(root as i32);
            let mut count = bytes.len() as u64;
            root.broadcast_into(&mut count);
            bytes.resize(count as usize, 0);
            bytes.chunks_mut(MESSAGE).for_each(|part| root.broadcast_into(part));
        }
    }

    impl Group for Mpi {
        fn rank(&self) -> usize {
            self.world.rank() as usize
        }

        fn size(&self) -> usize {
            self.world.size() as usize
        }

        fn local_rank(&self) -> usize {
            self.local
        }

        fn sum(&self, values: &mut [f32]) {
            self.sum_of(values);
        }

        fn sum_f64(&self, values: &mut [f64]) {
            self.sum_of(values);
        }

        fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
            let of = |rank: usize| {
                let mut bytes = if rank == self.rank() { own.to_vec() } else { Vec::new() };
                self.broadcast_from(rank, &mut bytes);
                bytes
            };
            (0..self.size()).map(of).collect()
        }

        fn broadcast(&self, bytes: &mut Vec<u8>) {
            self.broadcast_from(0, bytes);
        }

        fn barrier(&self) {
            self.world.barrier();
        }

        fn abort(&self) {
            self.world.abort(1);
        }
    }

    impl Drop for Mpi {
        fn drop(&mut self) {
            // MPI's end waits for all, and the others wait for this one.
            if std::thread::panicking() {
                self.world.abort(101);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        cell::RefCell,
        sync::{
            Arc, Mutex,
            mpsc::{Receiver, Sender, channel},
        },
    };

    use super::*;

    /// Threads in the place of processes: what each one sends goes to all.
    pub(crate) struct Threads {
        rank: usize,
        to: Vec<Sender<Vec<u8>>>,
        from: RefCell<Vec<Receiver<Vec<u8>>>>,
    }

    impl Threads {
        /// Runs `work` in `size` threads and returns what they made of it, by rank.
        pub(crate) fn run<T: Send>(size: usize, work: impl Fn(&dyn Group) -> T + Sync) -> Vec<T> {
            let mut senders: Vec<Vec<_>> = (0..size).map(|_| Vec::new()).collect();
            let mut groups = Vec::new();
            for rank in 0..size {
                let from = (0..size).map(|s| {
                    let (send, receive) = channel();
                    senders[s].push(send);
                    receive
                });
                groups.push((rank, from.collect::<Vec<_>>()));
            }
            let groups: Vec<_> = groups
                .into_iter()
                .zip(senders)
                .map(|((rank, from), to)| Threads { rank, to, from: RefCell::new(from) })
                .collect();
            let results = Arc::new(Mutex::new((0..size).map(|_| None).collect::<Vec<Option<T>>>()));
            std::thread::scope(|scope| {
                for group in groups {
                    let (results, work) = (results.clone(), &work);
                    scope.spawn(move || {
                        let result = work(&group);
                        results.lock().unwrap()[group.rank] = Some(result);
                    });
                }
            });
            let mut results = results.lock().unwrap();
            results.drain(..).map(|r| r.expect("the thread came to its end")).collect()
        }
    }

    impl Group for Threads {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.to.len()
        }

        fn local_rank(&self) -> usize {
            self.rank
        }

        fn sum(&self, values: &mut [f32]) {
            let all = self.gather(&to_bytes(values));
            values.fill(0.0);
            all.iter().for_each(|other| values.iter_mut().zip(from_bytes(other)).for_each(|(v, o)| *v += o));
        }

        fn sum_f64(&self, values: &mut [f64]) {
            let own: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let all = self.gather(&own);
            values.fill(0.0);
            for other in all {
                let other = other.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b));
                values.iter_mut().zip(other).for_each(|(v, o)| *v += o);
            }
        }

        fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
            self.to.iter().for_each(|to| to.send(own.to_vec()).expect("all are there"));
            self.from.borrow().iter().map(|from| from.recv().expect("all are there")).collect()
        }

        fn broadcast(&self, bytes: &mut Vec<u8>) {
            *bytes = self.gather(bytes).swap_remove(0);
        }

        fn barrier(&self) {
            self.gather(&[]);
        }

        fn abort(&self) {}
    }

    #[test]
    fn errors_are_those_of_all() {
        let results = Threads::run(3, |group| {
            let own = if group.rank() == 1 { Err(TrainError::Group("full".into())) } else { Ok(group.rank()) };
            let failed = together(group, own).unwrap_err().to_string();
            let differs = same(group, "the recipe", u64::from(group.rank() == 2)).unwrap_err().to_string();
            same(group, "the step", 3).unwrap();
            (failed, differs, group.agree(group.rank() == 2), group.agree(false))
        });
        assert!(results[1].0.contains("full"));
        assert!([0, 2].iter().all(|r| results[*r].0.contains("process 1")), "{results:?}");
        assert!(results[0].1.contains("the recipe of process 2"), "{results:?}");
        assert!(results.iter().all(|r| r.2 && !r.3));
    }

    #[test]
    fn alone_nothing_changes() {
        let mut values = [1.0, 2.0];
        Alone.sum(&mut values);
        assert_eq!((values, Alone.gather(&[3]), Alone.agree(true)), ([1.0, 2.0], vec![vec![3]], true));
        assert!(together(&Alone, Ok(())).is_ok());
    }

    /// Losses whose value is a quotient over the batch: the mean over processes, and its gradient, are those of the whole batch. And
    /// the balancer, whose gradients are those of the whole batch too.
    #[test]
    fn losses_and_balance_are_those_of_the_whole_batch() {
        use burn::tensor::{Tensor, TensorData};

        use crate::{
            device, host,
            loss::{self, Balancer, FeatureNorm, Judged, StftLoss, StftScale},
            net::Random,
        };
        let noise = |purpose: &str, n: usize| -> Vec<f32> {
            let mut random = Random::new(5, purpose, 0);
            // Items of different levels, so that means of quotients are not quotients of means.
            (0..n).map(|i| random.normal() as f32 * (0.1 + i as f32 / n as f32)).collect()
        };
        let part = |purpose: &str, group: &dyn Group| {
            let whole = Tensor::<3>::from_data(TensorData::new(noise(purpose, 4 * 256), [4, 1, 256]), &device::cpu());
            let items = 4 / group.size();
            whole.slice_dim(0, group.rank() * items..(group.rank() + 1) * items)
        };
        let stft = StftLoss::new(&[StftScale { n_fft: 64, hop: 16, window: 64 }]);
        let compute = |group: &dyn Group| {
            let real = part("real", group).autodiff();
            let judged = |x: Tensor<3>| {
                let x: Tensor<4> = x.unsqueeze_dim(1);
                vec![Judged { score: x.clone(), features: vec![x.clone(), x.powi_scalar(2)] }]
            };
            let share = 1.0 / group.size() as f32;
            let mut results = Vec::new();
            let mut gradients = Vec::new();
            for name in ["stft", "features"] {
                let leaf = part("fake", group).autodiff().require_grad();
                let value = match name {
                    "stft" => stft.forward_in(group, leaf.clone(), real.clone()),
                    _ => {
                        let (real, fake) = (judged(real.clone()), judged(leaf.clone()));
                        loss::feature_loss_in(group, FeatureNorm::Relative, &real, &fake).unwrap()
                    }
                };
                let value = value.mul_scalar(share);
                let mut sum = [value.clone().inner().into_scalar::<f32>()];
                group.sum(&mut sum);
                results.push(sum[0]);
                gradients.push((name, leaf.grad(&value.backward()).unwrap()));
            }
            let weights = [("stft".to_owned(), 1.0), ("features".to_owned(), 2.0)].into();
            let mut all: Vec<Vec<f32>> = gradients.iter().map(|(_, g)| host(g.clone())).collect();
            let balanced = Balancer::new(weights, 0.9).combine_in(group, gradients).unwrap();
            results.extend(balanced.norms.values().map(|n| *n as f32));
            all.push(host(balanced.gradient));
            (results, all)
        };
        let (values, gradients) = compute(&Alone);
        for size in [2, 4] {
            let parts = Threads::run(size, compute);
            for (own, _) in &parts {
                assert!(own.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()), "{own:?} for {values:?}");
            }
            for (i, whole) in gradients.iter().enumerate() {
                let got: Vec<f32> = parts.iter().flat_map(|(_, g)| g[i].clone()).collect();
                let scale = whole.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                assert!(got.iter().zip(whole).all(|(a, b)| (a - b).abs() < 1e-4 * scale), "gradient {i} of {size}");
            }
        }
    }
}
