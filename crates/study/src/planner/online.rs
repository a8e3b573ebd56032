//! Finds the moment of a growth while the run trains.

use super::evidence::{Evidence, Observation, stages_of};
use super::fit::Problem;
use super::{DRAWS, Law};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tokenformer_train::recipe::Recipe;
use tokenformer_train::{Error, GrowthPlanner, Moment, Result};

/// Losses of the run below which nothing is said.
const LEAST: usize = 3;
/// Name, in the folder of a run, of what its planner knows from elsewhere.
const KNOWN: &str = "planner.json";
const MAX_BYTES: u64 = 256 << 20;

/// Judges growths by laws that are drawn near a fit to the losses of the run and to other evidence.
#[derive(Clone, Debug)]
pub struct Online {
    others: Evidence,
}

/// The evidence of a run, as it was when the run began: later decisions must not depend on what has come to it since.
#[derive(Serialize, Deserialize)]
struct Known {
    evidence: Vec<String>,
    observations: Vec<Observation>,
}

impl Online {
    /// The planner of the run in `out` on training tokens with the hash `data`, which knows the evidence of its recipe as it
    /// was when this was called first.
    ///
    /// # Errors
    /// If a folder of the evidence has none or is of other data, or what is known of it in `out` is damaged.
    pub fn of(recipe: &Recipe, out: &Path, data: &str) -> Result<Self> {
        let (path, evidence) = (out.join(KNOWN), &recipe.planner.evidence);
        if path.exists() {
            let damaged = |problem: String| Error::Damaged {
                path: path.clone(),
                problem,
                help: "remove it, to have the evidence of [planner] read again".into(),
            };
            let text = tokenformer_store::read_small(&path, MAX_BYTES)?;
            let known: Known =
                serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
            if known.evidence == *evidence {
                let mut others = Evidence::default();
                for observation in known.observations {
                    others.push(&path, observation)?;
                }
                return Ok(Self { others });
            }
        }
        let mut others = Evidence::default();
        others.of_data("this run", data)?;
        for dir in evidence {
            others.add(Path::new(dir))?;
        }
        let known = Known {
            evidence: evidence.clone(),
            observations: others.observations.clone(),
        };
        // Strings and finite numbers alone.
        let text = serde_json::to_vec(&known).expect("plain data");
        tokenformer_store::write_atomic(&path, &text)?;
        Ok(Self { others })
    }
}

impl GrowthPlanner for Online {
    /// The share of the laws by which the growth pays: `(D/D')^(β+1) ≥ k·c` ([`Law::tokens_before_growth`]), and `≥ c` for a model
    /// that has grown before, which pays `k` with and without the growth.
    fn pays(&mut self, moment: &Moment<'_>) -> Result<Option<f64>> {
        let mut evidence = self.others.clone();
        let before = evidence.observations.len();
        let this = Path::new("this run");
        evidence.add_records(this, this, moment.records, None)?;
        let Some(mut stages) = stages_of(moment.records, moment.tokens as f64) else {
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
            let law = match stages.len() {
                1 => *law,
                _ => law.of_grown(),
            };
            Some(seen >= law.tokens_before_growth(size, larger, larger / size)?)
        };
        let laws = (0..DRAWS).map(|number| problem.draw(&fit, number));
        let count = laws.filter(|law| pays(law) == Some(true)).count();
        Ok(Some(count as f64 / DRAWS as f64))
    }
}
