//! Classes of pictures in one pass.

use super::{Setup, pixels};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::config::ImageInput;
use tokenformer_core::{Device, Model};
use tokenformer_train::Result;

/// Seconds of each pass, from pixels to logits on the host.
pub fn run(setup: &Setup<'_>, device: &Arc<dyn Device>, image: &ImageInput) -> Result<Vec<f64>> {
    let model = Model::fresh_for_inference(device, &setup.config, setup.weights()?, 0)?;
    let pixels = pixels(setup.batch * image.pixels());
    let step = || -> Result<f64> {
        let started = Instant::now();
        model.classify(&pixels, setup.batch)?;
        Ok(started.elapsed().as_secs_f64())
    };
    step()?;
    (0..setup.args.steps).map(|_| step()).collect()
}
