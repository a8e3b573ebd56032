//! Ranks as threads of one process, for tests that need no MPI.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokenformer_device::{Collective, DeviceError, Pending, Result};

/// One of several ranks that are threads.
///
/// ```
/// use tokenformer_device::Collective;
/// use tokenformer_testing::Threads;
///
/// let sums = Threads::run(3, |rank| {
///     let mut numbers = [1.0, rank.rank() as f64];
///     rank.all_reduce(&mut numbers).unwrap();
///     numbers
/// });
/// assert_eq!(sums, [[3.0, 3.0]; 3]);
/// ```
pub struct Threads {
    rank: usize,
    meeting: Arc<Meeting>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads(rank {} of {})", self.rank, self.meeting.world)
    }
}

/// Where the ranks meet.
struct Meeting {
    world: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Operations that each rank has begun.
    begun: Vec<usize>,
    /// By number.
    operations: BTreeMap<usize, Operation>,
    /// Why all operations fail from now on.
    lost: Option<String>,
}

struct Operation {
    kind: Kind,
    brought: Vec<Option<Vec<f64>>>,
    /// Ranks that have their result.
    done: usize,
}

/// What an operation is; ranks that begin different ones are an error in the program.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Gather(usize, Vec<usize>),
    Broadcast(usize),
    Sum,
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(reason: String) -> DeviceError {
    DeviceError::Failed {
        device: "threads".into(),
        operation: "an operation of all ranks".into(),
        reason,
    }
}

impl Threads {
    /// `world` ranks.
    pub fn ranks(world: usize) -> Vec<Self> {
        let meeting = Arc::new(Meeting {
            world,
            state: Mutex::new(State {
                begun: vec![0; world],
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let rank = |rank| Self {
            rank,
            meeting: Arc::clone(&meeting),
        };
        (0..world).map(rank).collect()
    }

    /// Runs `work` on `world` ranks at once, and returns their results in order. A rank that panics is lost to the others, which
    /// get errors; then this panics, too.
    pub fn run<T: Send>(world: usize, work: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
        let work = &work;
        std::thread::scope(|scope| {
            let ranks = Self::ranks(world).into_iter().map(|rank| {
                let guard = Lost(Arc::clone(&rank.meeting), rank.rank);
                scope.spawn(move || {
                    let _guard = guard;
                    work(Arc::new(rank))
                })
            });
            let ranks: Vec<_> = ranks.collect();
            let ended: Vec<_> = ranks.into_iter().map(|rank| rank.join()).collect();
            let results = ended.into_iter();
            results
                .map(|result| result.expect("a rank that does not panic"))
                .collect()
        })
    }

    fn begin(&self, kind: Kind, numbers: Vec<f64>) -> Result<Begun> {
        let mut state = self.meeting.lock();
        let number = state.begun[self.rank];
        state.begun[self.rank] += 1;
        let world = self.meeting.world;
        let operation = state.operations.entry(number).or_insert_with(|| Operation {
            kind: kind.clone(),
            brought: vec![None; world],
            done: 0,
        });
        if operation.kind != kind {
            let reason = format!(
                "operation {number} of rank {} is {kind:?}, and that of another rank {:?}",
                self.rank, operation.kind
            );
            state.lost = Some(reason.clone());
            self.meeting.changed.notify_all();
            return Err(failed(reason));
        }
        operation.brought[self.rank] = Some(numbers);
        self.meeting.changed.notify_all();
        Ok(Begun {
            number,
            rank: self.rank,
            meeting: Arc::clone(&self.meeting),
        })
    }
}

/// Tells the others when a rank ends by a panic.
struct Lost(Arc<Meeting>, usize);

impl Drop for Lost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().lost = Some(format!("rank {} has panicked", self.1));
            self.0.changed.notify_all();
        }
    }
}

/// An operation that was begun.
struct Begun {
    number: usize,
    rank: usize,
    meeting: Arc<Meeting>,
}

impl Begun {
    fn result(&self) -> Result<Vec<f64>> {
        let mut state = self.meeting.lock();
        loop {
            if let Some(lost) = &state.lost {
                return Err(failed(lost.clone()));
            }
            let operation = state.operations.get_mut(&self.number);
            let operation = operation.expect("it stays until all ranks have their result");
            if operation.brought.iter().all(Option::is_some) {
                let result = operation.result(self.rank);
                operation.done += 1;
                if operation.done == self.meeting.world {
                    state.operations.remove(&self.number);
                }
                return Ok(result);
            }
            state = self
                .meeting
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Operation {
    fn result(&self, rank: usize) -> Vec<f64> {
        let brought: Vec<&Vec<f64>> = self.brought.iter().flatten().collect();
        match &self.kind {
            Kind::Gather(root, _) if *root == rank => {
                brought.into_iter().flatten().copied().collect()
            }
            Kind::Gather(..) => Vec::new(),
            Kind::Broadcast(root) => brought[*root].clone(),
            Kind::Sum => {
                let mut sum = brought[0].clone();
                for more in &brought[1..] {
                    sum.iter_mut()
                        .zip(*more)
                        .for_each(|(sum, more)| *sum += more);
                }
                sum
            }
        }
    }
}

impl Pending for Begun {
    fn is_done(&mut self) -> Result<bool> {
        let state = self.meeting.lock();
        if let Some(lost) = &state.lost {
            return Err(failed(lost.clone()));
        }
        let operation = state.operations.get(&self.number);
        Ok(operation.is_some_and(|operation| operation.brought.iter().all(Option::is_some)))
    }

    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        // Sums of f32 are rounded once, which is another order of rounding than one process has.
        Ok(self
            .result()?
            .into_iter()
            .map(|number| number as f32)
            .collect())
    }
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&number| f64::from(number)).collect()
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.meeting.world
    }

    fn ranks_here(&self) -> usize {
        self.meeting.world
    }

    fn begin_gather(
        &self,
        root: usize,
        numbers: Vec<f32>,
        lens: &[usize],
    ) -> Result<Box<dyn Pending>> {
        assert_eq!(lens.len(), self.world());
        assert_eq!(lens[self.rank], numbers.len());
        let kind = Kind::Gather(root, lens.to_vec());
        Ok(Box::new(self.begin(kind, wide(&numbers))?))
    }

    fn begin_broadcast(&self, root: usize, numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        Ok(Box::new(self.begin(Kind::Broadcast(root), wide(&numbers))?))
    }

    fn begin_all_reduce(&self, numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        Ok(Box::new(self.begin(Kind::Sum, wide(&numbers))?))
    }

    fn all_reduce(&self, numbers: &mut [f64]) -> Result<()> {
        let sums = self.begin(Kind::Sum, numbers.to_vec())?.result()?;
        numbers.copy_from_slice(&sums);
        Ok(())
    }
}
