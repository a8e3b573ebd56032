//! What a trained model says of pictures, and what its parameter tokens do, for a report.

mod gallery;
mod tokens;
mod verdicts;

pub use tokens::{Selective, TokenUse};
pub use verdicts::{Skipped, Verdict, Verdicts};

use crate::error::Result;
use crate::tally::Tally;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::Model;
use tokenformer_images::Preprocess;
use tokenformer_images::dataset::Pictures;
use tokenformer_report::pictures::{Calibration, ClassRow, ConfidenceBin, PictureReport, SiteRow};

/// Pictures on which the parameter tokens are watched, at most.
const WATCHED: usize = 1000;
/// Pictures of a pass that watches: it keeps the weights of all tokens for all positions.
const WATCHED_BATCH: usize = 16;
/// Pictures that cannot be read and are named.
const NAMED: usize = 5;

/// A model and the pictures that it is shown.
pub struct Insight<'a> {
    /// The model, as it is trained and not packed for inference.
    pub model: &'a Model,
    /// The pictures.
    pub pictures: &'a Pictures,
    /// From a picture to an input.
    pub preprocess: &'a Preprocess,
    /// Names of the classes.
    pub classes: &'a [String],
    /// Which pictures and which weights, as the start of a sentence.
    pub what: String,
}

impl Insight<'_> {
    /// Shows the model all pictures, and makes a report; `None` if `stop` was set meanwhile. Pictures that cannot be read
    /// are counted and named in it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn report(&self, batch: usize, stop: &AtomicBool) -> Result<Option<PictureReport>> {
        let found = Verdicts::of(self.model, self.pictures, self.preprocess, batch, stop)?;
        let Some(verdicts) = found else {
            return Ok(None);
        };
        let seen = self.report_of(&verdicts, stop)?;
        Ok(seen.map(|(report, _)| report))
    }

    /// As [`Insight::report`], with verdicts that are known already; also what the parameter tokens did.
    ///
    /// # Errors
    /// If the device fails.
    pub fn report_of(
        &self,
        verdicts: &Verdicts,
        stop: &AtomicBool,
    ) -> Result<Option<(PictureReport, TokenUse)>> {
        let Some((used, watched)) = self.watch(verdicts, stop)? else {
            return Ok(None);
        };
        let mut report = PictureReport {
            classes: self.classes.to_vec(),
            what: self.sentence(verdicts),
            scores: scores(&verdicts.tally),
            confusions: (verdicts.tally.confusions())
                .map(|((label, told), images)| (label, told, images))
                .collect(),
            calibration: calibration(verdicts),
            sites: site_rows(&used),
            watched: watched.len(),
            ..PictureReport::default()
        };
        report.groups = self.groups(verdicts);
        report.rollout = self.rollout(verdicts)?;
        report.tokens = self.class_tokens(&used, &watched);
        Ok(Some((report, used)))
    }

    /// Which pictures and which weights, how many pictures, and which of them were skipped.
    fn sentence(&self, verdicts: &Verdicts) -> String {
        let mut sentence = format!("{}: {}.", self.what, verdicts.counts());
        for Skipped { reason, .. } in verdicts.skipped.iter().take(NAMED) {
            let reason = reason.to_string();
            sentence += &format!(" {}.", reason.lines().next().unwrap_or_default());
        }
        if verdicts.skipped.len() > NAMED {
            sentence += &format!(" And {} more.", verdicts.skipped.len() - NAMED);
        }
        sentence
    }

    /// Watches the parameter tokens on pictures that are spread evenly; with the numbers of these.
    fn watch(
        &self,
        verdicts: &Verdicts,
        stop: &AtomicBool,
    ) -> Result<Option<(TokenUse, Vec<usize>)>> {
        let mut used = TokenUse::new(self.model, self.classes.len())?;
        if used.sites().is_empty() {
            return Ok(Some((used, Vec::new())));
        }
        let all: Vec<usize> = verdicts.all.iter().map(|verdict| verdict.index).collect();
        let mut watched = Vec::new();
        for chunk in spread(&all, WATCHED).chunks(WATCHED_BATCH) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            // They were read before, and one that is gone since is not watched.
            let chunk = chunk.iter().copied();
            let Inputs { there, pixels, .. } = Inputs::of(self.pictures, self.preprocess, chunk);
            if there.is_empty() {
                continue;
            }
            let labels: Vec<u32> = there.iter().map(|&i| self.pictures.label(i)).collect();
            used.add(&self.model.seen(&pixels, there.len(), false)?, &labels);
            watched.extend(there);
        }
        Ok(Some((used, watched)))
    }
}

/// Some pictures, read.
#[derive(Default)]
struct Inputs {
    /// The numbers of those that can be read.
    there: Vec<usize>,
    /// Their inputs.
    pixels: Vec<f32>,
    skipped: Vec<Skipped>,
}

impl Inputs {
    fn of(
        pictures: &Pictures,
        preprocess: &Preprocess,
        indices: impl Iterator<Item = usize>,
    ) -> Self {
        let mut inputs = Self::default();
        for index in indices {
            match pictures.picture(index) {
                Ok(picture) => {
                    inputs.pixels.extend(preprocess.input(picture));
                    inputs.there.push(index);
                }
                Err(reason) => inputs.skipped.push(Skipped { index, reason }),
            }
        }
        inputs
    }
}

/// At most `count` of `all`, spread evenly.
fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let taken = count.min(all.len());
    (0..taken).map(|i| all[i * all.len() / taken]).collect()
}

fn scores(tally: &Tally) -> Vec<ClassRow> {
    let rows = tally.per_class().into_iter().map(|score| ClassRow {
        images: score.images,
        told: score.told,
        precision: score.precision,
        recall: score.recall,
        f1: score.f1,
    });
    rows.collect()
}

fn calibration(verdicts: &Verdicts) -> Calibration {
    let bins = verdicts.tally.reliability();
    let bins = bins.filter(|bin| bin.images > 0).map(|bin| ConfidenceBin {
        images: bin.images,
        confidence: bin.confidence / bin.images as f64,
        right: bin.right as f64 / bin.images as f64,
    });
    Calibration {
        bins: bins.collect(),
        error: verdicts.tally.calibration_error(),
        temperature: verdicts.temperature(),
    }
}

fn site_rows(used: &TokenUse) -> Vec<SiteRow> {
    let rows = used.sites().iter().map(|site| SiteRow {
        name: format!("block {}, {}", site.block, site.kind.name()),
        tokens: site.stages.len(),
        dead: site.dead().into_iter().filter(|dead| *dead).count(),
        energy: site.energy_shares(),
        by_stage: site.tokens_by_stage(),
    });
    rows.collect()
}
