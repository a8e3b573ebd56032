//! A set of coloured fractals that is computed from a seed, so that nothing has to be downloaded.
//!
//! A class is an iterated function system, as in FractalDB (Kataoka et al., 2020, "Pre-training without Natural
//! Images"): 2 to 4 contracting affine maps, applied in random order. A picture of the class uses these maps with every
//! number changed by up to 8 %, and a random colour for each map, background and position, so colours carry no
//! information about the class. Only sums, products, quotients and square roots are computed, so every machine makes
//! the same bytes.

use std::sync::Arc;

use super::{Data, Item, MAX_CLASSES, Part, Source};
use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::random::{Draws, Purpose};
use crate::split::Split;

/// Options of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FractalOptions {
    /// Number of classes, 2 or more; default 20.
    pub classes: usize,
    /// Training pictures of each class, some of which are used for validation; default 500.
    pub per_class: usize,
    /// Test pictures of each class; default 50.
    pub test_per_class: usize,
    /// Width and height in pixels, 8 to 512; default 32.
    pub side: usize,
    /// Seed of all random choices; default 0.
    pub seed: u64,
}

impl Default for FractalOptions {
    fn default() -> Self {
        Self {
            classes: 20,
            per_class: 500,
            test_per_class: 50,
            side: 32,
            seed: 0,
        }
    }
}

/// The set as a source of pictures, each computed when it is read.
///
/// # Errors
/// An option out of its range.
pub fn source(options: &FractalOptions) -> Result<Source> {
    let ranges = [
        ("--classes", options.classes, 2, MAX_CLASSES, "2 to 65535"),
        (
            "--per-class",
            options.per_class,
            1,
            1 << 24,
            "1 to 16777216",
        ),
        (
            "--test-per-class",
            options.test_per_class,
            1,
            1 << 24,
            "1 to 16777216",
        ),
        ("--size", options.side, 8, 512, "8 to 512 pixels"),
    ];
    for (option, value, low, high, expected) in ranges {
        if !(low..=high).contains(&value) {
            return Err(Error::Option {
                option,
                expected,
                got: value.to_string(),
            });
        }
    }
    let systems = (0..options.classes).map(|class| System::of_class(options.seed, class as u64));
    let systems: Arc<Vec<System>> = Arc::new(systems.collect());
    let part = |split: Split, first: usize, per_class: usize| {
        let numbers = (0..options.classes)
            .flat_map(|class| (first..first + per_class).map(move |n| (class, n)));
        let items = numbers.map(|(class, number)| Item {
            label: class as u32,
            name: format!("fractal-{class}-{number}"),
            data: Data::Fractal {
                systems: Arc::clone(&systems),
                seed: options.seed,
                number: number as u64,
                side: options.side,
            },
        });
        Part {
            split,
            items: items.collect(),
        }
    };
    Ok(Source {
        location: format!("fractals of seed {}", options.seed),
        root: None,
        channels: 3,
        classes: (0..options.classes)
            .map(|class| format!("fractal-{class}"))
            .collect(),
        parts: vec![
            part(Split::Train, 0, options.per_class),
            part(Split::Test, options.per_class, options.test_per_class),
        ],
        notes: Vec::new(),
        unreadable: Vec::new(),
    })
}

/// An affine map of (x, y) to (a·x + b·y + e, c·x + d·y + f).
#[derive(Debug, Clone, Copy)]
struct Map {
    linear: [f64; 4],
    shift: [f64; 2],
}

impl Map {
    /// Scales the linear part down so that its stretch is at most `factor`.
    fn limited(mut self, factor: f64) -> Self {
        let stretch = self.stretch();
        if stretch > factor {
            self.linear = self.linear.map(|n| n * (factor / stretch));
        }
        self
    }

    /// The largest singular value of the linear part.
    fn stretch(&self) -> f64 {
        let [a, b, c, d] = self.linear;
        let sum = a * a + b * b + c * c + d * d;
        let difference = a * a + b * b - c * c - d * d;
        let mixed = 2.0 * (a * c + b * d);
        ((sum + (difference * difference + mixed * mixed).sqrt()) / 2.0).sqrt()
    }

    fn area(&self) -> f64 {
        let [a, b, c, d] = self.linear;
        (a * d - b * c).abs()
    }

    fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [a, b, c, d] = self.linear;
        [a * x + b * y + self.shift[0], c * x + d * y + self.shift[1]]
    }
}

/// The maps of a class.
#[derive(Debug)]
pub(crate) struct System {
    maps: Vec<Map>,
}

/// Largest stretch of a map, so that points converge.
const MOST_STRETCH: f64 = 0.9;
/// Number of random systems tried to find one with a suitable covered area.
const TRIES: usize = 1000;
/// Grid on which the covered area of a class is measured, and the accepted share of covered cells.
const GRID: usize = 32;
const COVER: std::ops::Range<f64> = 0.12..0.5;

impl System {
    fn of_class(seed: u64, class: u64) -> Self {
        let mut draws = Draws::new(seed, Purpose::FractalClass, class);
        let mut system = Self::draw(&mut draws);
        for _ in 0..TRIES {
            let points = system.points(&mut draws, 4 * GRID * GRID);
            let mut is_covered = [false; GRID * GRID];
            for (place, _) in placed(&points, GRID as f64) {
                is_covered[place[1] as usize * GRID + place[0] as usize] = true;
            }
            let cover = is_covered.iter().filter(|&&c| c).count() as f64 / (GRID * GRID) as f64;
            if COVER.contains(&cover) {
                break;
            }
            system = Self::draw(&mut draws);
        }
        system
    }

    fn draw(draws: &mut Draws) -> Self {
        let count = 2 + draws.below(3);
        let maps = (0..count).map(|_| {
            let mut numbers = || draws.uniform(-1.0, 1.0);
            let map = Map {
                linear: [numbers(), numbers(), numbers(), numbers()],
                shift: [numbers(), numbers()],
            };
            map.limited(MOST_STRETCH)
        });
        Self {
            maps: maps.collect(),
        }
    }

    fn moved(&self, draws: &mut Draws) -> Self {
        let mut around = |n: f64| n * draws.uniform(0.92, 1.08);
        let maps = self.maps.iter().map(|map| {
            let map = Map {
                linear: map.linear.map(&mut around),
                shift: map.shift.map(&mut around),
            };
            map.limited(MOST_STRETCH)
        });
        Self {
            maps: maps.collect(),
        }
    }

    /// Points of the fractal, each with the map that produced it. The probability of a map is proportional to its area
    /// factor.
    fn points(&self, draws: &mut Draws, count: usize) -> Vec<([f64; 2], usize)> {
        let weights: Vec<f64> = self.maps.iter().map(|map| map.area() + 0.02).collect();
        let total: f64 = weights.iter().sum();
        let mut point = [0.0; 2];
        let mut points = Vec::with_capacity(count);
        // The first points have not converged to the fractal, so they are skipped.
        for step in 0..count + 20 {
            let mut choice = draws.uniform(0.0, total);
            let chosen = weights.iter().position(|weight| {
                choice -= weight;
                choice < 0.0
            });
            let chosen = chosen.unwrap_or(0);
            point = self.maps[chosen].apply(point);
            if step >= 20 {
                points.push((point, chosen));
            }
        }
        points
    }
}

/// Scales points so that they fill 0 to `side` in both directions.
fn placed(points: &[([f64; 2], usize)], side: f64) -> impl Iterator<Item = ([f64; 2], usize)> {
    let bounds = |axis: usize| {
        let values = points.iter().map(|(point, _)| point[axis]);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
    };
    let bounds = [bounds(0), bounds(1)];
    points.iter().map(move |(point, map)| {
        let place = |axis: usize| {
            let (low, high) = bounds[axis];
            let span = (high - low).max(1e-9);
            ((point[axis] - low) / span * side).min(side - 1e-6)
        };
        ([place(0), place(1)], *map)
    })
}

/// Draws picture `number` of a class.
pub(crate) fn draw(system: &System, seed: u64, class: u32, number: u64, side: usize) -> Picture {
    let position = (u64::from(class) << 40) | number;
    let mut draws = Draws::new(seed, Purpose::Fractal, position);
    let moved = system.moved(&mut draws);
    let points = moved.points(&mut draws, 4 * side * side);
    let mut color = |low: f64, high: f64| [0; 3].map(|_| draws.uniform(low, high));
    let background = color(0.0, 90.0);
    let colors: Vec<[f64; 3]> = moved.maps.iter().map(|_| color(110.0, 255.0)).collect();
    // The fractal covers 3/4 to all of the picture's side, at a random position.
    let size = side as f64 * draws.uniform(0.75, 1.0);
    let corner = [0; 2].map(|_| draws.uniform(0.0, side as f64 - size));

    let mut sums = vec![([0.0; 3], 0.0_f64); side * side];
    for (place, map) in placed(&points, size) {
        let [x, y] = [0, 1].map(|axis| ((place[axis] + corner[axis]) as usize).min(side - 1));
        let (sum, count) = &mut sums[y * side + x];
        *count += 1.0;
        for channel in 0..3 {
            sum[channel] += colors[map][channel];
        }
    }
    Picture::from_fn((side, side, 3), |x, y, channel| {
        let (sum, count) = &sums[y * side + x];
        if *count == 0.0 {
            return background[channel] as u8;
        }
        // Four points make a pixel opaque; this is the mean number if a picture is filled.
        let opacity = (count / 4.0).min(1.0).sqrt();
        let color = sum[channel] / count;
        (background[channel] + opacity * (color - background[channel])) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(seed: u64, class: u32, number: u64) -> Picture {
        draw(
            &System::of_class(seed, u64::from(class)),
            seed,
            class,
            number,
            32,
        )
    }

    /// Every machine and version makes these bytes.
    #[test]
    fn the_bytes_of_a_seed_are_fixed() {
        let hash = blake3::hash(picture(1, 2, 3).pixels()).to_hex();
        assert_eq!(&hash[..16], "5fba1c692f52de7a");
    }

    #[test]
    fn pictures_differ_by_seed_class_and_number() {
        let one = picture(1, 2, 3);
        assert_eq!(one, picture(1, 2, 3));
        assert_ne!(one, picture(2, 2, 3));
        assert_ne!(one, picture(1, 3, 3));
        assert_ne!(one, picture(1, 2, 4));
    }

    /// A nearest-mean classifier on covered pixels finds most classes, so the shape distinguishes them.
    #[test]
    fn classes_can_be_told_apart_by_shape() {
        const CLASSES: u32 = 5;
        let shape = |class: u32, number: u64| -> Vec<f64> {
            let picture = picture(5, class, number).to_grey();
            let background = picture.pixels().iter().min().copied().unwrap_or(0);
            picture
                .pixels()
                .iter()
                .map(|&v| f64::from(u8::from(v > background)))
                .collect()
        };
        let mean = |class| {
            let mut mean = vec![0.0; 32 * 32];
            for number in 0..30 {
                let shape = shape(class, number);
                mean.iter_mut().zip(shape).for_each(|(m, s)| *m += s / 30.0);
            }
            mean
        };
        let means: Vec<Vec<f64>> = (0..CLASSES).map(mean).collect();
        let mut right = 0;
        for class in 0..CLASSES {
            for number in 100..120 {
                let shape = shape(class, number);
                let distance = |mean: &Vec<f64>| {
                    mean.iter()
                        .zip(&shape)
                        .map(|(m, s)| (m - s).powi(2))
                        .sum::<f64>()
                };
                let nearest = (0..CLASSES).min_by(|&a, &b| {
                    distance(&means[a as usize]).total_cmp(&distance(&means[b as usize]))
                });
                right += u32::from(nearest == Some(class));
            }
        }
        assert!(right >= 60, "{right} of 100");
    }

    #[test]
    fn options_are_checked() {
        let refused = |change: fn(&mut FractalOptions)| {
            let mut options = FractalOptions::default();
            change(&mut options);
            source(&options).unwrap_err().to_string()
        };
        assert!(refused(|o| o.classes = 1).starts_with("--classes: out of range"));
        assert!(refused(|o| o.side = 7).starts_with("--size: "));
        assert!(refused(|o| o.per_class = 0).starts_with("--per-class: "));
    }
}
