//! The models that a server answers with.

use crate::error::{Error, Result};
use tokenformer_core::{Model, ModelConfig};
use tokenformer_data::Tokenizer;

/// A model under a name.
#[derive(Debug)]
pub struct Served {
    /// The name by which requests ask for it.
    pub name: String,
    /// The model, of language.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its stages, oldest first.
    pub stages: Vec<Stage>,
}

/// A stage of a model: what was there when it began, and what it added.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The stage of birth of its tokens, as configurations count.
    pub born: u32,
    /// Parameters of the model up to this stage; `None` if it cannot be computed without the later ones.
    pub params: Option<u64>,
    /// Floating-point operations per token at a full context, likewise.
    pub flops: Option<f64>,
}

impl Served {
    /// A model with what is known of its stages.
    ///
    /// # Errors
    /// If the model reads images, sees what follows a position, or its vocabulary is smaller than the tokenizer's.
    pub fn new(name: &str, model: Model, tokenizer: Tokenizer) -> Result<Self> {
        let config = model.config();
        let unfit = |expected: &str, got: String| Error::Model {
            name: name.into(),
            expected: expected.into(),
            got,
        };
        if !config.input.is_tokens() {
            return Err(unfit("a model that reads text", "a model of images".into()));
        }
        if !config.causal {
            let got = "one that also sees what follows".into();
            return Err(unfit("a model that continues texts", got));
        }
        if tokenizer.vocab_size() > config.vocab {
            return Err(unfit(
                &format!("a tokenizer of at most {} tokens", config.vocab),
                format!("one of {}", tokenizer.vocab_size()),
            ));
        }
        let stages = config.stages().into_iter().map(|born| {
            let part = config.until_stage(born);
            Stage {
                born,
                params: part.as_ref().map(ModelConfig::params),
                flops: part.map(|part| part.forward_flops_per_token(part.context)),
            }
        });
        Ok(Self {
            name: name.into(),
            stages: stages.collect(),
            model,
            tokenizer,
            config,
        })
    }

    /// The newest stage of birth for a request of the first `count` stages; `None` for the whole model.
    ///
    /// # Errors
    /// What is expected, if there is no such stage or it cannot be computed by itself.
    pub fn until(&self, count: usize) -> std::result::Result<Option<u32>, String> {
        if count == self.stages.len() {
            return Ok(None);
        }
        match count.checked_sub(1).and_then(|at| self.stages.get(at)) {
            Some(stage) if stage.params.is_some() => Ok(Some(stage.born)),
            Some(_) => Err(format!(
                "{}, the whole model: its parameter tokens share one norm, or blocks or width came later, so the first stages are not contained in it",
                self.stages.len()
            )),
            None => Err(format!("a stage from 1 to {}", self.stages.len())),
        }
    }

    /// Bytes of keys and values of a position.
    pub(crate) fn position_bytes(&self) -> usize {
        2 * self.config.layers() * self.config.width * size_of::<f32>()
    }

    /// A token as text for lists of probabilities: its characters, or its bytes where they are no characters, so that
    /// different tokens stay different.
    pub fn token_text(&self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token);
        match String::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) if Some(token) == self.tokenizer.eod() => "<|endoftext|>".into(),
            Ok(_) => format!("<|{token}|>"),
            Err(error) => {
                let hex = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}"));
                format!("bytes:{}", hex.collect::<String>())
            }
        }
    }
}
