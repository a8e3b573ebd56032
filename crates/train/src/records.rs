//! The output of a run: records in `metrics.jsonl`, lines for the terminal, and the report made from both.

use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::observer::{Observer, Progress};
use crate::ranks::RankTimes;
use crate::task::Nats;
use crate::task::Sample;
use std::path::PathBuf;
use std::time::Duration;
use tokenformer_core::growth::GrowthReport;
use tokenformer_report::pictures::PictureReport;
use tokenformer_report::{
    ControlRecord, EvalRecord, GrowRecord, MetricsWriter, NoteRecord, Record, ReportInput,
    ResumePoint, SampleRecord, SiteGrowth, StartRecord, TrainRecord, Unit,
};

/// The records' file in a run directory.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Where in a run something is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Updates done or skipped.
    pub step: u64,
    /// Targets seen.
    pub tokens: u64,
    pub stage: u32,
    pub params: u64,
    /// Floating-point operations of training so far.
    pub flops: f64,
}

/// An update, as it was done or skipped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    /// Mean loss of its batch.
    pub loss: f64,
    /// Losses of its batch, added up.
    pub nats: Nats,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    pub lr: f64,
    pub skipped: bool,
    /// Targets in its batch.
    pub targets: u64,
    pub took: Duration,
    /// Part of that time spent waiting for data, where samples are prepared in parallel with the training.
    pub waited: Option<Duration>,
}

/// Writes the record and passes it to the observer.
pub(crate) struct Records<'a> {
    out: PathBuf,
    /// `None` on all ranks but 0.
    metrics: Option<MetricsWriter>,
    observer: &'a mut dyn Observer,
    /// The recipe and the circumstances, for the report.
    config_toml: String,
    environment: Vec<(String, String)>,
    /// What predictions are of.
    unit: Unit,
    /// Since the last train record.
    pending: Pending,
    /// Whether it was said that the report cannot be written.
    has_warned: bool,
}

/// Updates without a record.
#[derive(Default)]
struct Pending {
    updates: u64,
    took: Duration,
    waited: Option<Duration>,
}

impl<'a> Records<'a> {
    /// Opens the records in `out`, without what comes after `point`.
    pub fn open(
        out: PathBuf,
        point: ResumePoint,
        observer: &'a mut dyn Observer,
        config_toml: String,
        environment: Vec<(String, String)>,
        unit: Unit,
        writes: bool,
    ) -> Result<Self> {
        let metrics = match writes {
            true => Some(MetricsWriter::open(out.join(METRICS), Some(point))?),
            false => None,
        };
        let damage = metrics.as_ref().and_then(MetricsWriter::damage);
        let damage = damage.map(ToString::to_string);
        let mut records = Self {
            out,
            metrics,
            observer,
            config_toml,
            environment,
            unit,
            pending: Pending::default(),
            has_warned: false,
        };
        if let Some(damage) = damage {
            records.warning(point.step, &damage)?;
        }
        Ok(records)
    }

    /// Records what the run begins with, unless it has records already or begins from scratch.
    pub fn begin(&mut self, at: Place) -> Result<()> {
        let is_first = match &self.metrics {
            Some(metrics) => at.step > 0 && metrics.is_empty()?,
            None => false,
        };
        if is_first {
            self.write(Record::Start(StartRecord {
                step: at.step,
                tokens: at.tokens,
                stage: at.stage as usize,
                params: at.params,
                flops: at.flops,
            }))?;
        }
        Ok(())
    }

    /// Waits until all records are on the disk.
    pub fn sync(&mut self) -> Result<()> {
        match &mut self.metrics {
            Some(metrics) => Ok(metrics.sync()?),
            None => Ok(()),
        }
    }

    /// What is recorded so far, on the rank that writes it.
    pub fn so_far(&mut self) -> Result<Vec<Record>> {
        self.sync()?;
        Ok(tokenformer_report::read(self.out.join(METRICS))?)
    }

    /// Records a remark and passes it to the observer.
    pub fn note(&mut self, step: u64, text: String) -> Result<()> {
        self.observer.note(&text);
        self.remark(step, text)
    }

    /// Records a warning and passes it to the observer.
    pub fn warning(&mut self, step: u64, text: &str) -> Result<()> {
        self.observer.warning(text);
        self.remark(step, format!("warning: {text}"))
    }

    /// Records a remark that the observer gets in another form.
    pub fn remark(&mut self, step: u64, text: String) -> Result<()> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let text = lines.join("; ");
        self.write(Record::Note(NoteRecord { step, text }))
    }

    /// Tells of an update.
    pub fn update(&mut self, at: Place, steps: u64, update: Update) {
        self.pending.updates += 1;
        self.pending.took += update.took;
        if let Some(more) = update.waited {
            *self.pending.waited.get_or_insert_default() += more;
        }
        self.observer.step(&Progress {
            step: at.step,
            steps,
            loss: update.loss,
            bits_per_byte: update.nats.bits_per_byte(),
            grad_norm: update.grad_norm,
            lr: update.lr,
            step_ms: update.took.as_secs_f64() * 1e3,
            unit: self.unit,
            per_s: update.targets as f64 / update.took.as_secs_f64(),
            waiting: waiting(update.waited, update.took),
            stage: at.stage,
            params: at.params,
        });
    }

    /// Records the updates since the last train record: their mean loss and time, and the rest of the last one.
    pub fn train(
        &mut self,
        at: Place,
        loss: f64,
        bits_per_byte: Option<f64>,
        last: Update,
    ) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let step_s = pending.took.as_secs_f64() / pending.updates.max(1) as f64;
        let per_s = |unit| (unit == self.unit).then_some(last.targets as f64 / step_s);
        self.write(Record::Train(TrainRecord {
            step: at.step,
            tokens: at.tokens,
            loss,
            bits_per_byte,
            grad_norm: last.grad_norm,
            lr: last.lr,
            stage: at.stage as usize,
            params: at.params,
            flops: Some(at.flops),
            step_ms: step_s * 1e3,
            tokens_per_s: per_s(Unit::Token),
            images_per_s: per_s(Unit::Image),
            waiting: waiting(pending.waited, pending.took),
            skipped: last.skipped,
        }))
    }

    /// Records an evaluation of the model, and of the average of its weights.
    pub fn eval(
        &mut self,
        at: Place,
        found: &Evaluation,
        average: Option<&Evaluation>,
    ) -> Result<()> {
        let of_average = average.and_then(|found| found.accuracy);
        self.write(Record::Eval(EvalRecord {
            step: at.step,
            tokens: at.tokens,
            stage: at.stage as usize,
            params: at.params,
            flops: Some(at.flops),
            loss: found.loss,
            bits_per_byte: found.bits_per_byte,
            perplexity: (self.unit == Unit::Token).then(|| found.perplexity()),
            eval_tokens: found.tokens,
            top1: found.accuracy.map(|accuracy| accuracy.top1),
            top5: found.accuracy.map(|accuracy| accuracy.top5),
            ema_loss: average.map(|found| found.loss),
            ema_top1: of_average.map(|accuracy| accuracy.top1),
            ema_top5: of_average.map(|accuracy| accuracy.top5),
        }))
    }

    /// Records a sample.
    pub fn sample(&mut self, at: Place, sample: Sample) -> Result<()> {
        self.write(Record::Sample(SampleRecord {
            step: at.step,
            tokens: at.tokens,
            stage: at.stage as usize,
            prompt: sample.prompt,
            text: sample.text,
        }))
    }

    /// Records the loss of an update without the growth that begins `stage`.
    pub fn control(&mut self, step: u64, stage: u32, loss: f64) -> Result<()> {
        let stage = stage as usize;
        self.write(Record::Control(ControlRecord { step, loss, stage }))
    }

    /// Records a growth and passes it to the observer.
    pub fn grow(&mut self, report: &GrowthReport, tokens: u64) -> Result<()> {
        self.write(Record::Grow(grow_record(report, tokens)))?;
        self.observer.grown(report);
        Ok(())
    }

    /// Writes plots, report, CSV and TensorBoard events from the records so far; with what the model says of pictures, if
    /// that is known.
    pub fn report(&mut self, ranks: &RankTimes, pictures: Option<&PictureReport>) -> Result<()> {
        if self.metrics.is_none() {
            return Ok(());
        }
        let mut environment = self.environment.clone();
        environment.extend(ranks.rows());
        let records = tokenformer_report::read(self.out.join(METRICS))?;
        let name = (self.out.file_name()).map_or("run".into(), |n| n.to_string_lossy());
        let input = ReportInput {
            title: &format!("TokenFormer run {name}"),
            records: &records,
            config_toml: &self.config_toml,
            environment: &environment,
            notes: &[],
            pictures,
        };
        tokenformer_report::write_report(&self.out, &input)?;
        tokenformer_report::write_events(&self.out, &records)?;
        Ok(())
    }

    /// As [`Records::report`], on the way: a run does not fail because of its pictures, so an error is a warning, once.
    pub fn report_meanwhile(&mut self, step: u64, ranks: &RankTimes) -> Result<()> {
        match self.report(ranks, None) {
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                self.warning(step, &format!("the report cannot be written: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, record: Record) -> Result<()> {
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&record)?;
        }
        self.observer.record(&record);
        Ok(())
    }
}

/// The share of a time that was waited.
fn waiting(waited: Option<Duration>, took: Duration) -> Option<f64> {
    Some(waited?.as_secs_f64() / took.as_secs_f64().max(f64::MIN_POSITIVE))
}

fn grow_record(report: &GrowthReport, tokens: u64) -> GrowRecord {
    let sites = report.sites.iter().map(|s| SiteGrowth {
        name: s.site.name().into(),
        tokens_before: s.tokens_before as u64,
        tokens_after: s.tokens_after as u64,
        most_before: s.most_before.map(|most| most as u64),
        most_after: s.most_after.map(|most| most as u64),
        params_before: s.params_before,
        params_after: s.params_after,
    });
    GrowRecord {
        step: report.step,
        tokens,
        stage: report.stage as usize,
        params_before: report.params_before,
        params_after: report.params_after,
        summary: report.growth.summary(),
        max_logit_diff: report.max_logit_diff,
        sites: sites.collect(),
        layers_before: report.layers_before,
        layers_after: report.layers_after,
    }
}
