//! The answer to a request for texts, put together from the events of its texts: at once, or as a stream.

use crate::error::ApiError;
use crate::http::App;
use crate::job::{Event, TokenLogprobs};
use crate::models::Served;
use crate::offsets::{characters, offsets};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokenformer_data::{Losses, Tokenizer};
use tokenformer_train::End;

/// Which interface answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Chat,
}

/// What stands before the new tokens of a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beginning {
    /// The echoed prompt.
    echoed: Option<String>,
    /// Where in it each of its tokens begins, if their probabilities are reported.
    offsets: Vec<usize>,
    /// Whether the new tokens begin a text: their first space may not be part of it.
    is_empty: bool,
}

impl Beginning {
    /// After the tokens of a prompt, which the answer begins with if it is given as text.
    pub fn new(
        served: &Served,
        prompt: &[u32],
        echoed: Option<String>,
        has_logprobs: bool,
    ) -> Self {
        let bytes = |&token: &u32| served.tokenizer.token_bytes(token);
        let offsets = match &echoed {
            Some(text) if has_logprobs => {
                offsets(text, &prompt.iter().map(bytes).collect::<Vec<_>>())
            }
            _ => Vec::new(),
        };
        Self {
            echoed,
            offsets,
            is_empty: prompt.iter().all(|token| bytes(token).is_empty()),
        }
    }
}

/// A text of the answer.
#[derive(Debug, Default)]
struct Choice {
    /// What is still to be written before the first event: the echoed prompt.
    before: Option<String>,
    /// Whether leading white space is left out.
    trims: bool,
    /// Where the tokens of the echoed prompt begin whose probabilities are not reported yet.
    prompt_offsets: std::vec::IntoIter<usize>,
    /// Where the next new token begins, in characters.
    offset: usize,
    /// Whether that token begins a text.
    is_empty: bool,
    has_role: bool,
    has_ended: bool,
}

impl Choice {
    fn new(beginning: Beginning, kind: Kind) -> Self {
        Self {
            offset: (beginning.echoed.as_ref()).map_or(0, |text| text.chars().count()),
            before: beginning.echoed,
            trims: kind == Kind::Chat,
            prompt_offsets: beginning.offsets.into_iter(),
            is_empty: beginning.is_empty,
            ..Self::default()
        }
    }

    /// Where the next token of those that are reported begins.
    fn next_offset(&mut self, tokenizer: &Tokenizer, token: u32) -> usize {
        if let Some(offset) = self.prompt_offsets.next() {
            return offset;
        }
        let (offset, bytes) = (self.offset, tokenizer.token_bytes(token));
        self.offset += match self.is_empty {
            true => tokenizer.decode(&[token]).chars().count(),
            false => characters(&bytes),
        };
        self.is_empty &= bytes.is_empty();
        offset
    }
}

/// What an event adds to a text.
#[derive(Debug, Default)]
struct Delta {
    text: String,
    token_logprobs: Vec<TokenLogprobs>,
    end: Option<&'static str>,
}

/// What the prompts of a request came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptUse {
    pub tokens: usize,
    /// Characters that the tokens do not represent.
    pub losses: Losses,
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Answer {
    app: Arc<App>,
    model: usize,
    kind: Kind,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    /// Whether probabilities are part of the answer.
    has_logprobs: bool,
    prompt: PromptUse,
    has_told_losses: bool,
    new_tokens: usize,
    open: usize,
}

impl Answer {
    /// For texts with these beginnings.
    pub fn new(
        app: &Arc<App>,
        model: usize,
        kind: Kind,
        beginnings: Vec<Beginning>,
        has_logprobs: bool,
        prompt: PromptUse,
    ) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = if kind == Kind::Text {
            "cmpl"
        } else {
            "chatcmpl"
        };
        let choices: Vec<Choice> = (beginnings.into_iter())
            .map(|beginning| Choice::new(beginning, kind))
            .collect();
        Self {
            app: Arc::clone(app),
            model,
            kind,
            id: format!("{name}-{:x}-{number}", now.as_millis()),
            created: now.as_secs(),
            open: choices.len(),
            choices,
            has_logprobs,
            prompt,
            has_told_losses: false,
            new_tokens: 0,
        }
    }

    fn served(&self) -> &Served {
        &self.app.models[self.model]
    }

    /// Whether every text has ended.
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// What an event adds.
    fn delta(&mut self, index: usize, event: Event) -> Result<Delta, ApiError> {
        let mut delta = Delta::default();
        match event {
            Event::Prompt(token_logprobs) => delta.token_logprobs = token_logprobs,
            Event::Token {
                text,
                token_logprob,
                ..
            } => {
                self.new_tokens += 1;
                delta.text = text;
                delta.token_logprobs.extend(token_logprob);
            }
            Event::End(end, text) => {
                delta.text = text;
                delta.end = Some(match end {
                    End::Document | End::Stop => "stop",
                    End::Length | End::Context => "length",
                });
                self.open -= usize::from(!self.choices[index].has_ended);
                self.choices[index].has_ended = true;
            }
            Event::Busy => {
                let message = "the server has had no place for this text for too long";
                return Err(ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, message));
            }
            Event::Failed(message) => {
                let help = "the server says it on its standard error too; a shorter text needs less memory";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Err(ApiError::new(status, message, help));
            }
        }
        let choice = &mut self.choices[index];
        if choice.trims {
            delta.text = delta.text.trim_start().to_string();
            choice.trims = delta.text.is_empty();
        }
        if let Some(before) = choice.before.take() {
            delta.text.insert_str(0, &before);
        }
        Ok(delta)
    }

    /// The messages that an event makes in a stream.
    ///
    /// # Errors
    /// If the text could not be continued.
    pub fn stream(&mut self, index: usize, event: Event) -> Result<Vec<Value>, ApiError> {
        let delta = self.delta(index, event)?;
        if delta.text.is_empty() && delta.token_logprobs.is_empty() && delta.end.is_none() {
            return Ok(Vec::new());
        }
        let logprobs = self.logprobs(index, &delta.token_logprobs);
        let choice = match self.kind {
            Kind::Text => json!({
                "index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": delta.end,
            }),
            Kind::Chat => {
                let mut part = json!({"content": delta.text});
                if !self.choices[index].has_role {
                    part["role"] = json!("assistant");
                    self.choices[index].has_role = true;
                }
                json!({
                    "index": index, "delta": part, "logprobs": logprobs, "finish_reason": delta.end,
                })
            }
        };
        Ok(vec![self.message(vec![choice], true)])
    }

    /// The last message of a stream: what was used.
    pub fn stream_usage(&mut self) -> Value {
        let mut message = self.message(Vec::new(), true);
        message["usage"] = self.usage();
        message
    }

    /// The whole answer, from all events in their order.
    ///
    /// # Errors
    /// If a text could not be continued.
    pub fn whole(mut self, events: Vec<(usize, Event)>) -> Result<Value, ApiError> {
        let mut whole: Vec<Delta> = self.choices.iter().map(|_| Delta::default()).collect();
        for (index, event) in events {
            let delta = self.delta(index, event)?;
            let all = &mut whole[index];
            all.text += &delta.text;
            all.token_logprobs.extend(delta.token_logprobs);
            all.end = delta.end.or(all.end);
        }
        let mut choices = Vec::with_capacity(whole.len());
        for (index, all) in whole.into_iter().enumerate() {
            let logprobs = self.logprobs(index, &all.token_logprobs);
            choices.push(match self.kind {
                Kind::Text => json!({
                    "index": index, "text": all.text, "logprobs": logprobs, "finish_reason": all.end,
                }),
                Kind::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": all.text, "refusal": null},
                    "logprobs": logprobs,
                    "finish_reason": all.end,
                }),
            });
        }
        let mut message = self.message(choices, false);
        message["usage"] = self.usage();
        Ok(message)
    }

    fn message(&mut self, choices: Vec<Value>, is_part: bool) -> Value {
        let object = match (self.kind, is_part) {
            (Kind::Text, _) => "text_completion",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
        };
        let mut message = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.served().name,
            "choices": choices,
        });
        if self.prompt.losses.characters() > 0 && !self.has_told_losses {
            message["prompt_losses"] = json!(self.prompt.losses);
            self.has_told_losses = true;
        }
        message
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt.tokens,
            "completion_tokens": self.new_tokens,
            "total_tokens": self.prompt.tokens + self.new_tokens,
        })
    }

    fn logprobs(&mut self, index: usize, token_logprobs: &[TokenLogprobs]) -> Value {
        if !self.has_logprobs || token_logprobs.is_empty() {
            return Value::Null;
        }
        match self.kind {
            Kind::Text => self.text_logprobs(index, token_logprobs),
            Kind::Chat => {
                let served = self.served();
                let entry = |token: u32, logprob: Option<f32>| {
                    let bytes = served.tokenizer.token_bytes(token);
                    json!({"token": served.token_text(token), "logprob": logprob, "bytes": bytes})
                };
                let content = token_logprobs.iter().map(|token_logprob| {
                    let top = token_logprob.top.iter().map(|&(id, l)| entry(id, Some(l)));
                    let mut value = entry(token_logprob.token, token_logprob.logprob);
                    value["top_logprobs"] = top.collect();
                    value
                });
                json!({"content": content.collect::<Vec<_>>(), "refusal": null})
            }
        }
    }

    /// Tokens as texts with their `ln p`; the numbers of tokens and alternatives are an extension.
    fn text_logprobs(&mut self, index: usize, token_logprobs: &[TokenLogprobs]) -> Value {
        let served = &self.app.models[self.model];
        let choice = &mut self.choices[index];
        let (mut tokens, mut logprobs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
        let (mut offsets, mut ids, mut alternatives) = (Vec::new(), Vec::new(), Vec::new());
        for token_logprob in token_logprobs {
            tokens.push(served.token_text(token_logprob.token));
            logprobs.push(token_logprob.logprob);
            ids.push(token_logprob.token);
            offsets.push(choice.next_offset(&served.tokenizer, token_logprob.token));
            let alternative = |&(id, logprob): &(u32, f32)| json!({"id": id, "text": served.token_text(id), "logprob": logprob});
            alternatives.push(
                token_logprob
                    .top
                    .iter()
                    .map(alternative)
                    .collect::<Vec<_>>(),
            );
            tops.push(token_logprob.logprob.map(|logprob| {
                let mut top = serde_json::Map::new();
                let own = (token_logprob.token, logprob);
                for &(token, logprob) in token_logprob.top.iter().chain(std::iter::once(&own)) {
                    top.insert(served.token_text(token).into_owned(), json!(logprob));
                }
                top
            }));
        }
        json!({
            "tokens": tokens,
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": offsets,
            "token_ids": ids,
            "alternatives": alternatives,
        })
    }
}
