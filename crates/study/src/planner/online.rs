//! Finds the moment of a growth while the run trains.

use super::evidence::{Evidence, stages_of};
use super::fit::Problem;
use super::{DRAWS, Law};
use std::path::Path;
use tokenformer_train::recipe::Recipe;
use tokenformer_train::{GrowthPlanner, Moment, Result};

/// Losses of the run below which nothing is said.
const LEAST: usize = 3;

/// Judges growths by laws that are drawn near a fit to the losses of the run and to other evidence.
#[derive(Clone, Debug)]
pub struct Online {
    others: Evidence,
}

impl Online {
    /// The planner of a recipe; `None` if no growth is left to it.
    ///
    /// # Errors
    /// If a folder of its evidence has none.
    pub fn of(recipe: &Recipe) -> Result<Option<Self>> {
        if recipe.planner.grow.is_empty() {
            return Ok(None);
        }
        let mut others = Evidence::default();
        for dir in &recipe.planner.evidence {
            others.add(Path::new(dir))?;
        }
        Ok(Some(Self { others }))
    }
}

impl GrowthPlanner for Online {
    /// The share of the laws by which `(D/D')^(β+1) ≥ k·c` ([`Law::tokens_before_growth`]).
    fn pays(&mut self, moment: &Moment<'_>) -> Result<Option<f64>> {
        let mut evidence = self.others.clone();
        let before = evidence.observations.len();
        let this = Path::new("this run");
        evidence.add_records(this, this, moment.records)?;
        let tokens = moment.tokens as f64;
        let Some(mut stages) = stages_of(moment.records, tokens) else {
            return Ok(None);
        };
        if evidence.observations.len() < before + LEAST {
            return Ok(None);
        }
        let [size, larger] = moment.flops_per_token.map(|flops| flops / 6.0);
        if let Some(last) = stages.last_mut() {
            last.size = size;
        }
        let problem = Problem::new(&evidence.observations);
        let fit = problem.fit();
        let pays = |law: &Law| {
            let loss = law.loss_after(&stages)?;
            // A model that has grown before stands where one from scratch of its size has the same loss.
            let seen = law.tokens_for(size, loss)?;
            Some(seen >= law.tokens_before_growth(size, larger, larger / size)?)
        };
        let laws = (0..DRAWS).map(|number| problem.draw(&fit, number));
        let count = laws.filter(|law| pays(law) == Some(true)).count();
        Ok(Some(count as f64 / DRAWS as f64))
    }
}
