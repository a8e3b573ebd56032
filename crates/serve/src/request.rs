//! The bodies of requests: what a client may ask for, checked.

use crate::error::ApiError;
use crate::prompt::Prompts;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;
use tokenformer_core::generate::Sampling;

/// Most texts of a request: prompts times `n`.
pub const MOST_TEXTS: usize = 128;
/// Most alternatives to a token that are reported.
pub const MOST_ALTERNATIVES: usize = 20;
const MOST_MESSAGE_CHARS: usize = 800;
const MOST_STOPS: usize = 16;
const MOST_STOP_BYTES: usize = 1024;
const MOST_BIASES: usize = 1024;
const LARGEST_BIAS: f32 = 100.0;

/// Reads a body as JSON; the error names the field.
///
/// # Errors
/// If it is not such a JSON.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json);
    let help = "docs/serve.md lists the fields of every request";
    let value = read.map_err(|error| {
        let path = error.path().to_string();
        let is_field = !path.is_empty() && path != ".";
        let message = error.into_inner().to_string();
        // It repeats what was sent, which may be long and hold anything.
        let plain = message.chars().filter(|c| !c.is_control());
        let message: String = plain.take(MOST_MESSAGE_CHARS).collect();
        let place = if is_field { path.as_str() } else { "the body" };
        ApiError {
            param: is_field.then(|| path.clone()),
            ..ApiError::new(StatusCode::BAD_REQUEST, format!("{place}: {message}"), help)
        }
    })?;
    json.end().map_err(|_| {
        let message = "the body: expected one JSON object, got more text behind it";
        ApiError::new(StatusCode::BAD_REQUEST, message, help)
    })?;
    Ok(value)
}

/// One text or several.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Stops {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// What is asked of a stream.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether the last message reports the number of tokens used.
    #[serde(default)]
    pub include_usage: bool,
    /// Taken and ignored: events are not padded.
    #[serde(default)]
    pub include_obfuscation: bool,
}

/// The fields that texts and chats share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Common {
    /// Name of the model; empty for the only one.
    pub model: String,
    /// New tokens, at most.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen; the seed is that of the first text.
    pub sampling: Sampling,
    /// Texts for each prompt.
    pub n: usize,
    /// Texts that end a text.
    pub stops: Vec<String>,
    /// Numbers added to logits.
    pub bias: Vec<(u32, f32)>,
    /// Whether events are streamed.
    pub stream: bool,
    /// Whether the last event reports the number of tokens used.
    pub include_usage: bool,
    /// The number of stages to compute with; `None` for all.
    pub stage: Option<usize>,
    /// Whether a prompt that is too long loses its beginning.
    pub truncate: bool,
}

macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
            #[serde(default)]
            pub model: Option<String>,
            pub max_tokens: Option<u64>,
            pub temperature: Option<f32>,
            pub top_p: Option<f32>,
            pub n: Option<u64>,
            pub stop: Option<Stops>,
            pub seed: Option<i64>,
            pub logit_bias: Option<BTreeMap<String, f32>>,
            pub stream: Option<bool>,
            pub stream_options: Option<StreamOptions>,
            pub top_k: Option<i64>,
            pub min_p: Option<f32>,
            pub repetition_penalty: Option<f32>,
            pub stage: Option<usize>,
            pub truncate: Option<bool>,
            pub presence_penalty: Option<f32>,
            pub frequency_penalty: Option<f32>,
            /// Taken and ignored, as are the next three.
            pub user: Option<IgnoredAny>,
            pub metadata: Option<IgnoredAny>,
            pub store: Option<IgnoredAny>,
            pub service_tier: Option<IgnoredAny>,
        }

        impl $name {
            /// The fields that texts and chats share, checked.
            ///
            /// # Errors
            /// For the first that cannot be used.
            pub fn common(&self) -> Result<Common, ApiError> {
                self.without_penalties()?;
                Ok(Common {
                    model: self.model.clone().unwrap_or_default(),
                    max_tokens: self.max_tokens.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
                    sampling: self.sampling()?,
                    n: count_of("n", self.n.unwrap_or(1), 1, MOST_TEXTS)?,
                    stops: stops(self.stop.as_ref())?,
                    bias: bias(self.logit_bias.as_ref())?,
                    stream: self.stream.unwrap_or(false),
                    include_usage: self.stream_options.is_some_and(|o| o.include_usage),
                    stage: self.stage,
                    truncate: self.truncate.unwrap_or(false),
                })
            }

            fn sampling(&self) -> Result<Sampling, ApiError> {
                let sampling = Sampling {
                    repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
                    temperature: self.temperature.unwrap_or(1.0),
                    // Some clients write "off" as -1.
                    top_k: usize::try_from(self.top_k.unwrap_or(0).max(0)).unwrap_or(usize::MAX),
                    top_p: self.top_p.unwrap_or(1.0),
                    min_p: self.min_p.unwrap_or(0.0),
                    seed: self.seed.map_or_else(random_seed, i64::cast_unsigned),
                };
                sampling.validate().map_err(|error| {
                    let help = "docs/serve.md lists the fields with their ranges";
                    ApiError::new(StatusCode::BAD_REQUEST, error.to_string(), help)
                })?;
                Ok(sampling)
            }

            fn without_penalties(&self) -> Result<(), ApiError> {
                let penalties = [
                    ("presence_penalty", self.presence_penalty),
                    ("frequency_penalty", self.frequency_penalty),
                ];
                match penalties.iter().find(|(_, value)| value.is_some_and(|value| value != 0.0)) {
                    Some((name, value)) => {
                        let got = value.unwrap_or_default().to_string();
                        Err(ApiError::field(name, "0", got, "use repetition_penalty instead"))
                    }
                    None => Ok(()),
                }
            }
        }
    };
}

request! {
    /// The body of `/v1/completions`.
    CompletionRequest {
        prompt: Option<Prompts>,
        echo: Option<bool>,
        logprobs: Option<u64>,
        /// Only as many as `n`: texts are not ranked.
        best_of: Option<u64>,
        /// Only none: nothing is written before a text.
        suffix: Option<String>,
    }
}

request! {
    /// The body of `/v1/chat/completions`.
    ChatRequest {
        messages: Vec<Message>,
        logprobs: Option<bool>,
        top_logprobs: Option<u64>,
        max_completion_tokens: Option<u64>,
    }
}

/// A message of a chat.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: Content,
    /// Taken and ignored.
    #[serde(default)]
    pub name: Option<String>,
}

/// What was said: a text, or parts of one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Its parts.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// `text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: String,
}

/// The body of `/tokenize`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The text.
    #[serde(alias = "content")]
    pub prompt: String,
    /// Taken and ignored: no token is ever added to a text.
    pub add_special_tokens: Option<bool>,
}

/// The body of `/detokenize`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The tokens.
    pub tokens: Vec<u32>,
}

/// The body of `/api/fired`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiredRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// The text up to the position, as tokens.
    pub tokens: Vec<u32>,
    /// The number of stages to compute with.
    pub stage: Option<usize>,
}

/// A number within limits.
pub(crate) fn count_of(name: &str, got: u64, least: u64, most: usize) -> Result<usize, ApiError> {
    match usize::try_from(got) {
        Ok(count) if got >= least && count <= most => Ok(count),
        _ => {
            let expected = format!("{least} to {most}");
            let help = "ask several times for more";
            Err(ApiError::field(name, expected, got.to_string(), help))
        }
    }
}

fn stops(stop: Option<&Stops>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stops::One(stop)) => vec![stop.clone()],
        Some(Stops::Several(stops)) => stops.clone(),
    };
    let bytes = stops.iter().map(String::len).max().unwrap_or(0);
    if stops.len() > MOST_STOPS || bytes > MOST_STOP_BYTES {
        let expected = format!("at most {MOST_STOPS} texts of {MOST_STOP_BYTES} bytes");
        let got = format!("{} texts of up to {bytes} bytes", stops.len());
        return Err(ApiError::field(
            "stop",
            expected,
            got,
            "cut the text yourself",
        ));
    }
    Ok(stops)
}

fn bias(bias: Option<&BTreeMap<String, f32>>) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(bias) = bias else {
        return Ok(Vec::new());
    };
    let expected = format!("at most {MOST_BIASES} token numbers, each with -100 to 100");
    let bad = |got: String| {
        let help = "for example {\"50256\": -100}; /tokenize tells the numbers of tokens";
        ApiError::field("logit_bias", &expected, got, help)
    };
    if bias.len() > MOST_BIASES {
        return Err(bad(format!("{} tokens", bias.len())));
    }
    (bias.iter())
        .map(|(token, &bias)| match token.parse() {
            Ok(id) if bias.abs() <= LARGEST_BIAS => Ok((id, bias)),
            _ => Err(bad(format!("{}: {bias}", tokenformer_base::shown(token)))),
        })
        .collect()
}

/// A seed for a request that names none.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The keys of a hash map are the standard library's only random numbers.
    RandomState::new().build_hasher().finish()
}
