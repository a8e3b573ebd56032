//! Ranks that divide the parameter tokens of every site, and all do the same work otherwise.

use crate::error::Result;
use crate::recipe::{Recipe, TokensOn};
use std::sync::Arc;
use tokenformer_core::ModelConfig;
use tokenformer_core::config::SiteKind;
use tokenformer_core::device::{self, Collective, Device, Divided, Done, Pending};

/// The collective of ranks whose device divides the parameter tokens: there is nothing else to divide between them. Each does the
/// work of one process, and they agree on when to stop.
#[derive(Debug)]
struct Alike(Arc<dyn Collective>);

impl Collective for Alike {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn ranks_here(&self) -> usize {
        self.0.ranks_here()
    }

    fn begin_gather(
        &self,
        _: usize,
        numbers: Vec<f32>,
        _: &[usize],
    ) -> device::Result<Box<dyn Pending>> {
        Ok(Box::new(Done(numbers)))
    }

    fn begin_broadcast(&self, _: usize, numbers: Vec<f32>) -> device::Result<Box<dyn Pending>> {
        Ok(Box::new(Done(numbers)))
    }

    fn begin_all_reduce(&self, numbers: Vec<f32>) -> device::Result<Box<dyn Pending>> {
        Ok(Box::new(Done(numbers)))
    }

    fn all_reduce(&self, _: &mut [f64]) -> device::Result<()> {
        Ok(())
    }

    fn any(&self, says: bool) -> device::Result<bool> {
        self.0.any(says)
    }
}

/// The device of a run whose ranks divide the parameter tokens, if the recipe says so, and the ranks that divide its micro-batches.
pub(crate) fn divide(
    recipe: &Recipe,
    device: &Arc<dyn Device>,
    collective: &Arc<dyn Collective>,
) -> Result<(Arc<dyn Device>, Arc<dyn Collective>)> {
    if recipe.ranks.tokens == TokensOn::Every || collective.world() == 1 {
        return Ok((Arc::clone(device), Arc::clone(collective)));
    }
    let divided = Divided::between(Arc::clone(device), Arc::clone(collective))?;
    Ok((divided, Arc::new(Alike(Arc::clone(collective)))))
}

/// A model with the largest number of parameter tokens that one of `ranks` ranks has.
pub(crate) fn part_of(config: &ModelConfig, ranks: usize) -> ModelConfig {
    let mut part = config.clone();
    for block in &mut part.blocks {
        for kind in SiteKind::ALL {
            for segment in block
                .site_mut(kind)
                .into_iter()
                .flat_map(|site| &mut site.segments)
            {
                segment.tokens = segment.tokens.div_ceil(ranks);
            }
        }
    }
    part
}
