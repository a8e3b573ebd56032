//! Adding up the gradients of all ranks while the backward pass goes on.
//!
//! In the ordered way the gradient of every micro-batch goes to the rank that owns the array, which adds them in the order of
//! micro-batches: the same chain of additions as in one process, so the same bits for any number of ranks. In the fast way each
//! rank adds up its own micro-batches first, and the library adds the ranks in the order that it likes.

use crate::error::Result;
use crate::recipe::Reduce;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokenformer_core::device::{self, Collective, Device, Pending, Temp};
use tokenformer_core::{Finished, Gradients, MESSAGE, Owners, Part, share_arrays};

/// Adds up the gradients of all ranks.
pub(crate) struct Reducer {
    collective: Arc<dyn Collective>,
    device: Arc<dyn Device>,
    reduce: Reduce,
    /// Whether only the owner of an array needs its gradient.
    is_sharded: bool,
    owners: Owners,
    lens: BTreeMap<usize, usize>,
    /// The gradients to send, by owner.
    filling: Vec<Filling>,
    /// In the order in which they were begun.
    under_way: VecDeque<UnderWay>,
    /// The messages of a round, for a rank without a micro-batch in the last one.
    round: Vec<(usize, Vec<Part>)>,
    is_first_round: bool,
    /// Ranks that have a micro-batch in this round.
    present: usize,
    /// Sums so far: of arrays that this rank owns, or of all.
    sums: BTreeMap<usize, Vec<f32>>,
    waited: Duration,
}

#[derive(Default)]
struct Filling {
    parts: Vec<Part>,
    numbers: Vec<f32>,
}

struct UnderWay {
    owner: usize,
    parts: Vec<Part>,
    is_first_round: bool,
    pending: Box<dyn Pending>,
}

impl Reducer {
    pub fn new(
        collective: &Arc<dyn Collective>,
        device: &Arc<dyn Device>,
        gradients: &Gradients,
        owners: &Owners,
        reduce: Reduce,
        is_sharded: bool,
    ) -> Self {
        Self {
            collective: Arc::clone(collective),
            device: Arc::clone(device),
            reduce,
            is_sharded,
            owners: owners.clone(),
            lens: gradients.trained().collect(),
            filling: (0..collective.world())
                .map(|_| Filling::default())
                .collect(),
            under_way: VecDeque::new(),
            round: Vec::new(),
            is_first_round: true,
            present: 0,
            sums: BTreeMap::new(),
            waited: Duration::ZERO,
        }
    }

    /// Time spent waiting for other ranks since the last question.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Whether the gradients of round `round` of `rounds` are expected here, instead of being added up in place.
    pub fn takes(&self, round: u64, rounds: u64) -> bool {
        !self.reduce.is_fast() || round + 1 == rounds
    }

    /// Begins a round, in which the first `present` ranks have a micro-batch each.
    pub fn begin_round(&mut self, is_first: bool, present: usize) {
        self.is_first_round = is_first;
        self.present = present;
        if is_first {
            self.round.clear();
            self.sums.clear();
        }
    }

    /// Ends a round: sends the remaining buffers.
    pub fn end_round(&mut self) -> device::Result<()> {
        (0..self.filling.len()).try_for_each(|owner| self.send(owner))
    }

    /// Takes part in a round without a micro-batch.
    pub fn be_absent(&mut self) -> device::Result<()> {
        for (owner, parts) in std::mem::take(&mut self.round) {
            self.begin_gather(owner, parts, Vec::new())?;
        }
        Ok(())
    }

    fn send(&mut self, owner: usize) -> device::Result<()> {
        let Filling { parts, numbers } = std::mem::take(&mut self.filling[owner]);
        if parts.is_empty() {
            return Ok(());
        }
        if self.reduce.is_fast() {
            let pending = self.collective.begin_all_reduce(numbers)?;
            self.queue(owner, parts, pending);
            return Ok(());
        }
        if self.is_first_round {
            self.round.push((owner, parts.clone()));
        }
        self.begin_gather(owner, parts, numbers)
    }

    fn begin_gather(
        &mut self,
        owner: usize,
        parts: Vec<Part>,
        numbers: Vec<f32>,
    ) -> device::Result<()> {
        let len = parts.iter().map(|part| part.len).sum();
        let len_of = |rank| if rank < self.present { len } else { 0 };
        let lens: Vec<usize> = (0..self.collective.world()).map(len_of).collect();
        let pending = self.collective.begin_gather(owner, numbers, &lens)?;
        self.queue(owner, parts, pending);
        Ok(())
    }

    fn queue(&mut self, owner: usize, parts: Vec<Part>, pending: Box<dyn Pending>) {
        self.under_way.push_back(UnderWay {
            owner,
            parts,
            is_first_round: self.is_first_round,
            pending,
        });
    }

    /// Takes in what has come, without waiting.
    fn look(&mut self) -> device::Result<()> {
        while let Some(first) = self.under_way.front_mut() {
            if !first.pending.is_done()? {
                break;
            }
            if let Some(first) = self.under_way.pop_front() {
                self.land(first)?;
            }
        }
        Ok(())
    }

    /// Waits for everything that is under way.
    fn wait(&mut self) -> device::Result<()> {
        while let Some(first) = self.under_way.pop_front() {
            self.land(first)?;
        }
        Ok(())
    }

    fn land(&mut self, message: UnderWay) -> device::Result<()> {
        let UnderWay {
            owner,
            parts,
            is_first_round,
            pending,
        } = message;
        let started = Instant::now();
        let numbers = pending.wait()?;
        self.waited += started.elapsed();
        if numbers.is_empty() {
            return Ok(());
        }
        let len = parts.iter().map(|part| part.len).sum();
        let keeps = !self.is_sharded || owner == self.collective.rank();
        if self.reduce.is_fast() && !keeps {
            return Ok(());
        }
        for (rank, of_rank) in numbers.chunks(len).enumerate() {
            let is_first = self.reduce.is_fast() || (is_first_round && rank == 0);
            self.add(&parts, of_rank, is_first);
        }
        Ok(())
    }

    fn add(&mut self, parts: &[Part], mut numbers: &[f32], is_first: bool) {
        for part in parts {
            let (own, rest) = numbers.split_at(part.len);
            numbers = rest;
            let len = self.lens.get(&part.id).copied().unwrap_or_default();
            let sum = self.sums.entry(part.id).or_insert_with(|| vec![0.0; len]);
            let sum = &mut sum[part.start..part.start + part.len];
            match is_first {
                true => sum.copy_from_slice(own),
                false => sum.iter_mut().zip(own).for_each(|(sum, more)| *sum += more),
            }
        }
    }

    /// Ends an update: waits for all gradients, and puts the sums where the optimizer finds them.
    pub fn finish(&mut self, gradients: &mut Gradients) -> Result<()> {
        self.wait()?;
        let sums = std::mem::take(&mut self.sums);
        for (&id, sum) in &sums {
            gradients.set(id, sum)?;
        }
        if self.is_sharded || self.reduce.is_fast() {
            return Ok(());
        }
        let started = Instant::now();
        share_arrays(
            &*self.collective,
            &self.owners.messages(),
            |id| self.lens.get(&id).copied().unwrap_or_default(),
            |part, to| {
                if let Some(sum) = sums.get(&part.id) {
                    to.copy_from_slice(&sum[part.start..part.start + part.len]);
                }
                Ok(())
            },
            |id, numbers| gradients.set(id, numbers),
        )?;
        self.waited += started.elapsed();
        Ok(())
    }

    /// Ends an update that is given up, on all ranks at the same point.
    pub fn give_up(&mut self) -> Result<()> {
        self.wait()?;
        self.sums.clear();
        Ok(())
    }
}

impl Finished for Reducer {
    fn finished(&mut self, id: usize, gradient: Temp) -> device::Result<()> {
        let owner = self.owners.of(id);
        let mut start = 0;
        while start < gradient.len() {
            let filling = &mut self.filling[owner];
            let used = filling.numbers.len();
            let len = (gradient.len() - start).min(MESSAGE - used);
            filling.numbers.resize(used + len, 0.0);
            self.device
                .read_part(&gradient, start, &mut filling.numbers[used..])?;
            filling.parts.push(Part { id, start, len });
            start += len;
            if used + len == MESSAGE {
                self.send(owner)?;
            }
        }
        drop(gradient);
        self.look()
    }
}
