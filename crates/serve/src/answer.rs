//! The answer to a request for texts, put together from the events of its texts: at once, or as a stream.

use crate::error::ApiError;
use crate::http::App;
use crate::job::{Chance, Event};
use crate::models::Served;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokenformer_train::End;

/// Which interface answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Chat,
}

/// A text of the answer.
#[derive(Debug, Default)]
struct Choice {
    /// What is still to be written before the first event: the echoed prompt.
    before: Option<String>,
    /// Whether leading white space is left out.
    trims: bool,
    /// Characters of the tokens whose probabilities were reported.
    offset: usize,
    has_role: bool,
    has_ended: bool,
}

/// What an event adds to a text.
#[derive(Debug, Default)]
struct Delta {
    text: String,
    chances: Vec<Chance>,
    end: Option<&'static str>,
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
    has_chances: bool,
    prompt_tokens: usize,
    new_tokens: usize,
    open: usize,
}

impl Answer {
    /// For texts of which each begins with `before`, the echoed prompt, if it is given.
    pub fn new(
        app: &Arc<App>,
        model: usize,
        kind: Kind,
        before: Vec<Option<String>>,
        has_chances: bool,
        prompt_tokens: usize,
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
        let choices: Vec<Choice> = (before.into_iter())
            .map(|before| Choice {
                before,
                trims: kind == Kind::Chat,
                ..Choice::default()
            })
            .collect();
        Self {
            app: Arc::clone(app),
            model,
            kind,
            id: format!("{name}-{:x}-{number}", now.as_millis()),
            created: now.as_secs(),
            open: choices.len(),
            choices,
            has_chances,
            prompt_tokens,
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
            Event::Prompt(chances) => delta.chances = chances,
            Event::Token { text, chance, .. } => {
                self.new_tokens += 1;
                delta.text = text;
                delta.chances.extend(chance);
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
                let help = "the server's log says more; a shorter text needs less memory";
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
        if delta.text.is_empty() && delta.chances.is_empty() && delta.end.is_none() {
            return Ok(Vec::new());
        }
        let logprobs = self.logprobs(index, &delta.chances);
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
    pub fn stream_usage(&self) -> Value {
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
            all.chances.extend(delta.chances);
            all.end = delta.end.or(all.end);
        }
        let mut choices = Vec::with_capacity(whole.len());
        for (index, all) in whole.into_iter().enumerate() {
            let logprobs = self.logprobs(index, &all.chances);
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

    fn message(&self, choices: Vec<Value>, is_part: bool) -> Value {
        let object = match (self.kind, is_part) {
            (Kind::Text, _) => "text_completion",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Chat, true) => "chat.completion.chunk",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.served().name,
            "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.new_tokens,
            "total_tokens": self.prompt_tokens + self.new_tokens,
        })
    }

    fn logprobs(&mut self, index: usize, chances: &[Chance]) -> Value {
        if !self.has_chances || chances.is_empty() {
            return Value::Null;
        }
        match self.kind {
            Kind::Text => self.text_logprobs(index, chances),
            Kind::Chat => {
                let served = self.served();
                let entry = |token: u32, logprob: Option<f32>| {
                    let bytes = served.tokenizer.token_bytes(token);
                    json!({"token": served.token_text(token), "logprob": logprob, "bytes": bytes})
                };
                let content = chances.iter().map(|chance| {
                    let top = chance.top.iter().map(|&(id, l)| entry(id, Some(l)));
                    let mut value = entry(chance.token, chance.logprob);
                    value["top_logprobs"] = top.collect();
                    value
                });
                json!({"content": content.collect::<Vec<_>>(), "refusal": null})
            }
        }
    }

    /// Tokens as texts with their `ln p`; the numbers of tokens and alternatives are an extension.
    fn text_logprobs(&mut self, index: usize, chances: &[Chance]) -> Value {
        let served = &self.app.models[self.model];
        let offset = &mut self.choices[index].offset;
        let (mut tokens, mut logprobs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
        let (mut offsets, mut ids, mut alternatives) = (Vec::new(), Vec::new(), Vec::new());
        for chance in chances {
            tokens.push(served.token_text(chance.token));
            logprobs.push(chance.logprob);
            ids.push(chance.token);
            offsets.push(*offset);
            let bytes = served.tokenizer.token_bytes(chance.token);
            // Every character is counted with its first byte.
            *offset += bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
            let alternative = |&(id, logprob): &(u32, f32)| json!({"id": id, "text": served.token_text(id), "logprob": logprob});
            alternatives.push(chance.top.iter().map(alternative).collect::<Vec<_>>());
            tops.push(chance.logprob.map(|logprob| {
                let mut top = serde_json::Map::new();
                // The likeliest comes last, so that it stays where two tokens are the same text.
                let own = (chance.token, logprob);
                let likeliest_last = chance.top.iter().rev();
                for &(token, logprob) in std::iter::once(&own).chain(likeliest_last) {
                    top.insert(served.token_text(token), json!(logprob));
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
