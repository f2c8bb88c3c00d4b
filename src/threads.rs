//! Threads lent to the engine.

use codec_core::kernel::{Compute, Isa, Pool};
use rayon::prelude::*;

use crate::Error;

/// The most threads for one signal; more have no work and stall a machine.
pub const MOST_THREADS: usize = 1024;

/// An instruction set and a number of threads to compute with.
#[derive(Debug)]
pub struct Threads {
    isa: Isa,
    pool: Option<rayon::ThreadPool>,
}

/// The rayon pool that the current thread belongs to.
struct Current(usize);

impl Pool for Current {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

impl Threads {
    /// `count` threads (0: as many as the machine has) on an instruction set.
    ///
    /// # Errors
    /// The machine does not have the instruction set, or the system gives no threads.
    pub fn new(count: usize, isa: Isa) -> Result<Self, Error> {
        if !isa.is_available() {
            return Err(Error::Isa(isa));
        }
        let count = if count == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { count };
        if count > MOST_THREADS {
            return Err(Error::Threads(format!("{count} are asked for, and {MOST_THREADS} are the most")));
        }
        let pool = match count {
            1 => None,
            n => Some(
                rayon::ThreadPoolBuilder::new().num_threads(n).build().map_err(|e| Error::Threads(e.to_string()))?,
            ),
        };
        Ok(Self { isa, pool })
    }

    /// Calls `f` with these threads at hand.
    pub fn run<R: Send>(&self, f: impl FnOnce(Compute<'_>) -> R + Send) -> R {
        match &self.pool {
            None => f(Compute { isa: self.isa, pool: None }),
            Some(pool) => {
                let current = Current(pool.current_num_threads());
                // From inside the pool, handing out work costs no wake-up of this thread.
                pool.install(|| f(Compute { isa: self.isa, pool: Some(&current) }))
            }
        }
    }
}
