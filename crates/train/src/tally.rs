//! Measures of classification: accuracies, the confusion matrix, and the calibration of probabilities.

use crate::evaluate::{Accuracy, Evaluation};
use serde::Serialize;
use std::collections::BTreeMap;

/// Intervals of confidence over which the calibration error is measured, as in Guo et al. (2017).
const BINS: usize = 15;

/// The classes of the highest logits, with their probabilities, the likeliest first. Of equal logits, the lower class
/// comes first.
///
/// ```
/// # use tokenformer_train::tally::likeliest;
/// let found = likeliest(&[0.0, 2.0, 2.0], 2);
/// assert_eq!(found.iter().map(|(class, _)| *class).collect::<Vec<_>>(), [1, 2]);
/// assert!((found[0].1 - 0.468).abs() < 1e-3);
/// ```
pub fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f64)> {
    let total = log_sum(logits);
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |class: &u32| logits[*class as usize];
    order.sort_by(|a, b| logit(b).total_cmp(&logit(a)).then(a.cmp(b)));
    order.truncate(count);
    let probability = |class: u32| (f64::from(logits[class as usize]) - total).exp();
    order
        .into_iter()
        .map(|class| (class, probability(class)))
        .collect()
}

/// `log Σ exp`, in double precision.
pub(crate) fn log_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let most = f64::from(most);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    most + sum.ln()
}

/// Pictures of known classes and what was said of them.
#[derive(Clone, Debug)]
pub struct Tally {
    classes: usize,
    images: u64,
    loss: f64,
    top1: u64,
    top5: u64,
    /// How often a class was taken for another, or for itself, by both; pairs that did not occur are left out.
    confusions: BTreeMap<(u32, u32), u64>,
    bins: [Bin; BINS],
}

/// Pictures of like confidence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bin {
    /// How many.
    pub images: u64,
    /// Those that were named rightly.
    pub right: u64,
    /// Sum of the probabilities of the predicted classes.
    pub confidence: f64,
}

/// Precision and recall of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// Pictures of the class.
    pub images: u64,
    /// Pictures that were predicted to be of this class.
    pub told: u64,
    /// Share of those that are; 0 if there are none.
    pub precision: f64,
    /// Recall: share of its pictures that were predicted as it; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of both; 0 if they are.
    pub f1: f64,
}

impl Tally {
    /// No pictures yet.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            images: 0,
            loss: 0.0,
            top1: 0,
            top5: 0,
            confusions: BTreeMap::new(),
            bins: [Bin::default(); BINS],
        }
    }

    /// Takes in a picture of class `label` with the logits that a model gave it.
    ///
    /// # Panics
    /// If the class has no logit.
    pub fn add(&mut self, label: u32, logits: &[f32]) {
        let own = logits[label as usize];
        let higher = |(class, &logit): (usize, &f32)| {
            logit > own || (logit == own && class < label as usize)
        };
        let rank = logits
            .iter()
            .enumerate()
            .filter(|&pair| higher(pair))
            .count();
        let (told, confidence) = likeliest(logits, 1)[0];
        self.images += 1;
        self.loss += log_sum(logits) - f64::from(own);
        // Without numbers nothing is right.
        self.top1 += u64::from(rank == 0 && confidence.is_finite());
        self.top5 += u64::from(rank < 5 && confidence.is_finite());
        *self.confusions.entry((label, told)).or_default() += 1;
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.bins[bin];
        bin.images += 1;
        bin.right += u64::from(told == label);
        bin.confidence += confidence;
    }

    /// Pictures so far.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Mean loss and accuracies.
    pub fn evaluation(&self) -> Evaluation {
        let share = |count: u64| count as f64 / self.images as f64;
        Evaluation {
            loss: self.loss / self.images as f64,
            accuracy: Some(Accuracy {
                top1: share(self.top1),
                top5: share(self.top5),
            }),
            tokens: self.images,
            bytes: None,
            bits_per_byte: None,
        }
    }

    /// Expected calibration error: the difference between the confidence in predictions and the share that is right, as a mean
    /// over 15 equal intervals of confidence, each by its share of the pictures.
    pub fn calibration_error(&self) -> f64 {
        let gaps = self
            .bins
            .iter()
            .map(|bin| (bin.right as f64 - bin.confidence).abs());
        gaps.sum::<f64>() / self.images as f64
    }

    /// The 15 intervals of confidence, from the least.
    pub fn reliability(&self) -> impl Iterator<Item = Bin> {
        self.bins.into_iter()
    }

    /// How often a class was taken for another, or for itself: the pairs of both that occurred, in order.
    pub fn confusions(&self) -> impl Iterator<Item = ((u32, u32), u64)> {
        self.confusions.iter().map(|(pair, count)| (*pair, *count))
    }

    /// Precision and recall of each class.
    pub fn per_class(&self) -> Vec<ClassScore> {
        let [mut images, mut told, mut right] = [(); 3].map(|()| vec![0u64; self.classes]);
        for ((label, said), count) in self.confusions() {
            images[label as usize] += count;
            told[said as usize] += count;
            if label == said {
                right[label as usize] += count;
            }
        }
        let share = |part: u64, whole: u64| match whole {
            0 => 0.0,
            _ => part as f64 / whole as f64,
        };
        (0..self.classes)
            .map(|class| ClassScore {
                images: images[class],
                told: told[class],
                precision: share(right[class], told[class]),
                recall: share(right[class], images[class]),
                f1: share(2 * right[class], images[class] + told[class]),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes right once each, one wrong, by hand.
    #[test]
    fn scores_are_those_of_the_definitions() {
        let mut tally = Tally::new(3);
        let ln = |p: f64| p.ln() as f32;
        // Confidence 0.8 and right, 0.6 and wrong, 0.5 and right.
        tally.add(0, &[ln(0.8), ln(0.1), ln(0.1)]);
        tally.add(1, &[ln(0.6), ln(0.3), ln(0.1)]);
        tally.add(2, &[ln(0.3), ln(0.2), ln(0.5)]);
        let found = tally.evaluation();
        let accuracy = found.accuracy.unwrap();
        assert_eq!(
            (accuracy.top1, accuracy.top5, found.tokens),
            (2.0 / 3.0, 1.0, 3)
        );
        let loss = -(0.8f64.ln() + 0.3f64.ln() + 0.5f64.ln()) / 3.0;
        assert!((found.loss - loss).abs() < 1e-6);
        let error = (0.2 + 0.6 + 0.5) / 3.0;
        assert!((tally.calibration_error() - error).abs() < 1e-6);
        let per_class = tally.per_class();
        let of = |c: &ClassScore| (c.images, c.told, c.precision, c.recall, c.f1);
        assert_eq!(of(&per_class[0]), (1, 2, 0.5, 1.0, 2.0 / 3.0));
        assert_eq!(of(&per_class[1]), (1, 0, 0.0, 0.0, 0.0));
        assert_eq!(of(&per_class[2]), (1, 1, 1.0, 1.0, 1.0));
        let confusions: Vec<_> = tally.confusions().collect();
        assert_eq!(confusions, [((0, 0), 1), ((1, 0), 1), ((2, 2), 1)]);
    }

    #[test]
    fn equal_logits_count_for_the_first_class_and_no_numbers_for_none() {
        let mut tally = Tally::new(7);
        tally.add(0, &[0.0; 7]);
        tally.add(4, &[0.0; 7]);
        tally.add(5, &[0.0; 7]);
        tally.add(0, &[f32::NAN; 7]);
        let found = tally.evaluation();
        let accuracy = found.accuracy.unwrap();
        assert_eq!((accuracy.top1, accuracy.top5), (0.25, 0.5));
        assert!(found.loss.is_nan());
    }
}
