//! The gradients of an update: micro-batches one after the other, on one rank or divided between several.

use crate::error::Result;
use crate::ranks::{self, MicroBatchStats, Reducer, Times};
use crate::recipe::TrainTable;
use crate::task::Nats;
use crate::trainer::Trainer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokenformer_core::{DropPath, Graph};

impl Trainer<'_> {
    /// Adds up the gradients of all micro-batches of an update, and returns the sum of their losses; `None` if `stop` was set
    /// between two of them.
    ///
    /// Micro-batch `i` is that of rank `i mod world`. All sums are chains in the order of micro-batches, so that they have the
    /// same bits for any number of ranks.
    pub(crate) fn accumulate(&mut self, stop: &AtomicBool) -> Result<Option<Nats>> {
        let (rank, world) = (
            self.data_parallel.rank() as u64,
            self.data_parallel.world() as u64,
        );
        let micro_batches = self.recipe.train.accumulate;
        let rounds = micro_batches.div_ceil(world);
        // One process adds up in place, and allocates nothing.
        let mut leaves = (self.reducer.as_ref()).map(|_| MicroBatchStats::new(micro_batches));
        let mut sum: Option<Nats> = None;
        for round in 0..rounds {
            if round > 0 && self.is_stopped(stop)? {
                self.reducer.as_mut().map_or(Ok(()), Reducer::give_up)?;
                return Ok(None);
            }
            let leaf = round * world + rank;
            let present = (micro_batches - round * world).min(world) as usize;
            if let Some(reducer) = &mut self.reducer {
                reducer.begin_round(round == 0, present);
                if leaf >= micro_batches {
                    reducer.be_absent()?;
                    continue;
                }
            }
            let nats = self.micro_batch(leaf, (round, rounds))?;
            match &mut leaves {
                None => sum = Some(sum.map_or(nats, |sum| sum.and(nats))),
                Some(leaves) => leaves.note(leaf, nats, self.gradients.take_score_sums()?),
            }
        }
        let (Some(reducer), Some(leaves)) = (&mut self.reducer, leaves) else {
            return Ok(sum);
        };
        reducer.finish(&mut self.gradients)?;
        let started = Instant::now();
        let whole = leaves.add_up(self.gradients.flops(), &*self.data_parallel)?;
        self.waited += started.elapsed();
        self.gradients.set_score_sums(&whole.scores);
        self.gradients.set_flops(whole.flops);
        Ok(whole.nats)
    }

    /// Forward and backward pass of a micro-batch, in round `round` of `rounds`.
    fn micro_batch(&mut self, number: u64, (round, rounds): (u64, u64)) -> Result<Nats> {
        let device = Arc::clone(self.model.device());
        let targets = self.targets();
        let first = self.state.windows + number * self.task.batch();
        self.task.fill(first)?;
        let TrainTable {
            recompute,
            drop_path,
            ..
        } = self.recipe.train;
        let mut g = Graph::training(&device, &mut self.gradients).recomputing(recompute);
        if drop_path > 0.0 {
            g = g.dropping(DropPath {
                rate: drop_path,
                seed: self.recipe.seed,
                first,
            });
        }
        let nats = self.task.loss(&self.model, &mut g, 1.0 / targets as f32)?;
        match &mut self.reducer {
            Some(reducer) if reducer.takes(round, rounds) => {
                g.backward_to(reducer)?;
                reducer.end_round()?;
            }
            _ => g.backward()?,
        }
        Ok(nats)
    }

    /// Whether any rank was asked to stop, so that all of them stop after the same update.
    pub(crate) fn is_stopped(&mut self, stop: &AtomicBool) -> Result<bool> {
        let started = Instant::now();
        let asked = ranks::any(&*self.collective, stop.load(Ordering::Relaxed))?;
        self.waited += started.elapsed();
        Ok(asked)
    }

    /// Records how long an update computed and waited: it `took` this time, after its ranks had waited for each other for `before`.
    pub(crate) fn count_time(&mut self, took: Duration, before: Duration) {
        let Some(reducer) = &mut self.reducer else {
            return;
        };
        let waiting = std::mem::take(&mut self.waited) + reducer.take_waited();
        let targets = self.targets() / self.data_parallel.world() as u64;
        self.times.add(Times {
            computing: took.saturating_sub(waiting),
            waiting: waiting + before,
            targets,
        });
    }
}
