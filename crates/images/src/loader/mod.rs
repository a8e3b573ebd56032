//! Loads batches for a position.
//!
//! A run sees the training pictures in one endless order: epoch after epoch, each shuffled. The sample at a position
//! depends only on dataset, options, seed and position. Any free worker may make it, and samples are returned in order.
//! So the position is the only state, and the batch size may change during a run.

mod order;
mod prefetch;

use std::sync::Arc;
use std::time::Duration;

use crate::augment::{Augment, Mixing};
use crate::dataset::{ImageSet, Pictures};
use crate::error::{Error, Result};
use crate::preprocess::Preprocess;
use crate::random::{Draws, Purpose};
use crate::split::Split;
use order::Order;
use prefetch::Prefetch;

/// Options of a loader.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Size and normalisation of the inputs.
    pub preprocess: Preprocess,
    /// Random changes; [`Loader::evaluation`] makes none.
    pub augment: Augment,
    /// Seed of the order and the random changes.
    pub seed: u64,
    /// Number of prefetching threads; with 0 each sample is made when it is requested. Samples do not depend on it.
    pub workers: usize,
    /// Largest number of prefetched samples, which determines the memory.
    pub ahead: usize,
}

impl LoaderOptions {
    /// One worker, prefetching of up to 256 MiB, and seed 0.
    pub fn new(preprocess: Preprocess, augment: Augment) -> Self {
        let input_bytes = 4 * preprocess.len().max(1);
        Self {
            ahead: ((256 << 20) / input_bytes).clamp(4, 1024),
            preprocess,
            augment,
            seed: 0,
            workers: 1,
        }
    }
}

/// Labels of a sample: `weight` of class `first` and the rest of class `second`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The class of the sample's own picture.
    pub first: u32,
    /// The class of the picture mixed into it; the same class if none is.
    pub second: u32,
    /// Weight of the first, 0 to 1.
    pub weight: f32,
}

/// A batch of consecutive samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Inputs, row-major `[samples, channels, height, width]`.
    pub pixels: Vec<f32>,
    /// The label of each sample.
    pub targets: Vec<Target>,
    /// The index of each sample's picture in the split.
    pub images: Vec<usize>,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Targets as probabilities, row-major `[samples, classes]`: each label gets `1 - smoothing` of its weight, and
    /// `smoothing` is spread over all classes.
    pub fn soft_targets(&self, classes: usize, smoothing: f64) -> Vec<f32> {
        let off = (smoothing / classes as f64) as f32;
        let on = (1.0 - smoothing) as f32;
        let mut soft = vec![off; self.len() * classes];
        for (row, target) in soft.chunks_exact_mut(classes).zip(&self.targets) {
            row[target.first as usize] += on * target.weight;
            row[target.second as usize] += on * (1.0 - target.weight);
        }
        soft
    }
}

/// An input before it is mixed.
struct Sample {
    image: usize,
    label: u32,
    pixels: Vec<f32>,
}

/// Makes samples at given positions.
struct Maker {
    set: Arc<ImageSet>,
    split: Split,
    options: LoaderOptions,
    takes: Takes,
}

/// Which picture is at a position.
enum Takes {
    /// For training: an endless order, with random changes.
    Endless(Order),
    /// For evaluation: `count` pictures at equal distances in the order of the split, which is by class, without random changes.
    Spread { count: u64, of: u64 },
}

impl Maker {
    fn pictures(&self) -> Result<&Pictures> {
        self.set.split(self.split).ok_or_else(|| Error::Option {
            option: "split",
            expected: "a split of the dataset",
            got: self.split.name().into(),
        })
    }

    fn sample(&self, position: u64) -> Result<Sample> {
        let pictures = self.pictures()?;
        let preprocess = &self.options.preprocess;
        let (image, pixels) = match &self.takes {
            Takes::Spread { count, of } => {
                let image = (u128::from(position) * u128::from(*of) / u128::from(*count)) as usize;
                (image, preprocess.input(pictures.picture(image)?))
            }
            Takes::Endless(order) => {
                let image = order.at(position);
                let mut draws = Draws::new(self.options.seed, Purpose::Augment, position);
                let mut pixels = vec![0.0; preprocess.len()];
                let picture = pictures.picture(image)?;
                self.options
                    .augment
                    .apply(picture, preprocess, &mut draws, &mut pixels);
                (image, pixels)
            }
        };
        Ok(Sample {
            image,
            label: pictures.label(image),
            pixels,
        })
    }

    /// How the pair of a position is mixed.
    fn mixing(&self, position: u64) -> Mixing {
        match (&self.takes, &self.options.augment.mix) {
            (Takes::Endless(_), Some(mix)) => {
                let mut draws = Draws::new(self.options.seed, Purpose::Mix, position / 2);
                mix.draw(self.size(), &mut draws)
            }
            _ => Mixing::None,
        }
    }

    fn size(&self) -> (usize, usize) {
        (
            self.options.preprocess.height,
            self.options.preprocess.width,
        )
    }
}

/// Returns batches in order, prefetched by workers.
pub struct Loader {
    maker: Arc<Maker>,
    ahead: Prefetch<Result<Sample>>,
    position: u64,
}

impl Loader {
    /// A loader for training in the endless order, starting at `position`, the number of samples returned so far.
    ///
    /// # Errors
    /// An option out of its range.
    pub fn training(set: Arc<ImageSet>, options: LoaderOptions, position: u64) -> Result<Self> {
        options.augment.check()?;
        let count = set.split(Split::Train).map_or(1, Pictures::len);
        let takes = Takes::Endless(Order::new(options.seed, count));
        Self::new(set, Split::Train, options, takes, position, None)
    }

    /// A loader for evaluation: every picture of a split once, in order and without random changes.
    ///
    /// # Errors
    /// The dataset has no such split, or an option is out of its range.
    pub fn evaluation(set: Arc<ImageSet>, split: Split, options: LoaderOptions) -> Result<Self> {
        Self::evaluation_of_part(set, split, options, usize::MAX)
    }

    /// As [`Loader::evaluation`], of `most` pictures at equal distances, so that all classes have their part: a split is in the
    /// order of its classes.
    ///
    /// # Errors
    /// As [`Loader::evaluation`].
    pub fn evaluation_of_part(
        set: Arc<ImageSet>,
        split: Split,
        options: LoaderOptions,
        most: usize,
    ) -> Result<Self> {
        let of = set.split(split).map_or(0, Pictures::len);
        let [count, of] = [of.min(most), of].map(|n| n as u64);
        let takes = Takes::Spread { count, of };
        Self::new(set, split, options, takes, 0, Some(count))
    }

    fn new(
        set: Arc<ImageSet>,
        split: Split,
        options: LoaderOptions,
        takes: Takes,
        position: u64,
        end: Option<u64>,
    ) -> Result<Self> {
        options.preprocess.check()?;
        let (workers, ahead) = (options.workers, options.ahead);
        let maker = Arc::new(Maker {
            set,
            split,
            options,
            takes,
        });
        maker.pictures()?;
        let make = Arc::clone(&maker);
        let ahead = Prefetch::new(move |p| make.sample(p), workers, ahead, position, end);
        Ok(Self {
            maker,
            ahead,
            position,
        })
    }

    /// Number of samples returned so far, which a run must save to be resumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Moves to another position, from which the workers restart.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
        self.ahead.seek(position);
    }

    /// Time spent so far waiting for samples, or making them if there are no workers.
    pub fn waited(&self) -> Duration {
        self.ahead.waited()
    }

    /// The next `count` samples. In evaluation the last batch may be smaller, and an empty batch follows at the end.
    ///
    /// # Errors
    /// A picture cannot be read. The position is then unchanged.
    pub fn next(&mut self, count: usize) -> Result<Batch> {
        let start = self.position;
        let mut samples = Vec::with_capacity(count);
        while samples.len() < count {
            let Some(sample) = self.ahead.take() else {
                break;
            };
            match sample {
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    self.seek(start);
                    return Err(error);
                }
            }
        }
        let mixed = self.mixed(start, samples);
        match &mixed {
            Ok(batch) => self.position = start + batch.len() as u64,
            Err(_) => self.seek(start),
        }
        mixed
    }

    /// Mixes the samples starting at `start`, in pairs of positions 2k and 2k+1.
    fn mixed(&self, start: u64, samples: Vec<Sample>) -> Result<Batch> {
        let size = self.maker.size();
        let mut batch = Batch {
            pixels: Vec::with_capacity(samples.len() * self.maker.options.preprocess.len()),
            targets: Vec::with_capacity(samples.len()),
            images: samples.iter().map(|sample| sample.image).collect(),
        };
        for (position, own) in (start..).zip(&samples) {
            let mixing = self.maker.mixing(position);
            let from = batch.pixels.len();
            batch.pixels.extend_from_slice(&own.pixels);
            let mut target = Target {
                first: own.label,
                second: own.label,
                weight: 1.0,
            };
            if mixing != Mixing::None {
                // The other sample of a pair may be outside the batch; then it is made here.
                let partner = position ^ 1;
                let inside = partner
                    .checked_sub(start)
                    .and_then(|at| samples.get(at as usize));
                let made;
                let other = match inside {
                    Some(sample) => sample,
                    None => {
                        made = self.maker.sample(partner)?;
                        &made
                    }
                };
                mixing.apply(&mut batch.pixels[from..], &other.pixels, size);
                target.second = other.label;
                target.weight = mixing.weight();
            }
            batch.targets.push(target);
        }
        Ok(batch)
    }
}
