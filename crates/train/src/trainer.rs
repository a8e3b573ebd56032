//! The training loop.
//!
//! One step of the loop: events that are due, an update, then what is due after the update — records, evaluation,
//! samples, a checkpoint. All of it is a function of the recipe and the data, so a run that was killed or stopped and
//! continues from its last checkpoint repeats exactly what it would have done.
//!
//! The order of these parts, and of what ranks do together, is the concern of this file; the parts are in files of their own.

use crate::best::{Better, Measured};
use crate::ema::Ema;
use crate::error::Result;
use crate::files::{Snapshot, TrainState};
use crate::observer::Observer;
use crate::planned::{is_near_growth, with_past};
use crate::planner::GrowthPlanner;
use crate::ranks::{self, RankTimes, Reducer};
use crate::recipe::{Recipe, Resolved};
use crate::records::{Place, Records, Update};
use crate::run_dir::{CONFIG_TOML, Resume, RunDir, Start, ensure_memory, start};
use crate::scored::bits_per_byte;
use crate::task::{self, Task};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokenformer_core::Gradients;
use tokenformer_core::Model;
use tokenformer_core::device::{Collective, Device, Single};
use tokenformer_core::optim::{AdamW, StepOutcome};
use tokenformer_report::ResumePoint;
use tokenformer_store::Warning;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and has saved its state.
    Interrupted,
}

/// A run: its model, what it trains on, its directory.
pub struct Trainer<'a> {
    pub(crate) recipe: Recipe,
    pub(crate) task: Box<dyn Task>,
    pub(crate) model: Model,
    pub(crate) ema: Option<Ema>,
    pub(crate) optimizer: AdamW,
    pub(crate) gradients: Gradients,
    pub(crate) state: TrainState,
    pub(crate) records: Records<'a>,
    /// What finds the moments of the growths of `[planner]`.
    pub(crate) planner: Option<Box<dyn GrowthPlanner + 'a>>,
    pub(crate) dir: RunDir,
    /// All ranks of the run.
    pub(crate) collective: Arc<dyn Collective>,
    /// The ranks between which micro-batches are divided: all, or this one if the device divides the parameter tokens.
    pub(crate) data_parallel: Arc<dyn Collective>,
    /// `None` in one process, whose gradients are added up in place.
    pub(crate) reducer: Option<Reducer>,
    pub(crate) times: RankTimes,
    /// Time spent waiting for other ranks since this update began or the last one ended, besides that of the reducer.
    pub(crate) waited: Duration,
    /// The newest step after which a loss is known to have been finite.
    pub(crate) sound_step: u64,
}

impl<'a> Trainer<'a> {
    /// Prepares a run in the directory `out`, on the data of the recipe.
    ///
    /// # Errors
    /// If recipe, data, directory or checkpoint do not fit together, or memory is short.
    pub fn new(
        resolved: &Resolved,
        out: &Path,
        resume: &Resume,
        device: &Arc<dyn Device>,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        let task = task::open(&resolved.recipe)?;
        Self::with_task(task, resolved, out, resume, device, observer)
    }

    /// As [`Trainer::new`], on a task that was opened already.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn with_task(
        task: Box<dyn Task>,
        resolved: &Resolved,
        out: &Path,
        resume: &Resume,
        device: &Arc<dyn Device>,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        Self::together(
            task,
            resolved,
            out,
            resume,
            device,
            Arc::new(Single),
            observer,
        )
    }

    /// As [`Trainer::with_task`], with the other ranks of `collective`, all of which make a trainer of the same recipe and data
    /// at the same time. They divide the micro-batches of an update between them, and end with the same weights. Rank 0 writes
    /// the run directory, which the others read.
    ///
    /// # Errors
    /// As [`Trainer::new`], if there are more ranks than micro-batches, and if the ranks differ or one of them fails.
    pub fn together(
        task: Box<dyn Task>,
        resolved: &Resolved,
        out: &Path,
        resume: &Resume,
        device: &Arc<dyn Device>,
        collective: Arc<dyn Collective>,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        let recipe = resolved.recipe.clone();
        let (device, data_parallel) = ranks::divide(&recipe, device, &collective)?;
        let device = &device;
        ranks::check(&recipe, data_parallel.world())?;
        // A run that begins, and is too large, is refused before it has a folder. The others have a checkpoint, which may have grown.
        let begins = matches!(resume, Resume::Auto | Resume::Never)
            && matches!(RunDir::of_another(out).newest(), Ok(None));
        if !ranks::any(&*collective, !begins)? {
            ensure_memory(None, &recipe, &*task, &**device, &*collective)?;
        }

        let mut warnings = Vec::new();
        let mut warn = |warning: Warning| warnings.push(warning.to_string());
        let writes = collective.rank() == 0;
        let mut dir = match writes {
            true => RunDir::open(out, &mut warn)?,
            false => RunDir::of_another(out),
        };
        let Start {
            model,
            ema,
            optimizer,
            state,
            notes,
        } = start(
            &mut dir,
            resume,
            &recipe,
            &*task,
            device,
            [&*collective, &*data_parallel],
            &mut warn,
        )?;
        let recipe = with_past(&recipe, &state);
        let gradients = Gradients::zeros(device, model.params())?;
        let point = ResumePoint {
            step: state.step,
            stage: state.stage as usize,
            unevaluated: state.unevaluated,
        };
        let mut config_toml = resolved.to_toml();
        ensure_same_start(&*collective, &config_toml, &*task, &state, &model)?;
        // The recipe of a run is the one that it was trained by. Where no step is left, that is the recipe which is there.
        let trains = state.step < recipe.train.steps || state.unevaluated;
        let found = std::fs::read_to_string(out.join(CONFIG_TOML)).ok();
        if let Some(found) = found.filter(|_| !trains) {
            config_toml = found;
        } else if writes {
            tokenformer_store::write_atomic(&out.join(CONFIG_TOML), config_toml.as_bytes())?;
        }
        let mut records = Records::open(
            out.into(),
            point,
            observer,
            config_toml,
            environment(&*task, &**device, collective.world()),
            task.unit(),
            writes,
        )?;
        records.begin(place(&state, &model))?;
        for warning in warnings {
            records.warning(state.step, &warning)?;
        }
        for note in notes {
            records.note(state.step, note)?;
        }
        let times = RankTimes::open(&data_parallel, out, state.step)?;
        let mut trainer = Self {
            recipe,
            task,
            model,
            ema,
            optimizer,
            gradients,
            sound_step: state.sound_step(),
            state,
            records,
            planner: None,
            dir,
            collective,
            data_parallel,
            reducer: None,
            times,
            waited: Duration::ZERO,
        };
        trainer.reducer = trainer.new_reducer();
        Ok(trainer)
    }

    /// What adds up the gradients of the present model with those of other ranks, if there are any.
    pub(crate) fn new_reducer(&self) -> Option<Reducer> {
        (self.data_parallel.world() > 1).then(|| {
            Reducer::new(
                &self.data_parallel,
                self.model.device(),
                &self.gradients,
                self.optimizer.owners(),
                self.recipe.ranks.reduce,
                self.optimizer.is_sharded(),
            )
        })
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model with the average of the weights, if the run keeps one.
    pub fn average(&self) -> Option<&Model> {
        self.ema.as_ref().map(Ema::model)
    }

    /// The state as it stands.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Trains to the end of the recipe, or until `stop` is set.
    ///
    /// # Errors
    /// [`crate::Error::Diverged`] if losses, gradients or weights are not finite any more; if a file cannot be written,
    /// memory is short, or a growth is impossible. The run can then be resumed from its last checkpoint.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        let step = |trainer: &Self| trainer.state.step;
        let outcome = match self.train(stop) {
            Ok(ControlFlow::Continue(())) => Outcome::Finished,
            Ok(ControlFlow::Break(())) => {
                let text = format!("interrupted at step {}", step(self));
                self.records.note(step(self), text)?;
                Outcome::Interrupted
            }
            Err(error) => {
                // The error must be reported, even if the records can no longer be written.
                let told = self.records.remark(step(self), format!("ended: {error}"));
                let _ = told.and_then(|()| self.records.report(&self.times, None));
                return Err(error);
            }
        };
        let pictures = match outcome {
            Outcome::Finished if self.takes_part() => {
                let average = self.ema.as_ref().map(Ema::model);
                let stop = self.stop_of_one(stop);
                self.task.closing(&self.model, average, stop)?
            }
            _ => None,
        };
        self.records.report(&self.times, pictures.as_ref())?;
        // A process that ends early would end the job before rank 0 has written everything.
        self.barrier()?;
        Ok(outcome)
    }

    /// Finishes the run; breaks if `stop` was set, after saving everything.
    fn train(&mut self, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        const STOPPED: Result<ControlFlow<()>> = Ok(ControlFlow::Break(()));
        self.check_planner()?;
        let is_fresh = self.state.step == 0 && self.state.stage == 0;
        if is_fresh && self.evaluate(stop)?.is_none() {
            return STOPPED;
        }
        if self.state.unevaluated && self.after_update(stop)?.is_break() {
            return STOPPED;
        }
        while self.state.step < self.recipe.train.steps {
            if self.events(stop)?.is_break() {
                return STOPPED;
            }
            if self.update(stop)?.is_break() {
                self.save_interrupted()?;
                return STOPPED;
            }
            if self.after_update(stop)?.is_break() {
                return STOPPED;
            }
            if self.state.step < self.recipe.train.steps && self.is_stopped(stop)? {
                self.save_interrupted()?;
                return STOPPED;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One update and its records. Breaks with nothing changed if `stop` was set between two micro-batches.
    fn update(&mut self, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        let Some(update) = self.train_step(stop)? else {
            return Ok(ControlFlow::Break(()));
        };
        self.count(update)?;
        let place = self.place();
        self.records.update(place, self.recipe.train.steps, update);
        let step = self.state.step;
        if step.is_multiple_of(self.recipe.log.every)
            || self.stage_ends()
            || is_near_growth(&self.recipe, step)
        {
            self.record_losses(update)?;
        }
        match update.skipped {
            true => self.check_skipped(update)?,
            false => self.check_saved()?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gradients of all micro-batches, clipping, AdamW, and the position in the data; `None`, with nothing changed, if
    /// `stop` was set between two micro-batches.
    pub(crate) fn train_step(&mut self, stop: &AtomicBool) -> Result<Option<Update>> {
        let started = Instant::now();
        let waited_before = std::mem::take(&mut self.waited);
        let waited = self.task.waited();
        let step = self.state.step + 1;
        self.model.set_step(self.state.step);
        let nats = self.accumulate(stop)?;
        let loss = nats.map(|nats| nats.sum / self.targets() as f64);
        let lr = self.recipe.lr_at(step);
        let applied = match loss {
            Some(loss) if loss.is_finite() => self.optimizer.step_on_ranks(
                &mut self.model,
                &self.gradients,
                lr,
                &*self.data_parallel,
            )?,
            _ => StepOutcome {
                grad_norm: f64::NAN,
                updated: false,
            },
        };
        let flops = self.gradients.flops() as f64;
        // What comes until the next step can use their memory.
        self.gradients.reset();
        let (Some(loss), Some(nats)) = (loss, nats) else {
            return Ok(None);
        };
        if let Some(ema) = self.ema.as_mut().filter(|_| applied.updated) {
            ema.update(&self.model, step - self.state.skipped)?;
        }
        self.state.flops += flops;
        self.state.step = step;
        self.state.tokens += self.targets();
        self.state.windows += self.windows();
        self.count_time(started.elapsed(), waited_before);
        Ok(Some(Update {
            loss,
            nats,
            grad_norm: applied.grad_norm,
            lr,
            skipped: !applied.updated,
            targets: self.targets(),
            took: started.elapsed(),
            waited: (self.task.waited().zip(waited)).map(|(after, before)| after - before),
        }))
    }

    /// Whether this rank computes what only rank 0 records: it does if every rank has a part of the model.
    fn takes_part(&self) -> bool {
        self.dir.writes() || self.model.device().token_ranks() > 1
    }

    /// The stop flag for work in which ranks do not agree on stopping. It is ignored if each rank holds a part of the model,
    /// because then none may leave before the others.
    fn stop_of_one<'s>(&self, stop: &'s AtomicBool) -> &'s AtomicBool {
        static NEVER: AtomicBool = AtomicBool::new(false);
        match self.model.device().token_ranks() {
            1 => stop,
            _ => &NEVER,
        }
    }

    /// Waits for all ranks.
    pub(crate) fn barrier(&self) -> Result<()> {
        Ok(self.collective.all_reduce(&mut [0.0])?)
    }

    /// Windows of an update, on all ranks.
    pub(crate) fn windows(&self) -> u64 {
        self.task.batch() * self.recipe.train.accumulate
    }

    /// Predictions of an update, on all ranks.
    pub(crate) fn targets(&self) -> u64 {
        self.windows() * self.task.targets_per_window()
    }

    fn count(&mut self, update: Update) -> Result<()> {
        let state = &mut self.state;
        if !update.skipped {
            state.pending_loss.0 += update.loss;
            state.pending_loss.1 += 1;
            if let Some(bytes) = update.nats.bytes {
                state.pending_text.0 += update.nats.sum;
                state.pending_text.1 += bytes;
            }
            state.skipped_in_row = 0;
            return Ok(());
        }
        state.skipped += 1;
        state.skipped_in_row += 1;
        let text = format!(
            "step {}: loss {}, gradient norm {}: not finite, the update is skipped",
            state.step, update.loss, update.grad_norm
        );
        self.records.note(state.step, text)
    }

    fn record_losses(&mut self, last: Update) -> Result<()> {
        let (sum, count) = std::mem::take(&mut self.state.pending_loss);
        let loss = match count {
            0 => f64::NAN,
            _ => sum / count as f64,
        };
        let (nats, bytes) = std::mem::take(&mut self.state.pending_text);
        let bits_per_byte = bits_per_byte(nats, Some(bytes));
        self.records
            .train(self.place(), loss, bits_per_byte, last)?;
        match self.times.record(self.state.step)? {
            Some(slow) => self.records.warning(self.state.step, &slow),
            None => Ok(()),
        }
    }

    /// What is due between two updates. A checkpoint comes last, when all records of the step are written. Breaks
    /// if `stop` was set meanwhile: then a checkpoint says that all of this is still to be done.
    fn after_update(&mut self, stop: &AtomicBool) -> Result<ControlFlow<()>> {
        let (step, ends) = (self.state.step, self.stage_ends());
        let due = |every: u64| ends || (every > 0 && step.is_multiple_of(every));
        let evaluates = due(self.recipe.eval.every);
        let mut measured = None;
        if evaluates {
            measured = self.evaluate(stop)?;
            if measured.is_none() {
                return self.save_unevaluated();
            }
        }
        if due(self.recipe.sample.every) {
            // One rank is enough for the few samples, and records them.
            let samples = match self.takes_part() {
                true => self.task.sample(&self.model, self.stop_of_one(stop))?,
                false => Some(Vec::new()),
            };
            if ranks::any(&*self.collective, samples.is_none())? {
                return self.save_unevaluated();
            }
            for sample in samples.unwrap_or_default() {
                self.records.sample(self.place(), sample)?;
            }
        }
        self.state.unevaluated = false;
        let better = match &measured {
            Some(measured) => Better::of(measured, &mut self.state),
            None => Better::default(),
        };
        // While updates are skipped the weights stay as they are, and may have to be given up.
        let saves = due(self.recipe.checkpoint.every) && (ends || self.state.skipped_in_row == 0);
        if saves || better.any() {
            self.save()?;
            better.mark(&mut self.dir, step)?;
            self.retain()?;
        }
        if evaluates {
            self.records.report_meanwhile(step, &self.times)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Measures and records the held-out loss, also that of the average of the weights; `None` if `stop` was set meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Diverged`] if it is not finite.
    pub(crate) fn evaluate(&mut self, stop: &AtomicBool) -> Result<Option<Measured>> {
        let ranks = &*self.data_parallel;
        let Some(trained) = self.task.evaluate(&self.model, stop, ranks)? else {
            return Ok(None);
        };
        let average = match &self.ema {
            None => None,
            Some(ema) => match self.task.evaluate(ema.model(), stop, ranks)? {
                None => return Ok(None),
                found => found,
            },
        };
        self.records
            .eval(self.place(), &trained, average.as_ref())?;
        if !trained.loss.is_finite() {
            let got = format!("loss {}", trained.loss);
            return Err(self.diverged("the held-out loss is not finite".into(), got));
        }
        self.sound_step = self.state.step;
        Ok(Some(Measured { trained, average }))
    }

    fn place(&self) -> Place {
        place(&self.state, &self.model)
    }

    /// Saves a checkpoint of this step, unless there is one.
    ///
    /// # Errors
    /// [`crate::Error::Diverged`] if a weight is not finite: the last checkpoint stays as it is.
    pub(crate) fn save(&mut self) -> Result<()> {
        if self.dir.has(self.state.step) {
            return Ok(());
        }
        self.check_weights()?;
        self.records.sync()?;
        self.dir.save(&Snapshot {
            model: &self.model,
            ema: self.ema.as_ref(),
            optimizer: &self.optimizer,
            state: &self.state,
            files: self.task.files(),
            ranks: &*self.collective,
        })
    }

    fn save_interrupted(&mut self) -> Result<()> {
        // A run that starts over loses nothing before its first update.
        match self.state.step {
            0 => Ok(()),
            _ => self.save(),
        }
    }

    fn save_unevaluated(&mut self) -> Result<ControlFlow<()>> {
        self.state.unevaluated = true;
        self.save_interrupted()?;
        Ok(ControlFlow::Break(()))
    }

    pub(crate) fn retain(&mut self) -> Result<()> {
        let keep = self.recipe.checkpoint.keep;
        self.dir.retain(keep, self.sound_step)
    }
}

/// The place of a state, with its model.
fn place(state: &TrainState, model: &Model) -> Place {
    Place {
        step: state.step,
        tokens: state.tokens,
        stage: state.stage,
        params: model.param_count(),
        flops: state.flops,
    }
}

/// What a report says of the circumstances of a run.
fn environment(task: &dyn Task, device: &dyn Device, ranks: usize) -> Vec<(String, String)> {
    let program = format!("tokenformer {}", env!("CARGO_PKG_VERSION"));
    let mut environment = vec![
        ("program".into(), program),
        ("computed on".into(), device.describe()),
    ];
    environment.extend(task.describe());
    if ranks > 1 {
        environment.push(("ranks".into(), ranks.to_string()));
    }
    environment
}

/// Ranks that began with different recipes, data or weights would compute nonsense together.
fn ensure_same_start(
    collective: &dyn Collective,
    config_toml: &str,
    task: &dyn Task,
    state: &TrainState,
    model: &Model,
) -> Result<()> {
    let place = (state.step, state.windows);
    let begin = format!("{config_toml}{}{place:?}", task.identity());
    ranks::ensure_equal(
        collective,
        "recipe, data or checkpoint",
        ranks::hash(begin.bytes()),
    )?;
    ranks::ensure_same_weights(collective, model)
}
