//! A device whose ranks divide the parameter tokens of sites.

mod operations;
mod site;

use crate::{
    Buffer, Collective, Device, Operand, Pending, Result, Role, Segment, Site, SiteRef, Temp,
    ThetaInParts,
};
use std::ops::Range;
use std::sync::Arc;

/// A device of several ranks that divide the parameter tokens of every site between them.
///
/// Rank `r` of `n` has the tokens `N·r/n .. N·(r+1)/n` of each segment: their keys, values, gradients and moments. The
/// activations between sites and all other parameters are replicated on every rank. A site exchanges, over all ranks:
///
/// | pass | what | numbers |
/// |---|---|---|
/// | forward | statistics of its norms | `R · groups · n`, in f64 |
/// | forward | the sum of the outputs | `R · D_out` |
/// | backward | projections on what its norms normalise | `R · groups · n`, in f64 |
/// | backward | the sum of the gradients of the input | `R · D_in` |
///
/// To other code a divided array is whole: it is written whole, and reading it brings the parts together. So every rank has to do
/// the same with the device, in the same order, also where only one of them wants the result.
#[derive(Debug)]
pub struct Divided {
    inner: Arc<dyn Device>,
    ranks: Arc<dyn Collective>,
}

/// This rank's part of an array with a row for each parameter token.
#[derive(Debug)]
struct Share {
    part: Buffer,
    tokens: usize,
    width: usize,
}

/// Scores of a divided site, which get their memory with their first numbers: only the site knows how many are this rank's.
#[derive(Debug)]
struct Scores {
    own: Buffer,
}

impl Divided {
    /// Divides the tokens of sites on `inner` between the ranks.
    ///
    /// # Errors
    /// If the device has no [`ThetaInParts`].
    pub fn between(inner: Arc<dyn Device>, ranks: Arc<dyn Collective>) -> Result<Arc<dyn Device>> {
        match inner.theta_in_parts() {
            Some(_) => Ok(Arc::new(Self { inner, ranks })),
            None => Err(inner.unsupported("sites whose tokens are divided between ranks")),
        }
    }

    fn theta(&self) -> &dyn ThetaInParts {
        // `between`, which alone makes one, accepts no other device.
        self.inner.theta_in_parts().expect("checked by `between`")
    }

    /// The tokens of a rank among `tokens`.
    fn tokens_of(&self, rank: usize, tokens: usize) -> Range<usize> {
        let world = self.ranks.world();
        tokens * rank / world..tokens * (rank + 1) / world
    }

    fn own(&self, tokens: usize) -> Range<usize> {
        self.tokens_of(self.ranks.rank(), tokens)
    }

    /// Calls `run` with this rank's part of a site.
    fn with_own<T>(
        &self,
        site: &SiteRef<'_>,
        run: impl FnOnce(&SiteRef<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut segments = Vec::with_capacity(site.segments.len());
        for segment in site.segments {
            let (Some(keys), Some(values)) = (share(segment.keys), share(segment.values)) else {
                return Err(self.unsupported("a site whose weights are packed"));
            };
            segments.push(Segment {
                keys: &keys.part,
                values: &values.part,
                tokens: self.own(segment.tokens).len(),
                tau: segment.tau,
            });
        }
        run(&Site {
            theta: site.theta,
            norm: site.norm,
            tau: site.tau,
            eps: site.eps,
            segments: &segments,
        })
    }

    /// Puts together the numbers of all ranks, number by number and in the order of ranks: `stats` becomes `together` of them.
    fn exchange(&self, stats: &mut Buffer, together: impl Fn(&[f64]) -> f64) -> Result<()> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world());
        let mut own = vec![0.0; stats.len()];
        self.inner.read(stats, &mut own)?;
        // Sums of slots that are zero on all ranks but one are exact.
        let mut slots = vec![0.0; own.len() * world];
        for (slots, own) in slots.chunks_exact_mut(world).zip(&own) {
            slots[rank] = f64::from(*own);
        }
        // Minus infinity, the statistic of no scores at all, would make the others' sums infinite.
        let none = f64::from(f32::MIN);
        slots.iter_mut().for_each(|slot| *slot = slot.max(none));
        self.ranks.all_reduce(&mut slots)?;
        let all: Vec<f32> = slots
            .chunks_exact(world)
            .map(|parts| together(parts) as f32)
            .collect();
        self.inner.write(&all, stats)
    }

    /// Begins to add up a buffer of all ranks.
    fn begin_all_reduce(&self, buffer: &Buffer) -> Result<Box<dyn Pending>> {
        let mut numbers = vec![0.0; buffer.len()];
        self.inner.read(buffer, &mut numbers)?;
        self.ranks.begin_all_reduce(numbers)
    }

    /// All of an array on every rank.
    fn whole(&self, share: &Share) -> Result<Temp> {
        let mut numbers = vec![0.0; share.tokens * share.width];
        self.read_share(share, 0, &mut numbers)?;
        let mut whole = Temp::new(&self.inner, numbers.len(), Role::Activation)?;
        self.inner.write(&numbers, &mut whole)?;
        Ok(whole)
    }

    fn read_share(&self, share: &Share, start: usize, to: &mut [f32]) -> Result<()> {
        let wanted = start..start + to.len();
        for rank in 0..self.ranks.world() {
            let rows = self.tokens_of(rank, share.tokens);
            let all = rows.start * share.width..rows.end * share.width;
            let part = wanted.start.max(all.start)..wanted.end.min(all.end);
            if part.is_empty() {
                continue;
            }
            let mut numbers = vec![0.0; part.len()];
            if rank == self.ranks.rank() {
                let from = part.start - all.start;
                self.inner.read_part(&share.part, from, &mut numbers)?;
            }
            let numbers = self.ranks.begin_broadcast(rank, numbers)?.wait()?;
            to[part.start - start..part.end - start].copy_from_slice(&numbers);
        }
        Ok(())
    }

    /// Calls `run` with an operand that is whole on this rank.
    fn with_whole<T>(
        &self,
        operand: Operand<'_>,
        run: impl FnOnce(Operand<'_>) -> Result<T>,
    ) -> Result<T> {
        match share(operand.buffer) {
            None => run(operand),
            Some(share) => {
                let whole = self.whole(share)?;
                run(Operand {
                    buffer: &whole,
                    ..operand
                })
            }
        }
    }

    /// The scores of a site on this rank, `numbers` of them.
    fn scores_of<'b>(&self, buffer: &'b mut Buffer, numbers: usize) -> Result<&'b mut Buffer> {
        let own = &mut buffer.storage_mut::<Scores>().own;
        if own.len() != numbers {
            self.inner.release(own);
            // Not `Role::Scores`, whose numbers no other operation may read.
            self.inner.temporary(numbers, Role::Activation, own)?;
        }
        Ok(own)
    }
}

fn share(buffer: &Buffer) -> Option<&Share> {
    buffer.storage_if()
}

/// This rank's part of an array that may be divided.
fn part(buffer: &Buffer) -> &Buffer {
    share(buffer).map_or(buffer, |share| &share.part)
}

fn part_mut(buffer: &mut Buffer) -> &mut Buffer {
    match buffer.storage_if::<Share>() {
        Some(_) => &mut buffer.storage_mut::<Share>().part,
        None => buffer,
    }
}
