//! What was said of each picture, and how far it can be trusted.

use super::Inputs;
use crate::error::Result;
use crate::tally::{Tally, likeliest};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::Model;
use tokenformer_images::Preprocess;
use tokenformer_images::dataset::Pictures;
use tokenformer_report::pictures::Temperature;

/// Classes that are kept for each picture.
const KEPT: usize = 5;
/// Logits that are kept to fit a temperature, at most; of larger evaluations every second picture counts, every fourth, and so on.
const MAX_LOGITS: usize = 1 << 24;
/// The least and the largest temperature that is looked for.
const TEMPERATURES: [f64; 2] = [1.0 / 16.0, 16.0];

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
    /// Logits that are kept, at most.
    most: usize,
    /// One of so many pictures is kept with its logits, from the first on.
    every: usize,
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
            most: MAX_LOGITS,
            every: 1,
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
        if self.all.len().is_multiple_of(self.every) {
            self.keep(label, logits);
        }
        self.all.push(Verdict {
            index,
            label,
            top: likeliest(logits, KEPT),
        });
    }

    /// Keeps the logits of a picture; if they become too many, only those of every second of the pictures so far, so that they are
    /// spread evenly. Sets are often sorted by class.
    fn keep(&mut self, label: u32, logits: &[f32]) {
        self.logits.extend_from_slice(logits);
        self.labels.push(label);
        if self.logits.len() <= self.most {
            return;
        }
        self.every *= 2;
        let rows = self.logits.chunks_exact(self.classes);
        self.logits = rows.step_by(2).flatten().copied().collect();
        self.labels = self.labels.iter().copied().step_by(2).collect();
    }

    /// The divisor of the logits that gives these pictures the least loss (Guo et al., 2017). `None` if none does, because the loss
    /// falls as far as one looks: as where all pictures are recognised, or nothing is. So it is without pictures or numbers.
    pub fn temperature(&self) -> Option<Temperature> {
        const STEPS: usize = 40;
        // The loss is convex in the inverse of the divisor: there is a least one where its slope changes its sign.
        let [mut high, mut low] = TEMPERATURES.map(|temperature| -temperature.log2());
        let slope = |log: f64| self.slope_at(log.exp2());
        if !(slope(low) < 0.0 && slope(high) > 0.0) {
            return None;
        }
        for _ in 0..STEPS {
            let middle = 0.5 * (low + high);
            match slope(middle) < 0.0 {
                true => low = middle,
                false => high = middle,
            }
        }
        let divisor = (-0.5 * (low + high)).exp2();
        Some(Temperature {
            divisor,
            pictures: self.labels.len(),
            errors: [1.0, divisor].map(|divisor| self.calibration_error_at(divisor)),
        })
    }

    fn rows(&self) -> impl Iterator<Item = (u32, &[f32])> {
        let labels = self.labels.iter().copied();
        labels.zip(self.logits.chunks_exact(self.classes))
    }

    /// Slope of the summed loss over the factor of the logits.
    fn slope_at(&self, factor: f64) -> f64 {
        let slopes = self.rows().map(|(label, row)| {
            let most = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let own = f64::from(row[label as usize]);
            let (mut weights, mut sum) = (0.0, 0.0);
            for &logit in row {
                let weight = (factor * (f64::from(logit) - most)).exp();
                weights += weight;
                sum += weight * (f64::from(logit) - own);
            }
            sum / weights
        });
        slopes.sum()
    }

    /// The expected calibration error of the kept pictures with their logits divided by `divisor`.
    fn calibration_error_at(&self, divisor: f64) -> f64 {
        let mut tally = Tally::new(self.classes);
        for (label, row) in self.rows() {
            let scaled = row.iter().map(|&logit| (f64::from(logit) / divisor) as f32);
            tally.add(label, &scaled.collect::<Vec<f32>>());
        }
        tally.calibration_error()
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
        let fitted = verdicts.temperature().unwrap();
        let expected = 6.0 / 3f64.ln();
        assert!((fitted.divisor - expected).abs() < 1e-9, "{fitted:?}");
        let [before, after] = fitted.errors;
        assert_eq!(before, verdicts.tally.calibration_error());
        assert!((before - 0.2475).abs() < 1e-3 && after < 1e-6, "{fitted:?}");
        assert_eq!(fitted.pictures, 4);
    }

    #[test]
    fn nothing_is_fitted_without_numbers() {
        assert!(Verdicts::new(2).temperature().is_none());
        let mut verdicts = Verdicts::new(2);
        verdicts.add(0, 0, &[f32::NAN, 0.0]);
        assert!(verdicts.temperature().is_none());
    }

    /// The loss falls with the divisor if all are right, with its inverse if all are wrong, and with neither if nothing is said.
    #[test]
    fn an_end_of_the_range_is_no_temperature() {
        for (label, logit) in [(0, 3.0), (0, 80.0), (1, 3.0), (1, 80.0), (0, 0.0)] {
            let mut verdicts = Verdicts::new(2);
            (0..9).for_each(|index| verdicts.add(index, label, &[logit, 0.0]));
            assert_eq!(verdicts.temperature(), None, "{label} {logit}");
        }
        // All but one of a hundred are right, and little is said for it: the optimum lies below 1/16.
        let mut verdicts = Verdicts::new(2);
        (0..100).for_each(|index| verdicts.add(index, u32::from(index == 0), &[0.1, 0.0]));
        assert_eq!(verdicts.temperature(), None);
    }

    /// The right pictures come first: their logits alone would have no temperature.
    #[test]
    fn kept_logits_are_spread_over_the_pictures() {
        let fitted = |most: usize| {
            let mut verdicts = Verdicts {
                most,
                ..Verdicts::new(2)
            };
            (0..4096).for_each(|index| verdicts.add(index, u32::from(index >= 3072), &[6.0, 0.0]));
            assert!(verdicts.logits.len() <= most);
            verdicts.temperature().unwrap()
        };
        let (all, some) = (fitted(8192), fitted(100));
        assert_eq!((all.pictures, some.pictures), (4096, 32));
        let pairs = [all.divisor, all.errors[0], all.errors[1]].into_iter();
        for (all, some) in pairs.zip([some.divisor, some.errors[0], some.errors[1]]) {
            assert!((all - some).abs() < 1e-9, "{all} {some}");
        }
    }
}
