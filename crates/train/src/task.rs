//! What a run trains on.
//!
//! The loop draws windows (samples) by number, asks for the loss of a micro-batch of them, and now and then for an
//! evaluation and for samples of what the model does. Everything it needs to know about data is in [`Task`]; each kind
//! of data is another file in this folder.

mod images;
mod language;

pub use images::Images;
pub use language::Language;

use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::recipe::Recipe;
use crate::scored::bits_per_byte;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokenformer_core::device::Collective;
use tokenformer_core::growth::{Birth, Growth, GrowthReport};
use tokenformer_core::{Graph, Model, ModelConfig};
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_report::Unit;
use tokenformer_report::pictures::PictureReport;

/// What a model did with a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// The continuation.
    pub text: String,
}

/// A sum of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Nats {
    /// In nats.
    pub sum: f64,
    /// Bytes of what was predicted, where that means something.
    pub bytes: Option<f64>,
}

impl Nats {
    /// The sum of both.
    pub fn and(self, other: Self) -> Self {
        let both = self.bytes.zip(other.bytes);
        Self {
            sum: self.sum + other.sum,
            bytes: both.map(|(a, b)| a + b),
        }
    }

    /// In bits per byte.
    pub fn bits_per_byte(self) -> Option<f64> {
        bits_per_byte(self.sum, self.bytes)
    }
}

/// Data to train on and to measure with, and how a model meets them.
///
/// Everything is a function of the recipe and the data, so that a run that continues from a checkpoint repeats what an
/// uninterrupted one does.
pub trait Task {
    /// Hash of the training data. A run is resumed only with the data that it began with.
    fn identity(&self) -> String;

    /// What its evaluations measure on: a hash of the held-out data and how much of them, and how they are shown. Losses on others
    /// are not compared. What is added here goes to the end, so that states of older versions begin alike.
    fn measured_on(&self) -> String;

    /// What the data are, as rows of names and values for the report.
    fn describe(&self) -> Vec<(String, String)>;

    /// Notes for the user about the data before a run, in sentences.
    fn notes(&self) -> &[String];

    /// The model that the recipe asks for, fresh.
    fn config(&self) -> &ModelConfig;

    /// Files that a checkpoint holds besides those of the model, by name.
    fn files(&self) -> &[(&'static str, Vec<u8>)];

    /// What predictions are of.
    fn unit(&self) -> Unit {
        Unit::Token
    }

    /// Windows of a micro-batch.
    fn batch(&self) -> u64;

    /// Predictions per window that enter the loss. Losses are means over them.
    fn targets_per_window(&self) -> u64;

    /// Draws the micro-batch that begins with window `first` of the run.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn fill(&mut self, first: u64) -> Result<()>;

    /// Time that [`Task::fill`] has spent so far, where samples are prepared in parallel with the training.
    fn waited(&self) -> Option<Duration> {
        None
    }

    /// Puts the loss of the micro-batch that was drawn last into `g`, every prediction with the factor `weight`.
    /// Returns the sum of the losses without the factor.
    ///
    /// # Errors
    /// If the device fails.
    fn loss<'m>(&mut self, model: &'m Model, g: &mut Graph<'m>, weight: f32) -> Result<Nats>;

    /// Measures the model on held-out data, of which each rank takes a share; `None` if `stop` was set meanwhile on any rank.
    ///
    /// # Errors
    /// If the data cannot be read, or the device or a connection fails.
    fn evaluate(
        &self,
        model: &Model,
        stop: &AtomicBool,
        ranks: &dyn Collective,
    ) -> Result<Option<Evaluation>>;

    /// Shows what the model does, in as many samples as the recipe asks for; `None` if `stop` was set meanwhile.
    ///
    /// # Errors
    /// If a prompt does not fit the model, or the device fails.
    fn sample(&self, model: &Model, stop: &AtomicBool) -> Result<Option<Vec<Sample>>>;

    /// What the report of a finished run says of the model besides the course of its training; `None` if there is nothing,
    /// or `stop` was set meanwhile. `average` is the model with the average of the weights, if the run keeps one.
    ///
    /// # Errors
    /// If the device fails.
    fn closing(
        &self,
        _model: &Model,
        _average: Option<&Model>,
        _stop: &AtomicBool,
    ) -> Result<Option<PictureReport>> {
        Ok(None)
    }

    /// Grows the model, and compares what it computes on held-out data before and after.
    ///
    /// # Errors
    /// As [`tokenformer_core::growth::grow`], and if the data cannot be read.
    fn grow(&self, model: &mut Model, growth: &Growth, birth: Birth) -> Result<GrowthReport>;
}

/// The task of a recipe, which is determined by its data folder.
///
/// # Errors
/// If there are no data, or they do not fit the recipe.
pub fn open(recipe: &Recipe) -> Result<Box<dyn Task>> {
    let is_of_images = is_image_dataset(Path::new(&recipe.data.dir));
    Ok(match is_of_images && !recipe.data.dir.is_empty() {
        true => Box::new(Images::open(recipe)?),
        false => Box::new(Language::open(recipe)?),
    })
}
