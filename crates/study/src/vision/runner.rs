//! Runs the parts of the study without a result, one after the other.

use super::arms::{self, Arm};
use super::result::{FORMAT, Measured, VisionResult, VisionResults};
use super::{VisionProfile, report};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::{Device, Model};
use tokenformer_images::{ImageSet, Preprocess, Split};
use tokenformer_report::Record;
use tokenformer_store::{RunLock, Warning};
use tokenformer_train::insight::Verdicts;
use tokenformer_train::recipe::{Resolved, resolve_table};
use tokenformer_train::{Error, Observer, Outcome, Progress, Result, Resume, Trainer};

/// Must be increased when a change of the code changes the results of equal settings by more than rounding.
const NUMERICS: u32 = 1;

/// The rate to try next, beyond the best of several in ascending order that is the first or the last of them.
fn beyond(rates: &[f64], best: f64) -> Option<f64> {
    match rates {
        [first, _, ..] if best == *first => Some(best / 2.0),
        [.., _, last] if best == *last => Some(best * 2.0),
        _ => None,
    }
}

/// How many rates more than the profile's an arm may try.
const WIDENINGS: usize = 4;

/// Receives the progress of the study.
pub trait VisionWatcher {
    /// An update of a run was done; `runs` are the finished ones and all.
    fn step(&mut self, run: &str, runs: (usize, usize), progress: &Progress);
    /// A run has ended.
    fn ended(&mut self, result: &VisionResult);
    /// A message for the user.
    fn note(&mut self, text: &str);
}

/// A run of the study.
#[derive(Clone, Debug)]
pub struct VisionRun {
    /// The arm.
    pub arm: Arm,
    /// Learning rate.
    pub rate: f64,
    /// Seed.
    pub seed: u64,
    /// Hash of everything that decides it.
    pub key: String,
    /// What it trains by.
    pub recipe: Resolved,
}

impl VisionRun {
    /// A description, which is also used in the name of its folder.
    pub fn label(&self) -> String {
        format!("{}-{:.1e}-seed-{}", self.arm.name, self.rate, self.seed)
    }
}

/// A study in a folder.
pub struct VisionRunner {
    profile: VisionProfile,
    arms: Vec<Arm>,
    seeds: u64,
    data: PathBuf,
    set: ImageSet,
    device: Arc<dyn Device>,
    results: VisionResults,
    out: PathBuf,
}

impl VisionRunner {
    /// A study of `arms` on the pictures in `data`, in the folder `out`.
    ///
    /// # Errors
    /// If pictures or results cannot be read, or the pictures do not fit or have no test part.
    pub fn new(
        profile: VisionProfile,
        arms: Vec<Arm>,
        seeds: u64,
        data: &Path,
        out: &Path,
        device: &Arc<dyn Device>,
    ) -> Result<Self> {
        let set = ImageSet::open(data)?;
        profile.input(set.summary())?;
        if set.split(Split::Test).is_none() {
            return Err(Error::Recipe {
                place: "--data".into(),
                problem: "no pictures to test with".into(),
                expected: "a dataset with a test split".into(),
                got: data.display().to_string(),
                help: "prepare it with --test-images".into(),
            });
        }
        Ok(Self {
            profile,
            arms,
            seeds,
            data: data.into(),
            set,
            device: Arc::clone(device),
            results: VisionResults::open(&out.join("results"))?,
            out: out.into(),
        })
    }

    /// The profile.
    pub fn profile(&self) -> &VisionProfile {
        &self.profile
    }

    /// The arms.
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// The pictures.
    pub fn pictures(&self) -> &ImageSet {
        &self.set
    }

    /// The result of a run, if there is one.
    pub fn result(&self, run: &VisionRun) -> Option<&VisionResult> {
        self.results.of(&run.key)
    }

    /// A run.
    ///
    /// # Errors
    /// If the pictures do not fit the profile.
    pub fn run_of(&self, arm: Arm, rate: f64, seed: u64) -> Result<VisionRun> {
        let summary = self.set.summary();
        let mut recipe = arms::recipe(&arm, &self.profile, summary, rate, seed)?;
        let resolved = |recipe: &tokenformer_train::Recipe| {
            let table = toml::Table::try_from(recipe).map_err(|e| Error::Recipe {
                place: arm.name.into(),
                problem: "not a recipe".into(),
                expected: "numbers that TOML has".into(),
                got: e.to_string(),
                help: "the profile's numbers are too large".into(),
            })?;
            resolve_table(table, arm.name, &[])
        };
        // The folder of the pictures does not decide a result; what is in it does.
        let material = (
            FORMAT,
            NUMERICS,
            self.set.identity(Split::Train),
            self.set.identity(Split::Valid),
            self.set.identity(Split::Test),
            resolved(&recipe)?.to_toml(),
        );
        // Strings and numbers.
        let text = serde_json::to_vec(&material).expect("a run is plain data");
        recipe.data.dir = self.data.display().to_string();
        Ok(VisionRun {
            arm,
            rate,
            seed,
            key: blake3::hash(&text).to_hex()[..40].to_string(),
            recipe: resolved(&recipe)?,
        })
    }

    /// The runs of an arm's first seed with every rate: those of the profile, and further ones while the best of several is
    /// the highest or the lowest.
    fn tried(&self, arm: Arm) -> Result<Vec<VisionRun>> {
        let of = |&rate: &f64| self.run_of(arm, rate, 1);
        let mut runs = (self.profile.rates.iter().map(of)).collect::<Result<Vec<_>>>()?;
        for _ in 0..WIDENINGS {
            let rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
            let Some(rate) = self.best_rate(&runs).and_then(|best| beyond(&rates, best)) else {
                break;
            };
            runs.push(of(&rate)?);
            runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        }
        Ok(runs)
    }

    /// The runs of an arm that are known so far: its first seed with every rate, and the other seeds with the rate that has
    /// the least held-out loss, once all are known.
    ///
    /// # Errors
    /// As [`VisionRunner::run_of`].
    pub fn runs_of(&self, arm: Arm) -> Result<Vec<VisionRun>> {
        let mut runs = self.tried(arm)?;
        if let Some(rate) = self.best_rate(&runs) {
            for seed in 2..=self.seeds {
                runs.push(self.run_of(arm, rate, seed)?);
            }
        }
        Ok(runs)
    }

    /// The rate of the run with the least held-out loss; `None` if one has no result.
    fn best_rate(&self, runs: &[VisionRun]) -> Option<f64> {
        let mut best: Option<(f64, f64)> = None;
        for run in runs {
            let result = self.result(run)?;
            let loss = result.held_out.map_or(f64::INFINITY, |found| found.loss);
            if best.is_none_or(|(least, _)| loss < least) {
                best = Some((loss, run.rate));
            }
        }
        best.map(|(_, rate)| rate)
    }

    /// The results of an arm at its best rate, by seed; nothing if they are not all there.
    ///
    /// # Errors
    /// As [`VisionRunner::run_of`].
    pub fn results_of(&self, arm: Arm) -> Result<Option<Vec<&VisionResult>>> {
        let Some(rate) = self.best_rate(&self.tried(arm)?) else {
            return Ok(None);
        };
        let mut results = Vec::new();
        for seed in 1..=self.seeds {
            let run = self.run_of(arm, rate, seed)?;
            match self.results.of(&run.key) {
                Some(result) => results.push(result),
                None => return Ok(None),
            }
        }
        Ok(Some(results))
    }

    /// The next run without a result, and how many have one, of all that are known to be needed.
    ///
    /// # Errors
    /// As [`VisionRunner::run_of`].
    pub fn next(&self) -> Result<(Option<VisionRun>, usize, usize)> {
        let (mut next, mut done, mut all) = (None, 0, 0);
        for &arm in &self.arms {
            all += self.tried(arm)?.len() + (self.seeds as usize).saturating_sub(1);
            for run in self.runs_of(arm)? {
                match self.result(&run) {
                    Some(_) => done += 1,
                    None if next.is_none() => next = Some(run),
                    None => {}
                }
            }
        }
        Ok((next, done, all))
    }

    /// Runs everything that is missing; stops after the update in which `stop` is set.
    ///
    /// # Errors
    /// If another process runs a study in this folder, a picture cannot be read, or a run fails for another reason than that
    /// it diverged.
    pub fn run(&mut self, watcher: &mut dyn VisionWatcher, stop: &AtomicBool) -> Result<Outcome> {
        let work = self.out.join("work");
        std::fs::create_dir_all(&work).map_err(|source| Error::Io {
            action: "make the folder",
            path: work.clone(),
            source,
            help: "check the permissions, or choose another --out",
        })?;
        let warn = &mut |warning: Warning| watcher.note(&warning.to_string());
        let _lock = RunLock::acquire(&work, warn)?;
        loop {
            let (next, done, all) = self.next()?;
            let Some(run) = next else {
                return Ok(Outcome::Finished);
            };
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            let folder = work.join(format!("{}-{}", run.label(), &run.key[..12]));
            let Some(result) = self.one(&run, &folder, (done, all), watcher, stop)? else {
                return Ok(Outcome::Interrupted);
            };
            watcher.ended(&result);
            self.results.add(result)?;
            crate::runner::remove(&folder)?;
        }
    }

    /// Trains a run and measures it; `None` if `stop` was set during that time.
    fn one(
        &self,
        run: &VisionRun,
        folder: &Path,
        runs: (usize, usize),
        watcher: &mut dyn VisionWatcher,
        stop: &AtomicBool,
    ) -> Result<Option<VisionResult>> {
        let label = run.label();
        let mut view = View {
            label: &label,
            runs,
            watcher,
        };
        let resume = Resume::Auto;
        let mut trainer = Trainer::new(&run.recipe, folder, &resume, &self.device, &mut view)?;
        let diverged = match trainer.run(stop) {
            Ok(Outcome::Finished) => None,
            Ok(Outcome::Interrupted) => return Ok(None),
            Err(error @ Error::Diverged { .. }) => {
                Some(error.to_string().lines().next().unwrap_or("").to_string())
            }
            Err(error) => return Err(error),
        };
        let mut measured = None;
        if diverged.is_none() {
            let average = trainer.average().unwrap_or(trainer.model());
            let (Some(weights), Some(average), Some(held_out)) = (
                self.measure(trainer.model(), Split::Test, stop)?,
                self.measure(average, Split::Test, stop)?,
                self.measure(average, Split::Valid, stop)?,
            ) else {
                return Ok(None);
            };
            measured = Some((held_out, [weights, average]));
        }
        let growth = trainer.state().growths.last();
        let growth_logit_difference = growth.map(|past| past.report.max_logit_diff);
        let (flops, params) = (trainer.state().flops, trainer.model().param_count());
        let steps = trainer.state().step;
        drop(trainer);
        let records = tokenformer_report::read(folder.join("metrics.jsonl"))?;
        Ok(Some(VisionResult {
            format: FORMAT,
            key: run.key.clone(),
            arm: run.arm.name.into(),
            rate: run.rate,
            seed: run.seed,
            params,
            steps,
            flops,
            seconds: seconds(&records, run.recipe.recipe.log.every),
            machine: self.device.describe(),
            diverged,
            held_out: measured.map(|(held_out, _)| held_out),
            test: measured.map(|(_, test)| test),
            evals: evals(&records),
            growth_logit_difference,
        }))
    }

    /// Measures a model on all pictures of a split; `None` if `stop` was set meanwhile.
    fn measure(&self, model: &Model, split: Split, stop: &AtomicBool) -> Result<Option<Measured>> {
        let Some(pictures) = self.set.split(split) else {
            return Ok(None);
        };
        let preprocess = self.preprocess()?;
        let found = Verdicts::of(model, pictures, &preprocess, self.profile.batch, stop)?;
        let Some(verdicts) = found else {
            return Ok(None);
        };
        // Shares of fewer pictures than the other runs were measured on cannot be compared.
        if let Some(first) = verdicts.skipped.into_iter().next() {
            return Err(first.reason.into());
        }
        let found = verdicts.tally.evaluation();
        let accuracy = found.accuracy;
        Ok(Some(Measured {
            loss: found.loss,
            top1: accuracy.map_or(0.0, |a| a.top1),
            top5: accuracy.map_or(0.0, |a| a.top5),
            pictures: found.tokens,
        }))
    }

    fn preprocess(&self) -> Result<Preprocess> {
        let summary = self.set.summary();
        let input = self.profile.input(summary)?;
        Ok(Preprocess {
            height: input.height,
            width: input.width,
            channels: input.channels,
            crop_share: 1.0,
            filter: Default::default(),
            mean: summary.mean.clone(),
            std: summary.std.clone(),
        })
    }

    /// Writes the report of the results so far; returns its path.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn report(&self) -> Result<PathBuf> {
        report::write(self, self.seeds, &self.out)
    }
}

/// Seconds of all updates: a record has the mean time of those since the record before.
fn seconds(records: &[Record], usual: u64) -> f64 {
    let mut before = 0;
    let times = records.iter().filter_map(|record| match record {
        Record::Train(train) if train.step_ms.is_finite() => {
            let updates = train.step.saturating_sub(before).min(usual.max(1));
            before = train.step;
            Some(train.step_ms / 1e3 * updates as f64)
        }
        _ => None,
    });
    times.sum()
}

fn evals(records: &[Record]) -> Vec<[f64; 3]> {
    let evals = records.iter().filter_map(|record| match record {
        Record::Eval(eval) => Some([
            eval.flops?,
            eval.ema_loss.unwrap_or(eval.loss),
            eval.ema_top1.or(eval.top1)?,
        ]),
        _ => None,
    });
    evals
        .filter(|numbers| numbers.iter().all(|number| number.is_finite()))
        .collect()
}

/// Passes on the events of a run.
struct View<'a> {
    label: &'a str,
    runs: (usize, usize),
    watcher: &'a mut dyn VisionWatcher,
}

impl Observer for View<'_> {
    fn step(&mut self, progress: &Progress) {
        self.watcher.step(self.label, self.runs, progress);
    }

    fn warning(&mut self, text: &str) {
        self.watcher.note(&format!("warning: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::beyond;

    #[test]
    fn rates_are_tried_until_the_best_is_inside() {
        assert_eq!(beyond(&[2e-3, 4e-3], 4e-3), Some(8e-3));
        assert_eq!(beyond(&[2e-3, 4e-3, 8e-3], 4e-3), None);
        assert_eq!(beyond(&[2e-3, 4e-3], 2e-3), Some(1e-3));
        // A single rate was chosen by hand.
        assert_eq!(beyond(&[3e-3], 3e-3), None);
    }
}
