//! The training loop.
//!
//! One step of the loop: a growth that is due, an update, then what is due after the update — records,
//! evaluation, a sample, a checkpoint. All of it is a function of the recipe and the dataset, so a run that
//! was killed and goes on from its last checkpoint repeats exactly what it would have done.

use crate::error::{Error, Result};
use crate::evaluate::{EvalOptions, Evaluation, Protocol, evaluate};
use crate::files::{self, Best, KIND_CHECKPOINT, PastGrowth, TrainState};
use crate::memory::{self, TrainingPlan};
use crate::observer::{Observer, Progress};
use crate::recipe::{GrowEvent, Recipe, Resolved};
use crate::sample;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokenformer_core::device::Device;
use tokenformer_core::growth::{Amount, Birth, GrowthReport, grow};
use tokenformer_core::optim::{AdamW, Applied};
use tokenformer_core::{Gradients, Graph, Model, SiteKind};
use tokenformer_data::{Batch, Dataset, WindowSampler};
use tokenformer_report::{
    EvalRecord, GrowRecord, MetricsWriter, NoteRecord, Record, ReportInput, ResumePoint,
    SampleRecord, SiteGrowth, TrainRecord,
};
use tokenformer_store::{CheckpointWriter, Checkpoints, DirWriter, Warning, Which};

/// Where a run starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// From the newest good checkpoint of the run directory, if there is one.
    #[default]
    Auto,
    /// From scratch; the run directory must not hold a run.
    Never,
    /// From the checkpoint (or run) at this path, into a run directory without one.
    From(PathBuf),
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and has saved its state.
    Interrupted,
}

/// A run: its model, its data, its directory.
pub struct Trainer<'a> {
    recipe: Recipe,
    config_toml: String,
    out: PathBuf,
    dataset: Dataset,
    tokenizer: Vec<u8>,
    model: Model,
    optimizer: AdamW,
    gradients: Gradients,
    state: TrainState,
    checkpoints: CheckpointWriter,
    metrics: MetricsWriter,
    observer: &'a mut dyn Observer,
    environment: Vec<(String, String)>,
    batch: Batch,
    /// Losses of a micro-batch.
    nll: Vec<f32>,
    /// Time spent in steps, and steps, since the last train record.
    pending_time: (Duration, u64),
    last_checkpoint: Option<u64>,
}

impl<'a> Trainer<'a> {
    /// Prepares a run in the directory `out`.
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
        let recipe = resolved.recipe.clone();
        if recipe.data.dir.is_empty() {
            return Err(Error::Recipe {
                place: "data.dir".into(),
                problem: "no data".into(),
                expected: "a dataset folder".into(),
                got: "nothing".into(),
                help: "make one with `data prepare`, then set data.dir in the recipe or with --set"
                    .into(),
            });
        }
        let dataset = Dataset::open(Path::new(&recipe.data.dir))?;
        let config = recipe.model.build(dataset.tokenizer.vocab_size())?;
        let context = config.context;
        // The sampler's checks come before anything is allocated or written.
        WindowSampler::new(&dataset.train, context, recipe.train.batch, recipe.seed)?;
        let plan = TrainingPlan::new(&config, recipe.train.batch, context, recipe.train.recompute);
        let help =
            "choose a smaller model, train.batch or model.context, or train.recompute = \"blocks\"";
        memory::ensure("this run", plan.total_bytes(), help)?;

        let (mut notes, mut warnings) = (Vec::new(), Vec::new());
        let mut warn = |warning: Warning| warnings.push(warning.to_string());
        let mut checkpoints = CheckpointWriter::open(out, &mut warn)?;
        let found = find_start(&checkpoints, out, resume, &mut warn)?;
        let tokenizer = files::load_tokenizer(Path::new(&recipe.data.dir))?.0;
        let (model, optimizer, state) = match &found {
            Some(dir) => {
                let state = files::read_state(dir)?;
                check_resume(dir, &state, &recipe, &dataset)?;
                let model = files::load_for_training(dir, device, &state)?;
                let optimizer =
                    files::load_optimizer(dir, &model, recipe.optimizer.clone(), &state)?;
                notes.push(format!(
                    "going on from {} at step {}",
                    dir.display(),
                    state.step
                ));
                (model, optimizer, state)
            }
            None => {
                let model = Model::fresh(device, &config, recipe.seed)?;
                let optimizer = AdamW::new(recipe.optimizer.clone(), &model)?;
                let table = recipe.model.clone();
                (
                    model,
                    optimizer,
                    TrainState::new(recipe.seed, table, dataset.train.hash()),
                )
            }
        };
        check_next_growth(&model, &recipe, &state)?;
        let gradients = Gradients::zeros(device, model.params())?;
        let records = out.join("metrics.jsonl");
        match &found {
            Some(_) => settle(&mut checkpoints, &recipe, &state, |to| {
                files::write_checkpoint(to, &model, &optimizer, &state, &tokenizer)
            })?,
            // A run killed before its first checkpoint begins again, records included.
            None if records.exists() => {
                std::fs::remove_file(&records).map_err(|source| Error::Io {
                    action: "remove the old records",
                    path: records.clone(),
                    source,
                    help: "check the permissions, or choose another --out",
                })?
            }
            None => {}
        }
        let point = ResumePoint {
            step: state.step,
            stage: state.stage as usize,
        };
        let metrics = MetricsWriter::open(records, Some(point))?;
        let config_toml = resolved.to_toml();
        tokenformer_store::write_atomic(&out.join("config.toml"), config_toml.as_bytes())?;
        let environment = vec![
            (
                "program".into(),
                format!("tokenformer {}", env!("CARGO_PKG_VERSION")),
            ),
            ("computed on".into(), device.describe()),
            ("data".into(), recipe.data.dir.clone()),
            ("tokenizer".into(), dataset.tokenizer.describe()),
        ];
        let last_checkpoint = found.as_ref().map(|_| state.step);
        let batch = Batch::new(recipe.train.batch, context);
        let mut trainer = Self {
            recipe,
            config_toml,
            out: out.into(),
            dataset,
            tokenizer,
            model,
            optimizer,
            gradients,
            state,
            checkpoints,
            metrics,
            observer,
            environment,
            batch,
            nll: Vec::new(),
            pending_time: (Duration::ZERO, 0),
            last_checkpoint,
        };
        for warning in warnings {
            trainer.observer.warning(&warning);
            let text = one_line(&format!("warning: {warning}"));
            trainer.write_note(text)?;
        }
        for note in notes {
            trainer.note(note)?;
        }
        Ok(trainer)
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The state as it stands.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Trains to the end of the recipe, or until `stop` is set.
    ///
    /// # Errors
    /// If a file cannot be written, memory is short, or a growth is impossible.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        if self.state.step == 0 && self.state.stage == 0 {
            self.evaluate()?;
        }
        while self.state.step < self.recipe.train.steps {
            if let Some(event) = self.planned_growth() {
                match self.adds(&event)? {
                    0 => self.note(format!(
                        "the growth at step {} adds nothing",
                        self.state.step
                    ))?,
                    more => self.grow(&event, more)?,
                }
            }
            self.update()?;
            self.after_update()?;
            if stop.load(Ordering::Relaxed) && self.state.step < self.recipe.train.steps {
                self.note(format!("interrupted at step {}", self.state.step))?;
                self.save()?;
                self.write_report()?;
                return Ok(Outcome::Interrupted);
            }
        }
        self.write_report()?;
        Ok(Outcome::Finished)
    }

    /// The growth of the recipe that is planned for now and has not happened.
    fn planned_growth(&self) -> Option<GrowEvent> {
        let event = self
            .recipe
            .grow
            .iter()
            .find(|g| g.at_step == self.state.step)?;
        let done = self
            .state
            .growths
            .iter()
            .any(|past| past.event.as_ref() == Some(event));
        (!done).then(|| event.clone())
    }

    /// Parameters that a growth adds.
    fn adds(&self, event: &GrowEvent) -> Result<u64> {
        let after = tokenformer_core::growth::params_after(&self.model, &event.growth)?;
        Ok(after.saturating_sub(self.model.param_count()))
    }

    /// Whether the stage ends here: before a growth that adds something, or with the run.
    fn stage_ends(&self) -> Result<bool> {
        if self.state.step == self.recipe.train.steps {
            return Ok(true);
        }
        match self.planned_growth() {
            Some(event) => Ok(self.adds(&event)? > 0),
            None => Ok(false),
        }
    }

    fn grow(&mut self, event: &GrowEvent, more: u64) -> Result<()> {
        let growth = event.growth.clone();
        let device = Arc::clone(self.model.device());
        let probe = probe_tokens(&self.dataset, self.model.context())?;
        let birth = Birth {
            stage: self.state.stage + 1,
            step: self.state.step,
            seed: self.recipe.seed,
        };
        ensure_growth(more)?;
        let report = grow(&mut self.model, &growth, birth, &probe, 1)?;
        self.optimizer.extend(&self.model)?;
        self.gradients = Gradients::zeros(&device, self.model.params())?;
        self.state.stage += 1;
        self.write(Record::Grow(grow_record(&report, self.state.tokens)))?;
        self.observer.grown(&report);
        self.state.growths.push(PastGrowth {
            event: Some(event.clone()),
            report,
        });
        self.evaluate()?;
        Ok(())
    }

    /// One update: gradients of all micro-batches, clipping, AdamW.
    fn update(&mut self) -> Result<()> {
        let started = Instant::now();
        let step = self.state.step + 1;
        self.model.set_step(self.state.step);
        let device = Arc::clone(self.model.device());
        let (batch, context) = (self.batch.batch, self.batch.context);
        let sampler = WindowSampler::new(&self.dataset.train, context, batch, self.recipe.seed)?;
        let tokens = (batch * context) as u64 * self.recipe.train.accumulate;
        let mut sum = 0.0f64;
        for _ in 0..self.recipe.train.accumulate {
            sampler.fill(self.state.batches, &mut self.batch)?;
            self.state.batches += 1;
            let recompute = self.recipe.train.recompute;
            let mut g = Graph::training(&device, &mut self.gradients).recomputing(recompute);
            let (inputs, targets) = (&self.batch.inputs, &self.batch.targets);
            let (weight, nll) = (1.0 / tokens as f32, &mut self.nll);
            self.model
                .loss_into(&mut g, inputs, targets, batch, weight, nll)?;
            sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
            g.backward()?;
        }
        let loss = sum / tokens as f64;
        let lr = self.recipe.lr_at(step);
        let applied = if loss.is_finite() {
            self.optimizer.step(&mut self.model, &self.gradients, lr)?
        } else {
            Applied {
                grad_norm: f64::NAN,
                updated: false,
            }
        };
        // What comes until the next step can use their memory.
        self.gradients.reset();
        self.state.step = step;
        self.state.tokens += tokens;
        let took = started.elapsed();
        self.pending_time = (self.pending_time.0 + took, self.pending_time.1 + 1);
        if applied.updated {
            self.state.pending_loss.0 += loss;
            self.state.pending_loss.1 += 1;
        } else {
            self.state.skipped += 1;
            self.note(format!(
                "step {step}: loss {loss}, gradient norm {}: not finite, the update is skipped",
                applied.grad_norm
            ))?;
        }
        let progress = Progress {
            step,
            steps: self.recipe.train.steps,
            loss,
            bits_per_byte: self.bits_per_byte(loss),
            grad_norm: applied.grad_norm,
            lr,
            step_ms: took.as_secs_f64() * 1e3,
            tokens_per_s: tokens as f64 / took.as_secs_f64(),
            stage: self.state.stage,
            params: self.model.param_count(),
        };
        self.observer.step(&progress);
        if step.is_multiple_of(self.recipe.log.every) || self.stage_ends()? {
            self.write_train_record(&progress, !applied.updated)?;
        }
        Ok(())
    }

    fn write_train_record(&mut self, progress: &Progress, skipped: bool) -> Result<()> {
        let (sum, count) = std::mem::take(&mut self.state.pending_loss);
        let loss = if count == 0 {
            f64::NAN
        } else {
            sum / count as f64
        };
        let (time, steps) = std::mem::take(&mut self.pending_time);
        let step_s = time.as_secs_f64() / steps.max(1) as f64;
        let step_tokens =
            (self.batch.batch * self.batch.context) as u64 * self.recipe.train.accumulate;
        self.write(Record::Train(TrainRecord {
            step: progress.step,
            tokens: self.state.tokens,
            loss,
            bits_per_byte: self.bits_per_byte(loss),
            grad_norm: progress.grad_norm,
            lr: progress.lr,
            stage: self.state.stage as usize,
            params: progress.params,
            step_ms: step_s * 1e3,
            tokens_per_s: step_tokens as f64 / step_s,
            skipped,
        }))
    }

    /// What is due between two updates. A checkpoint comes last, when all records of the step are written.
    fn after_update(&mut self) -> Result<()> {
        let (step, ends) = (self.state.step, self.stage_ends()?);
        let due = |every: u64| ends || (every > 0 && step % every == 0);
        let mut better = false;
        if due(self.recipe.eval.every) {
            let loss = self.evaluate()?.loss;
            better = loss.is_finite() && self.state.best.is_none_or(|best| loss < best.loss);
            if better {
                self.state.best = Some(Best { step, loss });
            }
        }
        if due(self.recipe.sample.every) && self.recipe.sample.tokens > 0 {
            self.sample()?;
        }
        if due(self.recipe.checkpoint.every) || better {
            self.save()?;
            if better {
                self.checkpoints.set_best(step)?;
            }
            self.checkpoints.retain(self.recipe.checkpoint.keep, &[])?;
        }
        if due(self.recipe.eval.every) {
            self.write_report()?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let options = EvalOptions {
            protocol: Protocol::Chunked,
            context: self
                .batch
                .context
                .min(self.dataset.valid.len().saturating_sub(1)),
            batch: self.batch.batch,
            max_tokens: self.recipe.eval.tokens,
        };
        let found = evaluate(&self.model, &self.dataset.valid, options, |_| {})?;
        self.write(Record::Eval(EvalRecord {
            step: self.state.step,
            tokens: self.state.tokens,
            stage: self.state.stage as usize,
            params: self.model.param_count(),
            loss: found.loss,
            bits_per_byte: found.bits_per_byte,
            perplexity: found.perplexity(),
            eval_tokens: found.tokens,
        }))?;
        Ok(found)
    }

    fn sample(&mut self) -> Result<()> {
        let table = &self.recipe.sample;
        let text = sample::continue_text(
            &self.model,
            &self.dataset.tokenizer,
            &table.prompt,
            table.tokens,
            self.recipe.sampling(),
        )?;
        let prompt = table.prompt.clone();
        let SampleState {
            step,
            tokens,
            stage,
        } = self.position();
        self.write(Record::Sample(SampleRecord {
            step,
            tokens,
            stage,
            prompt,
            text,
        }))
    }

    fn position(&self) -> SampleState {
        let TrainState {
            step,
            tokens,
            stage,
            ..
        } = self.state;
        SampleState {
            step,
            tokens,
            stage: stage as usize,
        }
    }

    /// Saves a checkpoint of this step, unless there is one.
    fn save(&mut self) -> Result<()> {
        if self.last_checkpoint == Some(self.state.step) {
            return Ok(());
        }
        self.metrics.sync()?;
        let (model, optimizer, state, tokenizer) =
            (&self.model, &self.optimizer, &self.state, &self.tokenizer);
        self.checkpoints.save(state.step, KIND_CHECKPOINT, |to| {
            files::write_checkpoint(to, model, optimizer, state, tokenizer)
        })?;
        self.last_checkpoint = Some(self.state.step);
        Ok(())
    }

    /// Writes plots, report, CSV and TensorBoard events from the records so far.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn write_report(&mut self) -> Result<()> {
        let records = tokenformer_report::read(self.out.join("metrics.jsonl"))?;
        let name = self
            .out
            .file_name()
            .map_or("run".into(), |n| n.to_string_lossy());
        tokenformer_report::write_report(
            &self.out,
            &ReportInput {
                title: &format!("TokenFormer run {name}"),
                records: &records,
                config_toml: &self.config_toml,
                environment: &self.environment,
                notes: &[],
            },
        )?;
        tokenformer_report::write_events(&self.out, &records)?;
        Ok(())
    }

    fn bits_per_byte(&self, loss: f64) -> Option<f64> {
        let train = &self.dataset.train;
        (train.text_bytes() > 0)
            .then(|| loss / std::f64::consts::LN_2 * train.len() as f64 / train.text_bytes() as f64)
    }

    fn note(&mut self, text: String) -> Result<()> {
        self.observer.note(&text);
        self.write_note(text)
    }

    fn write_note(&mut self, text: String) -> Result<()> {
        self.write(Record::Note(NoteRecord {
            step: self.state.step,
            text,
        }))
    }

    fn write(&mut self, record: Record) -> Result<()> {
        self.metrics.write(&record)?;
        self.observer.record(&record);
        Ok(())
    }
}

struct SampleState {
    step: u64,
    tokens: u64,
    stage: usize,
}

/// Tokens on which a growth is verified: the beginning of the held-out text.
pub fn probe_tokens(dataset: &Dataset, context: usize) -> Result<Vec<u32>> {
    let mut probe = vec![0; dataset.valid.len().min(context)];
    dataset.valid.read(0, &mut probe)?;
    Ok(probe)
}

/// The record of a growth.
pub fn grow_record(report: &GrowthReport, tokens: u64) -> GrowRecord {
    GrowRecord {
        step: report.step,
        tokens,
        stage: report.stage as usize,
        params_before: report.params_before,
        params_after: report.params_after,
        summary: report.growth.summary(),
        max_logit_diff: report.max_logit_diff,
        sites: (report.sites.iter())
            .map(|s| SiteGrowth {
                name: s.site.name().into(),
                tokens_before: s.tokens_before as u64,
                tokens_after: s.tokens_after as u64,
                params_before: s.params_before,
                params_after: s.params_after,
            })
            .collect(),
        layers_before: report.layers_before,
        layers_after: report.layers_after,
    }
}

/// The checkpoint to start from.
fn find_start(
    own: &Checkpoints,
    out: &Path,
    resume: &Resume,
    warn: &mut dyn FnMut(Warning),
) -> Result<Option<PathBuf>> {
    let has_run = || Ok::<_, Error>(!own.list()?.is_empty() || out.join("metrics.jsonl").exists());
    let occupied = |got: &str| Error::Resume {
        path: out.into(),
        problem: "there is a run here".into(),
        expected: "a directory without a run".into(),
        got: got.into(),
        help: "choose another --out, or go on with --resume auto".into(),
    };
    match resume {
        Resume::Auto => Ok(own.latest_good(warn)?.map(|(_, found)| found.dir)),
        Resume::Never if has_run()? => Err(occupied("--resume never")),
        Resume::Never => Ok(None),
        Resume::From(path) => {
            let found = tokenformer_store::resolve(path, Which::Latest, warn)?;
            if !has_run()? {
                return Ok(Some(found.dir));
            }
            let own_dir = found.step.map(|step| own.dir_for(step).canonicalize());
            if !matches!((own_dir, found.dir.canonicalize()), (Some(Ok(a)), Ok(b)) if a == b) {
                return Err(occupied(&format!("--resume {}", path.display())));
            }
            // What comes after would be taken up by the next `--resume auto`.
            match own.latest_good(warn)? {
                Some((newest, _)) if Some(newest) > found.step => Err(Error::Resume {
                    path: found.dir,
                    problem: "the run has a later one".into(),
                    expected: "the newest checkpoint of the run in --out".into(),
                    got: format!("one before step {newest}"),
                    help:
                        "go on from the newest with --resume auto, or branch off with another --out"
                            .into(),
                }),
                _ => Ok(Some(found.dir)),
            }
        }
    }
}

/// Refuses to go on with another model, data, seed or past than the checkpoint's.
fn check_resume(dir: &Path, state: &TrainState, recipe: &Recipe, dataset: &Dataset) -> Result<()> {
    let differs = |problem: &str, expected: String, got: String| {
        Err(Error::Resume {
            path: dir.into(),
            problem: problem.into(),
            expected,
            got,
            help:
                "go on with the recipe in the run's config.toml, or start anew with another --out"
                    .into(),
        })
    };
    if state.model != recipe.model {
        let (old, new) = (format!("{:?}", state.model), format!("{:?}", recipe.model));
        let (old, new) = first_difference(&old, &new);
        return differs("the recipe's [model] has changed", old, new);
    }
    if state.seed != recipe.seed {
        return differs(
            "another seed",
            state.seed.to_string(),
            recipe.seed.to_string(),
        );
    }
    if state.data_hash != dataset.train.hash() {
        return differs(
            "other training data",
            state.data_hash.clone(),
            dataset.train.hash(),
        );
    }
    let past: Vec<&GrowEvent> = state
        .growths
        .iter()
        .filter_map(|g| g.event.as_ref())
        .collect();
    let planned = recipe.grow.iter().filter(|g| past.contains(g)).count();
    let missed = recipe
        .grow
        .iter()
        .find(|g| g.at_step < state.step && !past.contains(g) && !added_nothing(g, state));
    if planned < past.len() {
        return differs(
            "the recipe's past growths have changed",
            format!("{past:?}"),
            format!("{:?}", recipe.grow),
        );
    }
    if let Some(missed) = missed {
        let got = format!("a growth at step {}", missed.at_step);
        return differs(
            "the recipe has a growth in the past",
            format!("growths from step {} on", state.step),
            got,
        );
    }
    Ok(())
}

/// Whether a growth of the past would have found every site as large as it asks for.
fn added_nothing(event: &GrowEvent, state: &TrainState) -> bool {
    let slots = &state.model.slots;
    let asked = [
        (SiteKind::Query, event.growth.qkv, slots.qkv),
        (SiteKind::Proj, event.growth.proj, slots.proj),
        (SiteKind::Ffn, event.growth.ffn, slots.ffn),
    ];
    let before = (state.growths.iter())
        .rev()
        .find(|g| g.report.step <= event.at_step);
    event.growth.layers == 0
        && asked.into_iter().all(|(kind, amount, fresh)| {
            let site = before.and_then(|g| g.report.sites.iter().find(|s| s.site == kind));
            let tokens = site.map_or(fresh, |s| s.tokens_after);
            matches!(amount, Amount::Add(0)) || amount == Amount::To(tokens)
        })
}

/// Refuses a run whose next growth cannot be done, before anything is trained.
fn check_next_growth(model: &Model, recipe: &Recipe, state: &TrainState) -> Result<()> {
    let next = recipe.grow.iter().find(|g| {
        let done = state.growths.iter().any(|p| p.event.as_ref() == Some(g));
        g.at_step >= state.step && !done
    });
    match next {
        Some(event) => {
            let after = tokenformer_core::growth::params_after(model, &event.growth)?;
            ensure_growth(after.saturating_sub(model.param_count()))
        }
        None => Ok(()),
    }
}

fn ensure_growth(more_params: u64) -> Result<()> {
    // Weights, gradients and two moments.
    let bytes = more_params.saturating_mul(16);
    memory::ensure("the growth", bytes, "grow by fewer tokens")
}

/// Brings the checkpoints of a run directory to what they are right after the checkpoint that `state` came
/// from: a kill may have come between it and the pointers, and a run that branches off starts with its own.
fn settle(
    checkpoints: &mut CheckpointWriter,
    recipe: &Recipe,
    state: &TrainState,
    fill: impl FnOnce(&mut DirWriter) -> Result<()>,
) -> Result<()> {
    if checkpoints.latest().ok().flatten() != Some(state.step) {
        checkpoints.save(state.step, KIND_CHECKPOINT, fill)?;
    }
    if let Some(best) = state.best
        && checkpoints.dir_for(best.step).exists()
    {
        checkpoints.set_best(best.step)?;
    }
    checkpoints.retain(recipe.checkpoint.keep, &[])?;
    Ok(())
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

/// The parts where two debug texts differ, with a little of what is before.
fn first_difference(a: &str, b: &str) -> (String, String) {
    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let start = a[..at].rfind([',', '{']).map_or(0, |i| i + 1);
    let cut = |s: &str| {
        s[start..]
            .split(',')
            .next()
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    (cut(a), cut(b))
}
