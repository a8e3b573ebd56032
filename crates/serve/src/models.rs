//! The models that a server answers with.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::HashSet;
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
    /// What each token is called, see [`Served::token_text`].
    names: Vec<String>,
}

/// A stage of a model: what was there when it began, and what it added.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The stage of birth of its tokens, as configurations count.
    pub born: u32,
    /// Parameters of the model up to this stage; `None` if it cannot be computed without the later ones.
    pub params: Option<u64>,
    /// Floating-point operations per token at a full context.
    pub flops: Option<f64>,
}

impl Served {
    /// A model and its known stages.
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
            names: names(&tokenizer),
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

    /// What a text begins with that has no other token: the end of the document before it.
    pub(crate) fn start_token(&self) -> u32 {
        self.tokenizer.eod().unwrap_or(0)
    }

    /// Bytes of keys and values of a position.
    pub(crate) fn position_bytes(&self) -> usize {
        2 * self.config.layers() * self.config.width * size_of::<f32>()
    }

    /// A token as text for lists of probabilities, unique for each token: its characters if they are valid UTF-8 and no other
    /// token has them, else its bytes, else (for a token without bytes) its number.
    pub fn token_text(&self, token: u32) -> Cow<'_, str> {
        match self.names.get(token as usize) {
            Some(name) => name.into(),
            None => by_number(token).into(),
        }
    }
}

/// The names of all tokens: of each the first that no token before it has.
fn names(tokenizer: &Tokenizer) -> Vec<String> {
    let mut taken = HashSet::new();
    let name = |token| {
        let name = possible_names(tokenizer, token).find(|name| !taken.contains(name));
        let name = name.unwrap_or_else(|| by_number(token));
        taken.insert(name.clone());
        name
    };
    let count = u32::try_from(tokenizer.vocab_size()).unwrap_or(u32::MAX);
    (0..count).map(name).collect()
}

fn possible_names(tokenizer: &Tokenizer, token: u32) -> impl Iterator<Item = String> {
    let bytes = tokenizer.token_bytes(token);
    let end = (Some(token) == tokenizer.eod()).then(|| "<|endoftext|>".to_owned());
    // The single bytes beside the characters leave their names to those.
    let characters = match tokenizer.is_fallback_byte(token) {
        true => None,
        false => String::from_utf8(bytes.clone()).ok(),
    };
    let characters = characters.filter(|characters| !characters.is_empty());
    let others = std::iter::once_with(move || match bytes.is_empty() {
        true => by_number(token),
        false => by_bytes(&bytes),
    });
    end.into_iter().chain(characters).chain(others)
}

fn by_bytes(bytes: &[u8]) -> String {
    let hex = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    format!("bytes:{}", hex.collect::<String>())
}

fn by_number(token: u32) -> String {
    format!("<|{token}|>")
}
