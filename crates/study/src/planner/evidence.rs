//! What is known of losses: runs, and the results of a growth study.

use super::law::Stage;
use crate::arms::{ARMS, Kind};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tokenformer_core::config::Family;
use tokenformer_report::{Record, TrainRecord, Unit};
use tokenformer_store::Checkpoints;
use tokenformer_train::files::read_state;
use tokenformer_train::recipe::{Recipe, resolve};
use tokenformer_train::{Error, Result};

/// Name of the numbers of a growth study in its folder.
pub const STUDY: &str = "study.json";
/// Name of the records of a run in its folder.
const RECORDS: &str = "metrics.jsonl";
/// Name of the recipe of a run in its folder.
const RECIPE: &str = "config.toml";
const MAX_BYTES: u64 = 256 << 20;
/// Observations that a run gives at most, evenly spaced in the logarithm of the tokens.
const PER_RUN: usize = 8;
/// Learning rate over the highest of its schedule, below which a loss counts as decayed.
const DECAYED: f64 = 0.2;
/// The same above which it counts as not decayed; between the two it is ambiguous and is not used.
const FLAT: f64 = 0.95;

/// A loss that was measured after a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The training that it belongs to.
    pub name: String,
    /// Its stages.
    pub stages: Vec<Stage>,
    /// Held-out loss, in nats per token.
    pub loss: f64,
    /// Whether the learning rate had decayed.
    pub decayed: bool,
}

impl Observation {
    /// Tokens of all stages.
    pub fn tokens(&self) -> f64 {
        self.stages.iter().map(|stage| stage.tokens).sum()
    }
}

/// All observations, and the speed of the runs among them.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The observations.
    pub observations: Vec<Observation>,
    /// Floating-point operations per second of the fastest run.
    pub flop_rate: Option<f64>,
    /// The folders that were added.
    folders: Vec<PathBuf>,
    /// Hash of the training tokens of all runs, and where the first of them is; unknown before a run has a checkpoint.
    data: Option<(String, String)>,
}

/// An end of a study's arm, as `study.json` has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudyEnd {
    /// Name of the arm.
    pub arm: String,
    /// Size of the end.
    pub size: String,
    /// Seed.
    pub seed: u64,
    /// Whether the model is a TokenFormer.
    pub tokenformer: bool,
    /// Effective parameters and tokens of each stage.
    pub stages: Vec<[f64; 2]>,
    /// Held-out loss after the decay, in nats per token.
    pub loss: f64,
}

#[derive(Deserialize)]
struct StudyFile {
    #[serde(default)]
    ends: Vec<StudyEnd>,
}

impl Evidence {
    /// Adds a run's folder, or the folder of a growth study, of which the TokenFormers count.
    ///
    /// # Errors
    /// If there is neither, a file is damaged, the run is not of a TokenFormer on text, its text or tokenizer is not that of the
    /// runs before it, or the folder was added before.
    pub fn add(&mut self, dir: &Path) -> Result<()> {
        let folder = dir.canonicalize().unwrap_or_else(|_| dir.into());
        if self.folders.contains(&folder) {
            return Err(Error::Recipe {
                place: dir.display().to_string(),
                problem: "is named twice, and would count twice".into(),
                expected: "each folder once".into(),
                got: "the same folder again".into(),
                help: "leave one of them out".into(),
            });
        }
        self.folders.push(folder);
        let before = self.observations.len();
        let (study, records) = (dir.join(STUDY), dir.join(RECORDS));
        let source = if study.exists() {
            self.add_study(&study)?;
            study
        } else if records.exists() {
            self.add_run(dir, &records)?;
            records
        } else {
            return Err(damaged(dir, format!("has neither {STUDY} nor {RECORDS}")));
        };
        match self.observations.len() > before {
            true => Ok(()),
            false => Err(damaged(
                &source,
                "has no held-out loss of a TokenFormer after its warm-up, at the highest learning rate or a decayed one".into(),
            )),
        }
    }

    fn add_study(&mut self, path: &Path) -> Result<()> {
        let text = tokenformer_store::read_small(path, MAX_BYTES)?;
        let file: StudyFile =
            serde_json::from_slice(&text).map_err(|e| damaged(path, e.to_string()))?;
        self.add_ends(path, &file.ends)
    }

    /// Adds the TokenFormers among the ends of a study that is at `path`.
    ///
    /// # Errors
    /// If an end has a number that cannot be.
    pub(crate) fn add_ends(&mut self, path: &Path, ends: &[StudyEnd]) -> Result<()> {
        let on_second = |end: &StudyEnd| {
            let mut arms = ARMS
                .iter()
                .filter(|arm| matches!(arm.kind, Kind::Shift(..)));
            arms.any(|arm| arm.name == end.arm)
        };
        // Studies of older versions also list what a second text made of the loss on the first.
        let of_law = |end: &&StudyEnd| end.tokenformer && !on_second(end);
        for end in ends.iter().filter(of_law) {
            let stages: Vec<Stage> = (end.stages.iter())
                .map(|&[size, tokens]| Stage { size, tokens })
                .collect();
            self.push(
                path,
                Observation {
                    // Seeds of one schedule are one training: leaving out only one of them would leave its loss in the evidence.
                    name: format!("{} {}", end.arm, end.size),
                    stages,
                    loss: end.loss,
                    decayed: true,
                },
            )?;
        }
        Ok(())
    }

    fn add_run(&mut self, dir: &Path, path: &Path) -> Result<()> {
        let records = tokenformer_report::read(path)?;
        let recipe = check_kind(dir, &records)?;
        self.check_data(dir)?;
        self.add_records(dir, path, &records, recipe.as_ref())
    }

    /// Refuses a run on other tokens than those before it: losses of different texts or tokenizers follow no common law.
    fn check_data(&mut self, dir: &Path) -> Result<()> {
        let checkpoints = Checkpoints::open(dir);
        let newest = checkpoints.latest()?.map(|step| checkpoints.dir_for(step));
        let Some(newest) = newest.filter(|newest| newest.exists()) else {
            return Ok(());
        };
        let state = read_state(&newest)?;
        let place = dir.display().to_string();
        if !state.earlier_data.is_empty() {
            return Err(Error::Recipe {
                place,
                problem: "has learnt from two texts".into(),
                expected: "a run on one text".into(),
                got: "a run that went on with --new-data".into(),
                help: "leave it out, or name another run".into(),
            });
        }
        self.of_data(&place, &state.data_hash)
    }

    /// Notes that `place` has training tokens with this hash ([`tokenformer_train::Task::identity`]).
    ///
    /// # Errors
    /// If runs before it have others.
    pub fn of_data(&mut self, place: &str, hash: &str) -> Result<()> {
        let (first, known) = (self.data).get_or_insert_with(|| (place.into(), hash.into()));
        match known == hash {
            true => Ok(()),
            false => Err(Error::Recipe {
                place: place.into(),
                problem: "is on another text, or has another tokenizer".into(),
                expected: format!("the training tokens of {first}, hash {known}"),
                got: format!("hash {hash}"),
                help: "losses of different tokens cannot be compared: name runs on one dataset"
                    .into(),
            }),
        }
    }

    /// Adds the run in `dir`, whose records at `path` are these, and whose schedules are those of `recipe`, if it is known.
    ///
    /// # Errors
    /// If a record has a number that cannot be.
    pub(super) fn add_records(
        &mut self,
        dir: &Path,
        path: &Path,
        records: &[Record],
        recipe: Option<&Recipe>,
    ) -> Result<()> {
        let run = Run::of(records, recipe);
        if let Some(rate) = run.flop_rate {
            self.flop_rate = Some(self.flop_rate.map_or(rate, |known| known.max(rate)));
        }
        let name = dir.display().to_string();
        for (stages, loss, decayed) in run.points() {
            let name = name.clone();
            self.push(
                path,
                Observation {
                    name,
                    stages,
                    loss,
                    decayed,
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, path: &Path, observation: Observation) -> Result<()> {
        let is_good = |x: f64| x.is_finite() && x > 0.0;
        let stages = &observation.stages;
        let rises = stages.windows(2).all(|pair| pair[0].size <= pair[1].size);
        let good = !stages.is_empty()
            && is_good(observation.loss)
            && (stages.iter()).all(|stage| is_good(stage.size) && is_good(stage.tokens));
        match good {
            // A model that shrank says nothing of growth.
            true if rises => self.observations.push(observation),
            true => {}
            false => {
                let problem = format!("{}: a loss, size or number of tokens", observation.name);
                return Err(damaged(path, problem + " is not above 0"));
            }
        }
        Ok(())
    }
}

/// The recipe of the run in `dir`, if it is there. Refuses one that is on pictures or of a plain Transformer: other laws hold for
/// them.
fn check_kind(dir: &Path, records: &[Record]) -> Result<Option<Recipe>> {
    let recipe = Some(dir.join(RECIPE)).filter(|recipe| recipe.exists());
    let recipe = (recipe
        .map(|recipe| resolve(Some(&recipe), &[]))
        .transpose()?)
    .map(|resolved| resolved.recipe);
    let family = recipe.as_ref().map(|recipe| recipe.model.family);
    let got = match (Unit::of(records), family) {
        (Unit::Image, _) => "a run on pictures",
        (Unit::Token, Some(Family::Gpt)) => "a run of a plain Transformer",
        (Unit::Token, Some(Family::Tokenformer) | None) => return Ok(recipe),
    };
    Err(Error::Recipe {
        place: dir.display().to_string(),
        problem: "tells nothing of how a TokenFormer learns text".into(),
        expected: "a run of a TokenFormer on text".into(),
        got: got.into(),
        help: "leave it out, or name another run".into(),
    })
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::Damaged {
        path: PathBuf::from(path),
        problem,
        help: "evidence is the folder of a training run, or of `reproduce growth`".into(),
    }
}

/// Sizes and tokens of the stages of the run with these records, after `tokens`; `None` before a stage has two records of training.
pub(super) fn stages_of(records: &[Record], tokens: f64) -> Option<Vec<Stage>> {
    Run::of(records, None).stages(tokens)
}

/// What the records of a run say.
struct Run {
    /// Stage, tokens and operations at its beginning, if that is a checkpoint, and at each record that counts them, in order.
    counts: Vec<(usize, f64, f64)>,
    /// Tokens, loss and learning rate over the highest of its schedule at each evaluation after the warm-up.
    evals: Vec<(f64, f64, f64)>,
    flop_rate: Option<f64>,
}

impl Run {
    /// Without the recipe the highest rate is that of the records, among which it may be missing: a decay branch begins below it.
    fn of(records: &[Record], recipe: Option<&Recipe>) -> Self {
        let trains = || {
            records.iter().filter_map(|record| match record {
                Record::Train(train) => Some(train),
                _ => None,
            })
        };
        let highest = trains().map(|train| train.lr).fold(0.0, f64::max);
        let warm = trains().find(|train| train.lr >= 0.999 * highest);
        let warm = warm.map_or(u64::MAX, |train| train.step);
        let peak_at = |step| match recipe {
            Some(recipe) => recipe.peak_lr_at(step),
            None => (step >= warm).then_some(highest),
        };
        let (mut counts, mut evals, mut rate) = (Vec::new(), Vec::new(), 1.0);
        for record in records {
            match record {
                Record::Start(start) => {
                    counts.push((start.stage, start.tokens as f64, start.flops));
                }
                Record::Train(train) => {
                    rate = peak_at(train.step).map_or(1.0, |peak| train.lr / peak);
                    let count = |flops| (train.stage, train.tokens as f64, flops);
                    counts.extend(train.flops.map(count));
                }
                Record::Eval(eval) if peak_at(eval.step).is_some() && eval.loss.is_finite() => {
                    evals.push((eval.tokens as f64, eval.loss, rate));
                }
                _ => {}
            }
        }
        let mut run = Self {
            counts,
            evals,
            flop_rate: None,
        };
        // A token costs more after a growth, and there are fewer of them in a second.
        let rate = |train: &TrainRecord| Some(train.tokens_per_s? * 6.0 * run.size(train.stage)?);
        let mut rates: Vec<f64> = trains().filter_map(rate).collect();
        rates.retain(|rate| rate.is_finite() && *rate > 0.0);
        rates.sort_by(f64::total_cmp);
        run.flop_rate = rates.get(rates.len() / 2).copied();
        run
    }

    /// The size of a stage: the slope of its operations.
    fn size(&self, stage: usize) -> Option<f64> {
        let mut of_stage = self.counts.iter().filter(|(s, ..)| *s == stage);
        let first = of_stage.next()?;
        let end = of_stage.next_back().unwrap_or(first);
        match end.1 > first.1 {
            true => Some((end.2 - first.2) / (end.1 - first.1) / 6.0),
            // Of the first stage, what came before is known, too.
            false => (stage == 0).then(|| end.2 / end.1 / 6.0),
        }
    }

    /// The stages up to a number of tokens. What came before the records of a run that began with a grown model is one stage of
    /// its mean size.
    fn stages(&self, tokens: f64) -> Option<Vec<Stage>> {
        let last = self.counts.iter().rfind(|(_, seen, _)| *seen <= tokens)?.0;
        let &(first, before, flops) = self.counts.first()?;
        let (mut stages, mut begin) = (Vec::new(), 0.0);
        if first > 0 {
            let size = flops / before / 6.0;
            stages.push(Stage {
                size,
                tokens: before,
            });
            begin = before;
        }
        for stage in first..=last {
            let until = match stage == last {
                true => tokens,
                false => self.counts.iter().rfind(|(s, ..)| *s == stage)?.1,
            };
            // The run began with a growth out of this stage.
            if until <= begin {
                continue;
            }
            stages.push(Stage {
                size: self.size(stage)?,
                tokens: until - begin,
            });
            begin = until;
        }
        Some(stages)
    }

    /// Stages, loss and whether it had decayed, of evaluations that are evenly spaced in the logarithm of the tokens.
    fn points(&self) -> Vec<(Vec<Stage>, f64, bool)> {
        let useful = |&&(_, _, rate): &&(f64, f64, f64)| rate <= DECAYED || rate >= FLAT;
        let mut points = Vec::new();
        let mut next = 0.0;
        let (Some(first), Some(last)) = (self.evals.first(), self.evals.last()) else {
            return points;
        };
        let factor = (last.0 / first.0)
            .powf(1.0 / PER_RUN as f64)
            .max(1.0 + 1e-9);
        for (at, &(tokens, loss, rate)) in self.evals.iter().filter(useful).enumerate() {
            let is_last = tokens == last.0;
            if (tokens >= next || is_last || at == 0) && tokens > 0.0 {
                next = tokens * factor;
                let stages = self.stages(tokens);
                points.extend(stages.map(|stages| (stages, loss, rate <= DECAYED)));
            }
        }
        points
    }
}
