//! The fingerprint of a model: the logits after a few tokens, kept next to the weights.
//!
//! `fingerprint.safetensors` holds `tokens` [1, T], which are at most 16, drawn from the whole vocabulary, and `logits`
//! [1, V] after the last of them, computed in f32 from the weights next to it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tokenformer_core::{Device, ModelConfig, init};
use tokenformer_store::{Dtype, SafetensorsFile, TensorSource, write_safetensors};

use crate::forward::{Arrays, last_logits};
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "fingerprint.safetensors";

/// Largest difference of a logit that different hardware may cause.
pub const TOLERANCE: f32 = 1e-4;

/// Largest number of tokens of a fingerprint.
const TOKENS: usize = 16;

/// Tokens and the logits after the last of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Token numbers `[T]`.
    pub tokens: Vec<u32>,
    /// Logits `[V]`.
    pub logits: Vec<f32>,
}

impl Fingerprint {
    /// Computes the fingerprint of a model with these arrays.
    pub(crate) fn make(
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        path: &Path,
        mut arrays: Arrays<'_>,
    ) -> Result<Fingerprint> {
        let draws = init::normal(0, "fingerprint", TOKENS.min(config.context), 1e6);
        let tokens: Vec<u32> = draws
            .iter()
            .map(|x| (x.abs() as usize % config.vocab) as u32)
            .collect();
        let logits = last_logits(device, config, &tokens, &mut arrays)?;
        match logits.iter().position(|x| !x.is_finite()) {
            None => Ok(Fingerprint { tokens, logits }),
            Some(at) => Err(Error::NotFinite {
                path: path.into(),
                got: format!(
                    "{} for the token {at}",
                    logits.get(at).copied().unwrap_or(f32::NAN)
                ),
            }),
        }
    }

    /// Computes the logits again and returns the largest difference.
    pub(crate) fn difference(
        &self,
        device: &Arc<dyn Device>,
        config: &ModelConfig,
        mut arrays: Arrays<'_>,
    ) -> Result<f32> {
        let logits = last_logits(device, config, &self.tokens, &mut arrays)?;
        if logits.len() != self.logits.len() {
            return Ok(f32::INFINITY);
        }
        let differences = logits.iter().zip(&self.logits).map(|(a, b)| (a - b).abs());
        // A NaN counts as the largest difference; `max` would ignore it.
        Ok(differences.fold(0.0, |most, d| if d <= most { most } else { d }))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut tokens = |to: &mut dyn Write| {
            self.tokens
                .iter()
                .try_for_each(|&token| to.write_all(&i64::from(token).to_le_bytes()))
        };
        let tensors = [
            TensorSource::stream("tokens", Dtype::I64, &[1, self.tokens.len()], &mut tokens),
            TensorSource::f32("logits", &[1, self.logits.len()], &self.logits),
        ];
        write_safetensors(path, &BTreeMap::new(), tensors)?;
        Ok(())
    }

    /// Reads the fingerprint of a model.
    ///
    /// # Errors
    /// If the file is damaged or its sizes do not match the configuration.
    pub fn read(path: &Path, config: &ModelConfig) -> Result<Fingerprint> {
        let file = SafetensorsFile::open(path)?;
        let tokens = file.read_u32("tokens")?;
        let known = |token: &u32| (*token as usize) < config.vocab;
        let most = TOKENS.min(config.context);
        if tokens.is_empty() || tokens.len() > most || !tokens.iter().all(known) {
            return Err(Error::Damaged {
                path: path.into(),
                what: "the fingerprint belongs to another model",
                expected: format!("1 to {most} tokens below {}", config.vocab),
                got: format!("{} tokens up to {:?}", tokens.len(), tokens.iter().max()),
                help: "convert or export the model again",
            });
        }
        file.expect_shape("tokens", &[1, tokens.len()])?;
        file.expect_shape("logits", &[1, config.vocab])?;
        Ok(Fingerprint {
            tokens,
            logits: file.read_f32("logits")?,
        })
    }
}
