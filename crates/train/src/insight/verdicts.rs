//! What was said of each picture, and how far it can be trusted.

use super::Inputs;
use crate::error::Result;
use crate::tally::{Tally, likeliest, log_sum};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::Model;
use tokenformer_images::Preprocess;
use tokenformer_images::dataset::Pictures;

/// Classes that are kept for each picture.
const KEPT: usize = 5;
/// Logits that are kept to fit a temperature, at most; of larger evaluations the first pictures count.
const MAX_LOGITS: usize = 1 << 24;

/// What was said of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The picture's number in its split.
    pub index: usize,
    /// Its class.
    pub label: u32,
    /// The five likeliest classes with their probabilities.
    pub top: Vec<(u32, f64)>,
}

impl Verdict {
    /// Whether the likeliest class is that of the picture.
    pub fn is_right(&self) -> bool {
        self.top
            .first()
            .is_some_and(|(told, _)| *told == self.label)
    }

    /// Probability of the likeliest class.
    pub fn confidence(&self) -> f64 {
        self.top
            .first()
            .map_or(0.0, |(_, probability)| *probability)
    }
}

/// A picture that cannot be read.
#[derive(Debug)]
pub struct Skipped {
    /// The picture's number in its split.
    pub index: usize,
    /// The reason, with its file.
    pub reason: tokenformer_images::Error,
}

/// What was said of many pictures.
#[derive(Debug)]
pub struct Verdicts {
    /// Counts and sums.
    pub tally: Tally,
    /// Picture by picture.
    pub all: Vec<Verdict>,
    /// Pictures of which nothing was said, because they cannot be read.
    pub skipped: Vec<Skipped>,
    classes: usize,
    labels: Vec<u32>,
    logits: Vec<f32>,
}

impl Verdicts {
    /// No pictures yet.
    pub fn new(classes: usize) -> Self {
        Self {
            tally: Tally::new(classes),
            all: Vec::new(),
            skipped: Vec::new(),
            classes,
            labels: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// What `model` says of all pictures, shown as `preprocess` prepares them; `None` if `stop` was set meanwhile.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of(
        model: &Model,
        pictures: &Pictures,
        preprocess: &Preprocess,
        batch: usize,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let mut verdicts = Self::new(model.vocab());
        for start in (0..pictures.len()).step_by(batch.max(1)) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let some = start..pictures.len().min(start + batch.max(1));
            verdicts.show(pictures, preprocess, some, |pixels, count| {
                Ok(model.classify(pixels, count)?)
            })?;
        }
        Ok(Some(verdicts))
    }

    /// Takes in what `classify` says of some pictures: the logits of inputs, which it gets with their number. A picture that
    /// cannot be read is noted as skipped, and never replaced.
    ///
    /// # Errors
    /// The errors of `classify`.
    pub fn show(
        &mut self,
        pictures: &Pictures,
        preprocess: &Preprocess,
        some: Range<usize>,
        classify: impl FnOnce(&[f32], usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let inputs = Inputs::of(pictures, preprocess, some);
        self.skipped.extend(inputs.skipped);
        if inputs.there.is_empty() {
            return Ok(());
        }
        let logits = classify(&inputs.pixels, inputs.there.len())?;
        for (row, index) in logits.chunks_exact(self.classes).zip(inputs.there) {
            self.add(index, pictures.label(index), row);
        }
        Ok(())
    }

    /// How many pictures there are, and of how many of them something was said.
    pub fn counts(&self) -> String {
        let (seen, skipped) = (self.all.len(), self.skipped.len());
        let found = seen + skipped;
        format!("{seen} evaluated + {skipped} skipped = {found} found")
    }

    /// Takes in picture number `index` of class `label`, with the logits that a model gave it.
    ///
    /// # Panics
    /// If the class has no logit.
    pub fn add(&mut self, index: usize, label: u32, logits: &[f32]) {
        self.tally.add(label, logits);
        self.all.push(Verdict {
            index,
            label,
            top: likeliest(logits, KEPT),
        });
        if self.logits.len() + logits.len() <= MAX_LOGITS {
            self.logits.extend_from_slice(logits);
            self.labels.push(label);
        }
    }

    /// The divisor of the logits that gives these pictures the least loss (Guo et al., 2017), and the expected calibration
    /// error with it; `None` without pictures or numbers.
    pub fn temperature(&self) -> Option<[f64; 2]> {
        /// `log₂` of the least and of the largest divisor.
        const RANGE: [f64; 2] = [-4.0, 4.0];
        const STEPS: usize = 40;
        let loss = |log: f64| self.loss_at(log.exp2());
        if self.labels.is_empty() || !loss(0.0).is_finite() {
            return None;
        }
        // The loss is convex in the inverse of the divisor, so it has one minimum: golden sections close in on it.
        let ratio = 0.5 * (5f64.sqrt() - 1.0);
        let [mut low, mut high] = RANGE;
        let mut inner = [high - ratio * (high - low), low + ratio * (high - low)];
        let mut losses = inner.map(loss);
        for _ in 0..STEPS {
            if losses[0] < losses[1] {
                (high, inner[1], losses[1]) = (inner[1], inner[0], losses[0]);
                inner[0] = high - ratio * (high - low);
                losses[0] = loss(inner[0]);
            } else {
                (low, inner[0], losses[0]) = (inner[0], inner[1], losses[1]);
                inner[1] = low + ratio * (high - low);
                losses[1] = loss(inner[1]);
            }
        }
        let temperature = (0.5 * (low + high)).exp2();
        let mut tally = Tally::new(self.classes);
        for (label, row) in self.rows() {
            let scaled: Vec<f32> = row
                .iter()
                .map(|&logit| (f64::from(logit) / temperature) as f32)
                .collect();
            tally.add(label, &scaled);
        }
        Some([temperature, tally.calibration_error()])
    }

    fn rows(&self) -> impl Iterator<Item = (u32, &[f32])> {
        let labels = self.labels.iter().copied();
        labels.zip(self.logits.chunks_exact(self.classes))
    }

    /// Mean loss with the logits divided by `temperature`.
    fn loss_at(&self, temperature: f64) -> f64 {
        let mut scaled = vec![0.0; self.classes];
        let losses = self.rows().map(|(label, row)| {
            for (scaled, &logit) in scaled.iter_mut().zip(row) {
                *scaled = (f64::from(logit) / temperature) as f32;
            }
            log_sum(&scaled) - f64::from(scaled[label as usize])
        });
        losses.sum::<f64>() / self.labels.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Verdicts;

    /// Three of four pictures are right whatever the logit says: with two classes, the best probability is 3/4, which a
    /// logit of 6 against 0 has when it is divided by 6 / ln 3.
    #[test]
    fn the_temperature_is_that_of_the_closed_form() {
        let mut verdicts = Verdicts::new(2);
        for (index, label) in [0, 0, 0, 1].into_iter().enumerate() {
            verdicts.add(index, label, &[6.0, 0.0]);
        }
        let [temperature, error] = verdicts.temperature().unwrap();
        assert!(
            (temperature - 6.0 / 3f64.ln()).abs() < 1e-4,
            "{temperature}"
        );
        assert!(error < 1e-4, "{error}");
        assert!((verdicts.tally.calibration_error() - 0.2475).abs() < 1e-3);
    }

    #[test]
    fn nothing_is_fitted_without_numbers() {
        assert!(Verdicts::new(2).temperature().is_none());
        let mut verdicts = Verdicts::new(2);
        verdicts.add(0, 0, &[f32::NAN, 0.0]);
        assert!(verdicts.temperature().is_none());
    }
}
