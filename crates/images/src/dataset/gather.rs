//! Statistics that are collected while pictures are read: sizes, mean and deviation, duplicates.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::summary::{Duplicates, SplitSummary};
use crate::picture::Picture;
use crate::split::Split;

/// Sums over the pixels of pictures, computed exactly in integers, so that their order does not matter.
pub(super) struct Moments {
    sums: Vec<u64>,
    squares: Vec<u64>,
    pixels: u64,
}

impl Moments {
    pub(super) fn new(channels: usize) -> Self {
        Self {
            sums: vec![0; channels],
            squares: vec![0; channels],
            pixels: 0,
        }
    }

    pub(super) fn of(picture: &Picture) -> Self {
        let channels = picture.channels();
        let mut moments = Self::new(channels);
        moments.pixels = (picture.width() * picture.height()) as u64;
        for channel in 0..channels {
            for &value in picture.pixels()[channel..].iter().step_by(channels) {
                let value = u64::from(value);
                moments.sums[channel] += value;
                moments.squares[channel] += value * value;
            }
        }
        moments
    }

    /// Adds those of other pictures with as many channels.
    pub(super) fn add(&mut self, other: &Self) {
        self.pixels += other.pixels;
        let sums = self.sums.iter_mut().zip(&other.sums);
        let squares = self.squares.iter_mut().zip(&other.squares);
        sums.chain(squares).for_each(|(sum, more)| *sum += more);
    }

    /// Mean and deviation of each channel on the scale 0 to 1.
    pub(super) fn finish(&self) -> (Vec<f64>, Vec<f64>) {
        let count = self.pixels.max(1) as f64;
        let means = self.sums.iter().map(|&sum| sum as f64 / count);
        let squares = self.squares.iter().map(|&sum| sum as f64 / count);
        let stds = means.clone().zip(squares).map(|(mean, square)| {
            // If all pictures have one colour, the deviation is 0 and cannot be a divisor.
            let variance = (square - mean * mean).max(0.0);
            if variance > 0.0 {
                variance.sqrt() / 255.0
            } else {
                1.0
            }
        });
        (
            means.clone().map(|mean| mean / 255.0).collect(),
            stds.collect(),
        )
    }
}

/// Counts of a split so far.
pub(super) struct Tally {
    summary: SplitSummary,
}

impl Tally {
    pub(super) fn new(split: Split, classes: usize) -> Self {
        Self {
            summary: SplitSummary {
                split,
                images: 0,
                per_class: vec![0; classes],
                pixel_bytes: 0,
                smallest: [usize::MAX; 2],
                largest: [0; 2],
            },
        }
    }

    /// Counts a picture with this width and height and as many bytes of pixels.
    pub(super) fn add(&mut self, sides: [usize; 2], pixel_bytes: u64, label: u32) {
        let Self { summary } = self;
        summary.images += 1;
        summary.per_class[label as usize] += 1;
        summary.pixel_bytes += pixel_bytes;
        let bounds = summary.smallest.iter_mut().zip(&mut summary.largest);
        for ((smallest, largest), side) in bounds.zip(sides) {
            *smallest = side.min(*smallest);
            *largest = side.max(*largest);
        }
    }

    pub(super) fn finish(self) -> SplitSummary {
        self.summary
    }
}

/// Number of duplicates that are listed as examples.
const EXAMPLES: usize = 100;

/// Finds equal pictures by their hash.
#[derive(Default)]
pub(super) struct Twins {
    first: HashMap<[u8; 32], First>,
    duplicates: Duplicates,
}

struct First {
    split: Split,
    label: u32,
    name: String,
}

impl Twins {
    pub(super) fn add(&mut self, content: [u8; 32], split: Split, label: u32, name: &str) {
        let first = match self.first.entry(content) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                place.insert(First {
                    split,
                    label,
                    name: name.to_owned(),
                });
                return;
            }
        };
        if first.label != label {
            self.duplicates.other_class += 1;
        }
        if first.split == split {
            self.duplicates.within += 1;
            return;
        }
        self.duplicates.across += 1;
        if self.duplicates.across_examples.len() < EXAMPLES {
            let pair = [name.to_owned(), first.name.clone()];
            self.duplicates.across_examples.push(pair);
        }
    }

    pub(super) fn finish(self) -> Duplicates {
        self.duplicates
    }
}
