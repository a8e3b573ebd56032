//! Resampling, equal to Pillow's `Image.resize` to the bit.
//!
//! Pillow's algorithm (`Resample.c`): the filter is widened by the factor of reduction, so that every source pixel
//! contributes (antialiasing). The weights of an output pixel are normalised in f64 and rounded to 22 bits of fraction.
//! Rows are resampled first and then columns, with 8 bits between the passes. Sums are integers, so every machine gives
//! the same result.
//!
//! Pillow 13 resamples columns first if the height loses more than twice as many pixels as the width. Because of the
//! rounding between the passes, tall pictures then differ from those of older versions by a level in some pixels.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::picture::Picture;
use crate::transpose::{Block, SIDE, transpose};
#[cfg(target_arch = "x86_64")]
use crate::weighted::Avx2;
use crate::weighted::{self, Code, FRACTION_BITS, LANES};

/// How a pixel of the new size is computed from those of the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The mean of the covered pixels.
    Box,
    /// A triangle filter.
    Bilinear,
    /// A cubic filter with a = -0.5, which recipes of vision Transformers use.
    #[default]
    Bicubic,
}

impl Filter {
    /// `box`, `bilinear` or `bicubic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }

    /// Distance from the centre at which the weight becomes 0, in source pixels without reduction.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            },
        }
    }
}

/// Resizes the picture to `width` x `height`, both at least 1.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    resize_part(picture, (width, height), 0..width, 0..height, filter)
}

/// Short sides that pictures may be reduced to.
pub(crate) const SIDES: RangeInclusive<usize> = 1..=65_535;

/// The picture with at most `side` pixels on its shorter side, one of [`SIDES`].
pub(crate) fn reduce(picture: Picture, side: usize) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    if width.min(height) <= side {
        return picture;
    }
    let (width, height) = match width <= height {
        true => (side, side * height / width),
        false => (side * width / height, side),
    };
    resize(&picture, width, height, Filter::Bicubic)
}

/// The columns and rows in these ranges of [`resize`] to `size` (width, height), without computing the others.
///
/// The ranges must be inside the new size and not empty.
pub(crate) fn resize_part(
    picture: &Picture,
    size: (usize, usize),
    columns: Range<usize>,
    rows: Range<usize>,
    filter: Filter,
) -> Picture {
    let (old_width, old_height, channels) = picture.shape();
    let (width, height) = (columns.len(), rows.len());
    let across = Taps::new(old_width, size.0, columns, filter);
    let down = Taps::new(old_height, size.1, rows, filter);
    let (x, y) = (&across.sources, &down.sources);
    let is_whole = (x.len(), y.len()) == (old_width, old_height);
    let source = match is_whole {
        true => Cow::Borrowed(picture),
        false => Cow::Owned(picture.crop(x.start, y.start, x.len(), y.len())),
    };
    let lost_height = old_height as i64 - size.1 as i64;
    let lost_width = old_width as i64 - size.0 as i64;
    let passes = Passes {
        across: &across,
        down: &down,
        channels,
        is_down_first: lost_height > 0 && lost_height > 2 * lost_width,
    };
    let pixels = passes.run(source.pixels(), Code::best());
    Picture::from_parts(width, height, channels, pixels)
}

/// The source pixels of each output pixel, and their weights.
struct Taps {
    /// The source pixels that have a weight.
    sources: Range<usize>,
    /// First source pixel, counted from the start of `sources`, and number of weights, by output pixel.
    ranges: Vec<(usize, usize)>,
    /// The weights of all output pixels, one after the other.
    weights: Vec<i32>,
}

impl Taps {
    /// The taps of the output pixels in `part` of `new`. If the size does not change, the weights are 1, which copies
    /// the pixels as Pillow does by skipping the pass.
    fn new(old: usize, new: usize, part: Range<usize>, filter: Filter) -> Self {
        if old == new {
            return Self {
                weights: vec![1 << FRACTION_BITS; part.len()],
                ranges: (0..part.len()).map(|x| (x, 1)).collect(),
                sources: part,
            };
        }
        let scale = old as f64 / new as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut taps = Self {
            sources: 0..0,
            ranges: Vec::with_capacity(part.len()),
            weights: Vec::new(),
        };
        let mut exact = Vec::new();
        for out in part {
            let center = (out as f64 + 0.5) * scale;
            // Casts truncate towards 0 as in C; for negative values the first pixel is 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(old);
            exact.clear();
            exact.extend((first..end).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            taps.ranges.push((first, exact.len()));
            taps.weights.extend(exact.iter().map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let scaled = weight * f64::from(1 << FRACTION_BITS);
                (if weight < 0.0 {
                    scaled - 0.5
                } else {
                    scaled + 0.5
                }) as i32
            }));
        }
        // Both ends of the range of sources increase from one output pixel to the next.
        let start = taps.ranges.first().map_or(0, |&(first, _)| first);
        let end = taps
            .ranges
            .last()
            .map_or(0, |&(first, count)| first + count);
        taps.sources = start..end;
        taps.ranges
            .iter_mut()
            .for_each(|(first, _)| *first -= start);
        taps
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.ranges.iter().map(move |&(first, count)| {
            let (weights, behind) = rest.split_at(count);
            rest = behind;
            (first, weights)
        })
    }
}

/// The two passes. They are compiled once for each code, so that its sums become part of their loops.
struct Passes<'a> {
    across: &'a Taps,
    down: &'a Taps,
    channels: usize,
    is_down_first: bool,
}

impl Passes<'_> {
    fn run(&self, pixels: &[u8], code: Code) -> Vec<u8> {
        match code {
            Code::Portable => self.run_by(pixels, Code::Portable),
            // SAFETY: a value of `Avx2` exists, so the processor has it.
            #[cfg(target_arch = "x86_64")]
            Code::Avx2(proof) => unsafe { self.run_avx2(pixels, proof) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn run_avx2(&self, pixels: &[u8], proof: Avx2) -> Vec<u8> {
        self.run_by(pixels, Code::Avx2(proof))
    }

    #[inline(always)]
    fn run_by(&self, pixels: &[u8], code: Code) -> Vec<u8> {
        let Self {
            across,
            down,
            channels,
            ..
        } = *self;
        if self.is_down_first {
            let pixels = resize_columns(pixels, across.sources.len() * channels, down, code);
            resize_rows(&pixels, across.sources.len(), channels, across, code)
        } else {
            let pixels = resize_rows(pixels, across.sources.len(), channels, across, code);
            resize_columns(&pixels, across.ranges.len() * channels, down, code)
        }
    }
}

/// Resamples every row: 16 rows together, so that their pixels of a column lie side by side.
#[inline(always)]
fn resize_rows(
    pixels: &[u8],
    old_width: usize,
    channels: usize,
    taps: &Taps,
    code: Code,
) -> Vec<u8> {
    let (old_row, new_row) = (old_width * channels, taps.ranges.len() * channels);
    let mut out = vec![0; pixels.len() / old_row * new_row];
    // `[channel, column, row]` of a group of rows.
    let mut columns = vec![[0; LANES]; old_row];
    for (rows, out) in pixels
        .chunks(old_row * LANES)
        .zip(out.chunks_mut(new_row * LANES))
    {
        turn_rows(rows, &mut columns, channels);
        // Sums of 16 bytes of the new rows are collected before they are turned back.
        let mut block = [[0; LANES]; SIDE];
        let (mut begin, mut count) = (0, 0);
        for (first, weights) in taps.iter() {
            for columns in columns.chunks_exact(old_width) {
                block[count] = code.sums(columns[first..].as_flattened(), LANES, weights);
                count += 1;
                if count == SIDE {
                    turn_back(&block, count, out, new_row, begin);
                    (begin, count) = (begin + count, 0);
                }
            }
        }
        turn_back(&block, count, out, new_row, begin);
    }
    out
}

/// Writes the first `count` columns of 16 rows into rows of `row` bytes, from `begin` of each on.
#[inline(always)]
fn turn_back(columns: &Block, count: usize, rows: &mut [u8], row: usize, begin: usize) {
    for (row, values) in rows.chunks_exact_mut(row).zip(transpose(columns)) {
        match row[begin..].first_chunk_mut() {
            Some(to) if count == SIDE => *to = values,
            _ => row[begin..begin + count].copy_from_slice(&values[..count]),
        }
    }
}

/// Resamples every column of rows of `row` bytes.
#[inline(always)]
fn resize_columns(rows: &[u8], row: usize, taps: &Taps, code: Code) -> Vec<u8> {
    let mut out = vec![0; taps.ranges.len() * row];
    for (new_row, (first, weights)) in out.chunks_exact_mut(row).zip(taps.iter()) {
        let rows = &rows[first * row..];
        if row < LANES {
            for (at, value) in new_row.iter_mut().enumerate() {
                let column = rows[at..].iter().step_by(row).copied();
                *value = weighted::sum_of(column, weights);
            }
            continue;
        }
        // The last sums overlap those before them.
        for at in (0..row).step_by(LANES).map(|at| at.min(row - LANES)) {
            let sums = code.sums(&rows[at..], row, weights);
            new_row[at..at + LANES].copy_from_slice(&sums);
        }
    }
    out
}

/// Writes up to 16 rows of interleaved channels into `[channel, column, row]`.
#[inline(always)]
fn turn_rows(pixels: &[u8], columns: &mut [[u8; LANES]], channels: usize) {
    let (row, width) = (columns.len(), columns.len() / channels);
    let (mut column, mut channel) = (0, 0);
    for from in (0..row).step_by(SIDE) {
        let count = SIDE.min(row - from);
        let mut block = [[0; SIDE]; SIDE];
        for (to, row) in block.iter_mut().zip(pixels.chunks_exact(row)) {
            match row[from..].first_chunk() {
                Some(values) => *to = *values,
                None => to[..count].copy_from_slice(&row[from..]),
            }
        }
        for values in &transpose(&block)[..count] {
            columns[channel * width + column] = *values;
            channel += 1;
            if channel == channels {
                (column, channel) = (column + 1, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A picture of one colour keeps it, for all sizes and filters.
        #[test]
        fn one_colour_stays(
            old in (1_usize..40, 1_usize..40), new in (1_usize..40, 1_usize..40), value in any::<u8>(),
        ) {
            for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic] {
                let picture = Picture::from_fn((old.0, old.1, 3), |_, _, _| value);
                let resized = resize(&picture, new.0, new.1, filter);
                prop_assert_eq!(resized.shape(), (new.0, new.1, 3));
                prop_assert!(resized.pixels().iter().all(|&v| v == value));
            }
        }
    }

    proptest! {
        /// A resized part equals that part of the whole resized picture.
        #[test]
        fn parts_are_parts_of_the_whole(
            old in (1_usize..30, 1_usize..30), left in 0_usize..9, top in 0_usize..9,
        ) {
            let picture = Picture::from_fn((old.0, old.1, 3), |x, y, c| (x * 31 + y * 57 + c * 101) as u8);
            let whole = resize(&picture, 20, 13, Filter::Bicubic);
            let part = resize_part(&picture, (20, 13), left..left + 8, top..top + 4, Filter::Bicubic);
            prop_assert_eq!(part, whole.crop(left, top, 8, 4));
        }
    }

    proptest! {
        /// Compares the code for this processor with the portable code.
        #[test]
        fn both_codes_give_the_same(
            old in (1_usize..60, 1_usize..60), new in (1_usize..60, 1_usize..60), channels in 0_usize..2,
        ) {
            let channels = [1, 3][channels];
            let picture = Picture::from_fn((old.0, old.1, channels), |x, y, c| (x * 89 + y * 57 + c * 101) as u8);
            let passes = Passes {
                across: &Taps::new(old.0, new.0, 0..new.0, Filter::Bicubic),
                down: &Taps::new(old.1, new.1, 0..new.1, Filter::Bicubic),
                channels,
                is_down_first: false,
            };
            let [best, portable] = [Code::best(), Code::Portable].map(|code| passes.run(picture.pixels(), code));
            prop_assert_eq!(best, portable);
        }
    }

    #[test]
    fn halving_by_the_box_is_the_mean() {
        let picture = Picture::new(4, 2, 1, vec![0, 10, 20, 30, 2, 12, 22, 32]).unwrap();
        assert_eq!(resize(&picture, 2, 1, Filter::Box).pixels(), [6, 26]);
    }
}
