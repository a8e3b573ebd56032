//! Time of an update on this machine: first measured in advance, then taken from finished runs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Gradients, Graph, Model, ModelConfig};
use tokenformer_train::Result;

use crate::graph::{Common, Node};

/// Number of updates measured in advance; the fastest counts.
const MEASURED: usize = 3;
/// Time of an update with evaluations, checkpoints and records over the update alone.
const AROUND: f64 = 1.06;
const MAX_BYTES: u64 = 1 << 20;

/// Seconds of an update by network.
#[derive(Debug)]
pub struct Speeds {
    path: PathBuf,
    machine: String,
    file: SpeedFile,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SpeedFile {
    /// The machine of these measurements.
    machine: String,
    /// Measured in advance, on generated tokens.
    measured: BTreeMap<String, f64>,
    /// Taken from finished runs.
    learnt: BTreeMap<String, f64>,
}

impl SpeedFile {
    /// The ratio of the time in runs to the time measured in advance, where both are known.
    fn correction(&self) -> f64 {
        let both = self
            .learnt
            .iter()
            .filter_map(|(name, learnt)| Some((*learnt, *self.measured.get(name)?)));
        let (learnt, measured) = both.fold((0.0, 0.0), |sum, two| (sum.0 + two.0, sum.1 + two.1));
        match measured > 0.0 {
            true => learnt / measured,
            false => AROUND,
        }
    }
}

impl Speeds {
    /// Reads the file at `path`, if it is from this machine.
    pub fn open(path: &Path, device: &Arc<dyn Device>) -> Self {
        let machine = device.describe();
        let noted = tokenformer_store::read_small(path, MAX_BYTES).ok();
        let noted = noted.and_then(|bytes| serde_json::from_slice::<SpeedFile>(&bytes).ok());
        let file = noted
            .filter(|file| file.machine == machine)
            .unwrap_or_default();
        Self {
            path: path.into(),
            machine,
            file,
        }
    }

    fn name(config: &ModelConfig, common: &Common) -> String {
        let sites = config.blocks.iter().flat_map(|b| b.layers());
        let segments: usize = sites.filter_map(|l| Some(l.site()?.segments.len())).sum();
        format!(
            "{} parameters, {} wide, {} blocks, {segments} segments, {} x {}",
            config.params(),
            config.width,
            config.layers(),
            common.batch,
            common.context
        )
    }

    /// Seconds of an update of `node`, measured if nothing is known.
    ///
    /// # Errors
    /// If the device fails.
    pub fn of(&mut self, node: &Node, common: &Common, device: &Arc<dyn Device>) -> Result<f64> {
        let name = Self::name(&node.config, common);
        if let Some(&learnt) = self.file.learnt.get(&name) {
            return Ok(learnt);
        }
        let measured = match self.file.measured.get(&name) {
            Some(&measured) => measured,
            None => {
                let measured = measure(&node.config, common, device)?;
                self.file.measured.insert(name, measured);
                self.save()?;
                measured
            }
        };
        Ok(measured * self.file.correction())
    }

    /// Stores how long an update of a run took by its records. They count no time in which the process was suspended,
    /// and no evaluations, whose share is assumed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn learn(&mut self, node: &Node, common: &Common, per_step: f64) -> Result<()> {
        self.file
            .learnt
            .insert(Self::name(&node.config, common), per_step * AROUND);
        self.save()
    }

    fn save(&mut self) -> Result<()> {
        self.file.machine.clone_from(&self.machine);
        let Ok(text) = serde_json::to_vec_pretty(&self.file) else {
            return Ok(());
        };
        match tokenformer_store::write_atomic(&self.path, &text) {
            // Another process of the study is writing the same file; its measurements are as good as ours.
            Err(tokenformer_store::Error::Busy { .. }) => Ok(()),
            written => Ok(written?),
        }
    }
}

/// Time of an update on generated tokens.
fn measure(config: &ModelConfig, common: &Common, device: &Arc<dyn Device>) -> Result<f64> {
    let mut model = Model::fresh(device, config, 0)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let len = common.batch * common.context;
    let tokens: Vec<u32> = (0..len).map(|i| (i * 7919 % config.vocab) as u32).collect();
    let mut best = f64::INFINITY;
    for _ in 0..MEASURED {
        let started = Instant::now();
        gradients.reset();
        let mut g = Graph::training(device, &mut gradients);
        model.loss(&mut g, &tokens, &tokens, common.batch, 1.0 / len as f32)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}
