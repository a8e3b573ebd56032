//! Telling the class of a picture.

use super::{Nats, Sample, Task};
use crate::classifier::Labels;
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::insight::Insight;
use crate::ranks::any;
use crate::recipe::Recipe;
use crate::tally::Tally;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokenformer_core::config::ImageInput;
use tokenformer_core::device::Collective;
use tokenformer_core::graph::LossTargets;
use tokenformer_core::growth::{Birth, Growth, GrowthReport, Probe, grow};
use tokenformer_core::{Graph, Model, ModelConfig};
use tokenformer_images::{
    Batch, ImageSet, Loader, LoaderOptions, Preparation, Preprocess, Split, Storage, Summary,
};
use tokenformer_report::Unit;
use tokenformer_report::pictures::PictureReport;

/// A dataset of pictures, and the settings of a recipe for it. Its test split is not read.
pub struct Images {
    dir: String,
    set: Arc<ImageSet>,
    config: ModelConfig,
    files: Vec<(&'static str, Vec<u8>)>,
    options: LoaderOptions,
    loader: Loader,
    batch: usize,
    /// Held-out pictures per evaluation; 0 for all.
    eval_images: usize,
    /// The micro-batch that was drawn last.
    drawn: Option<Batch>,
}

impl Images {
    /// Opens the dataset of a recipe, and checks that both fit together.
    ///
    /// # Errors
    /// If there is no dataset, it is damaged, or its classes, channels or sizes are not those of the model.
    pub fn open(recipe: &Recipe) -> Result<Self> {
        let set = Arc::new(ImageSet::open(Path::new(&recipe.data.dir))?);
        let summary = set.summary();
        let (config, input) = model_for(recipe, summary)?;
        let settings = &recipe.images;
        let preprocess = Preprocess {
            height: input.height,
            width: input.width,
            channels: input.channels,
            crop_share: settings.crop_share,
            filter: settings.filter,
            mean: summary.mean.clone(),
            std: summary.std.clone(),
        };
        let labels = Labels {
            classes: summary.classes.clone(),
            preparation: Preparation::of_dataset(summary, preprocess.clone()),
        };
        let batch = recipe.train.batch;
        let options = LoaderOptions {
            seed: recipe.seed,
            workers: settings.workers,
            // As many as the next two micro-batches need: more would only take memory.
            ahead: (2 * batch).max(4),
            ..LoaderOptions::new(preprocess, settings.augment.clone())
        };
        Ok(Self {
            dir: recipe.data.dir.clone(),
            loader: Loader::training(Arc::clone(&set), options.clone(), 0)?,
            files: labels.files(),
            options,
            config,
            batch,
            eval_images: recipe.eval.images,
            drawn: None,
            set,
        })
    }

    fn held_out(&self) -> Result<Loader> {
        let (set, options) = (Arc::clone(&self.set), self.options.clone());
        let most = match self.eval_images {
            0 => usize::MAX,
            images => images,
        };
        Ok(Loader::evaluation_of_part(
            set,
            Split::Valid,
            options,
            most,
        )?)
    }
}

/// The model of a recipe for a dataset.
fn model_for(recipe: &Recipe, summary: &Summary) -> Result<(ModelConfig, ImageInput)> {
    let refused = |place: &str, problem: &str, expected: String, got: String, help: String| {
        Err(Error::Recipe {
            place: place.into(),
            problem: problem.into(),
            expected,
            got,
            help,
        })
    };
    let (model, classes) = (&recipe.model, summary.classes.len());
    let Some(&input) = model.input.image() else {
        return refused(
            "model.preset",
            "the data are pictures, and the model reads text",
            "a model of images, such as vit-mnist".into(),
            model.preset.clone(),
            "`config presets` lists them, and recipes/vision/ has examples".into(),
        );
    };
    if model.vocab != 0 && model.vocab != classes {
        return refused(
            "model.vocab",
            "the model has other classes than the dataset",
            format!("{classes}, or 0 to take the dataset's"),
            model.vocab.to_string(),
            "set model.vocab = 0".into(),
        );
    }
    if input.channels != summary.channels {
        let help = match summary.channels {
            1 => "set model.input.channels = 1",
            _ => "set model.input.channels = 3, or prepare the dataset with --grey",
        };
        return refused(
            "model.input.channels",
            "the model reads pictures of other channels than the dataset's",
            summary.channels.to_string(),
            input.channels.to_string(),
            help.into(),
        );
    }
    let sizes = |[width, height]: [usize; 2]| format!("{width} x {height}");
    for split in &summary.splits {
        let is_one_size = summary.storage == Storage::Packed && split.smallest == split.largest;
        if is_one_size && split.largest != [input.width, input.height] && !recipe.images.resize {
            let [width, height] = split.largest;
            return refused(
                "model.input",
                "the model reads pictures of another size than the dataset's",
                format!("{} pixels, wide and high", sizes(split.largest)),
                sizes([input.width, input.height]),
                format!(
                    "set model.input.width = {width} and model.input.height = {height}; or images.resize = true to resize \
                     them"
                ),
            );
        }
    }
    Ok((model.build(classes)?, input))
}

impl Task for Images {
    fn identity(&self) -> String {
        // A dataset that was opened has pictures to train on.
        self.set.identity(Split::Train).unwrap_or_default()
    }

    fn measured_on(&self) -> String {
        let held_out = self.set.identity(Split::Valid).unwrap_or_default();
        let shown = self.options.preprocess.identity();
        format!("{} of {held_out}, shown as {shown}", self.eval_images)
    }

    fn describe(&self) -> Vec<(String, String)> {
        let summary = self.set.summary();
        let count = |split| summary.split(split).map_or(0, |split| split.images);
        let pictures = format!(
            "{} to train on, {} held out, {} classes",
            count(Split::Train),
            count(Split::Valid),
            summary.classes.len()
        );
        vec![
            ("data".into(), self.dir.clone()),
            ("pictures".into(), pictures),
        ]
    }

    fn notes(&self) -> &[String] {
        &self.set.summary().notes
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn files(&self) -> &[(&'static str, Vec<u8>)] {
        &self.files
    }

    fn unit(&self) -> Unit {
        Unit::Image
    }

    fn batch(&self) -> u64 {
        self.batch as u64
    }

    fn targets_per_window(&self) -> u64 {
        1
    }

    fn fill(&mut self, first: u64) -> Result<()> {
        if self.loader.position() != first {
            self.loader.seek(first);
        }
        // The memory of the last one can be used for the next.
        self.drawn = None;
        self.drawn = Some(self.loader.next(self.batch)?);
        Ok(())
    }

    fn waited(&self) -> Option<Duration> {
        Some(self.loader.waited())
    }

    fn loss<'m>(&mut self, model: &'m Model, g: &mut Graph<'m>, weight: f32) -> Result<Nats> {
        let drawn = self.drawn.as_ref();
        let batch = drawn.expect("a micro-batch is drawn before its loss is asked for");
        let pooled = model.pooled(g, &batch.pixels, batch.len())?;
        let soft = batch.soft_targets(self.config.classes(), self.options.augment.smoothing);
        let losses = model.losses(g, &pooled, LossTargets::Soft(&soft), weight)?;
        let losses = losses.to_host(&**model.device())?;
        Ok(Nats {
            sum: losses.iter().map(|&x| f64::from(x)).sum(),
            bytes: None,
        })
    }

    fn evaluate(
        &self,
        model: &Model,
        stop: &AtomicBool,
        ranks: &dyn Collective,
    ) -> Result<Option<Evaluation>> {
        let classes = self.config.classes();
        let mut loader = self.held_out()?;
        let mut tally = Tally::new(classes);
        let mut is_over = false;
        while !is_over {
            if any(ranks, stop.load(Ordering::Relaxed))? {
                return Ok(None);
            }
            let mut coming = Vec::new();
            for rank in 0..ranks.world() {
                let batch = loader.next(self.batch)?;
                is_over |= batch.is_empty();
                let mut numbers: Vec<f32> = match rank == ranks.rank() && !batch.is_empty() {
                    true => model.classify(&batch.pixels, batch.len())?,
                    false => vec![0.0; batch.len() * classes],
                };
                // Every rank reads all pictures, so that it knows their classes.
                let labels: Vec<u32> = batch.targets.iter().map(|target| target.first).collect();
                numbers.truncate(labels.len() * classes);
                coming.push((labels, ranks.begin_broadcast(rank, numbers)?));
            }
            for (labels, coming) in coming {
                let logits = coming.wait()?;
                for (row, &label) in logits.chunks_exact(classes).zip(&labels) {
                    tally.add(label, row);
                }
            }
        }
        Ok(Some(tally.evaluation()))
    }

    fn sample(&self, _: &Model, _: &AtomicBool) -> Result<Option<Vec<Sample>>> {
        Ok(Some(Vec::new()))
    }

    fn closing(
        &self,
        model: &Model,
        average: Option<&Model>,
        stop: &AtomicBool,
    ) -> Result<Option<PictureReport>> {
        let Some(pictures) = self.set.split(Split::Valid) else {
            return Ok(None);
        };
        let weights = match average {
            Some(_) => "the averaged weights",
            None => "the weights",
        };
        let insight = Insight {
            model: average.unwrap_or(model),
            pictures,
            preprocess: &self.options.preprocess,
            classes: &self.set.summary().classes,
            what: format!("What {weights} at the end of the run say of the held-out pictures"),
        };
        insight.report(self.batch, stop)
    }

    fn grow(&self, model: &mut Model, growth: &Growth, birth: Birth) -> Result<GrowthReport> {
        let batch = self.held_out()?.next(self.batch)?;
        let probe = Probe::Images {
            pixels: &batch.pixels,
            batch: batch.len(),
        };
        Ok(grow(model, growth, birth, probe)?)
    }
}
