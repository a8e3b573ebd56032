//! The study on pictures: TokenFormer beside a plain ViT, the paper's ablations, and growth beside training from scratch.
//!
//! Every run is a whole recipe from scratch, so the study is a list of runs and not a graph. A run's key is a hash of its
//! recipe and its pictures; what has a result is never run again, and what was stopped goes on from its last checkpoint.
//! Learning rates and checkpoints are chosen by held-out pictures; the test pictures are read once per run, at its end.

mod arms;
mod report;
mod result;
mod runner;

pub use arms::{ARMS, Arm, Change, named};
pub use result::{Measured, VisionResult, VisionResults};
pub use runner::{VisionRun, VisionRunner, VisionWatcher};

use tokenformer_core::config::{Family, ImageInput, Init, Input, Pool, Slots};
use tokenformer_images::Summary;
use tokenformer_images::fractals::FractalOptions;
use tokenformer_train::recipe::ModelTable;
use tokenformer_train::{Error, Result};

/// Sizes and budgets of the study.
#[derive(Clone, Debug)]
pub struct VisionProfile {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// The pictures that are made if none are given.
    pub fractals: FractalOptions,
    /// Share of the training pictures that is held out.
    pub valid_share: f64,
    /// Patches on a side of a picture.
    pub grid: usize,
    /// Blocks.
    pub layers: usize,
    /// Width of the TokenFormer.
    pub width: usize,
    /// Heads of both.
    pub heads: usize,
    /// Updates of a run from scratch.
    pub steps: u64,
    /// Pictures of an update.
    pub batch: usize,
    /// Learning rates, in ascending order, that every arm tries with its first seed. If there are several and the best is
    /// the first or the last, others beyond it are tried, too.
    pub rates: Vec<f64>,
    /// Seeds, if not said otherwise.
    pub seeds: u64,
}

impl VisionProfile {
    /// A profile by name.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "smoke" => Ok(Self::smoke()),
            "laptop" => Ok(Self::laptop()),
            _ => Err(Error::Recipe {
                place: "--profile".into(),
                problem: "no such profile".into(),
                expected: "smoke or laptop".into(),
                got: name.into(),
                help: "smoke takes minutes, laptop hours".into(),
            }),
        }
    }

    fn smoke() -> Self {
        Self {
            name: "smoke",
            about: "every arm, very small: minutes",
            fractals: FractalOptions {
                classes: 6,
                per_class: 60,
                test_per_class: 20,
                side: 16,
                seed: 7,
            },
            valid_share: 0.2,
            grid: 4,
            layers: 2,
            width: 32,
            heads: 2,
            steps: 150,
            batch: 16,
            rates: vec![3e-3],
            seeds: 2,
        }
    }

    fn laptop() -> Self {
        Self {
            name: "laptop",
            about: "a comparison with three seeds: hours",
            fractals: FractalOptions {
                classes: 40,
                per_class: 120,
                test_per_class: 50,
                side: 32,
                seed: 7,
            },
            valid_share: 0.1,
            grid: 7,
            layers: 4,
            width: 64,
            heads: 4,
            steps: 3000,
            batch: 32,
            rates: vec![2e-3, 4e-3],
            seeds: 3,
        }
    }

    /// Parameter tokens of the TokenFormer: as many as its width in attention, four times as many in the feed-forward network.
    pub fn slots(&self) -> Slots {
        slots(self.width, 4 * self.width)
    }

    /// Parameter tokens of the model that grows to this size: a quarter.
    pub fn small_slots(&self) -> Slots {
        slots(self.width / 4, self.width)
    }

    /// What the models read of these pictures.
    ///
    /// # Errors
    /// If the pictures are not of one size, or it is no multiple of the patches.
    pub fn input(&self, summary: &Summary) -> Result<ImageInput> {
        let refused = |expected: String, got: String| Error::Recipe {
            place: "--data".into(),
            problem: "pictures that the study does not take".into(),
            expected,
            got,
            help: "prepare them with --storage packed and --resize, or leave --data out".into(),
        };
        let first = summary.splits.first().map_or([0, 0], |split| split.largest);
        for split in &summary.splits {
            if split.smallest != first || split.largest != first {
                let [width, height] = split.smallest;
                return Err(refused(
                    format!("all of {} x {} pixels", first[0], first[1]),
                    format!("{width} x {height} too"),
                ));
            }
        }
        let [width, height] = first;
        let grid = [self.grid, 8, 7, 4, 5, 6, 9, 10].into_iter();
        let fits = |grid: &usize| width.is_multiple_of(*grid) && height.is_multiple_of(*grid);
        let Some(grid) = grid.filter(|grid| *grid <= width.min(height)).find(fits) else {
            return Err(refused(
                "sides that 4 to 10 patches divide".into(),
                format!("{width} x {height}"),
            ));
        };
        Ok(ImageInput {
            height,
            width,
            channels: summary.channels,
            patch: [height / grid, width / grid],
            pool: Pool::Mean,
        })
    }

    /// The TokenFormer of the paper for these pictures.
    ///
    /// # Errors
    /// As [`VisionProfile::input`].
    pub fn tokenformer(&self, summary: &Summary) -> Result<ModelTable> {
        Ok(ModelTable {
            input: Input::Image(self.input(summary)?),
            vocab: summary.classes.len(),
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: 0,
            slots: self.slots(),
            init: Init::FanIn,
            ..ModelTable::from_preset("vit-mnist")?
        })
    }

    /// The plain ViT whose parameters are nearest to those of the TokenFormer; so are its operations, because both consist of
    /// products that every position passes once.
    ///
    /// # Errors
    /// As [`VisionProfile::input`].
    pub fn plain(&self, summary: &Summary) -> Result<ModelTable> {
        let classes = summary.classes.len();
        let wanted = self.tokenformer(summary)?.build(classes)?.params();
        let preset = ModelTable::from_preset("vit-plain-mnist")?;
        let of_width = |width: usize| -> Result<(u64, ModelTable)> {
            let table = ModelTable {
                family: Family::Gpt,
                input: Input::Image(self.input(summary)?),
                vocab: classes,
                width,
                layers: self.layers,
                heads: self.heads,
                context: 0,
                mlp_hidden: 0,
                ..preset.clone()
            };
            Ok((table.build(classes)?.params().abs_diff(wanted), table))
        };
        let mut best = of_width(self.heads * 2)?;
        for width in (self.heads * 2..=4 * self.width).step_by(2 * self.heads) {
            let found = of_width(width)?;
            if found.0 < best.0 {
                best = found;
            }
        }
        Ok(best.1)
    }
}

fn slots(attention: usize, ffn: usize) -> Slots {
    Slots {
        qkv: attention,
        proj: attention,
        ffn,
    }
}

/// The share of a run's cost that growth is allowed, and that the shorter run from scratch has.
pub const GROWTH_COST: f64 = 0.6;
