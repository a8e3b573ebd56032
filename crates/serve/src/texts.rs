//! `/v1/completions` and `/v1/chat/completions`.

use crate::answer::{Answer, Beginning, Kind, PromptUse};
use crate::body::receive;
use crate::error::ApiError;
use crate::http::{App, aside, json_text};
use crate::job::{Event, Job};
use crate::metrics::add;
use crate::models::Served;
use crate::prompt::{Prompt, Prompts};
use crate::request::{
    ChatRequest, Common, CompletionRequest, Content, MOST_ALTERNATIVES, MOST_TEXTS, Message,
    count_of, parse,
};
use crate::scheduler::Command;
use crate::stream::{TextStream, whole};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokenformer_core::generate::Sampling;
use tokenformer_data::Losses;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// New tokens of a completion that names no number, as in OpenAI's interface.
const DEFAULT_NEW_TOKENS: usize = 16;

/// A request, ready for the models.
struct Ready {
    jobs: Vec<Job>,
    answer: Answer,
    events: UnboundedReceiver<(usize, Event)>,
    is_stream: bool,
    include_usage: bool,
}

/// What is asked of all texts of a request.
struct Wish {
    kind: Kind,
    common: Common,
    echo: bool,
    alternatives: Option<usize>,
    default_new_tokens: usize,
}

impl Wish {
    /// Refuses probabilities whose answer would take too much memory.
    fn ensure_reportable(&self, reported: usize, most: usize) -> Result<(), ApiError> {
        if reported <= most {
            return Ok(());
        }
        let param = match self.kind {
            Kind::Text => "logprobs",
            Kind::Chat => "top_logprobs",
        };
        let expected = format!("at most {most} probabilities in the answer");
        let got = format!("{reported} or more: texts x tokens x (alternatives + 1)");
        let help = "ask for fewer texts at a time, a smaller max_tokens, or fewer alternatives";
        Err(ApiError::field(param, expected, got, help))
    }
}

/// Continues texts.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Response, ApiError> {
    answer(&app, body, prepare_texts).await
}

/// Answers a chat.
pub(crate) async fn chat(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    answer(&app, body, prepare_chat).await
}

async fn answer(
    app: &Arc<App>,
    body: Body,
    prepare: fn(&Arc<App>, &[u8]) -> Result<Ready, ApiError>,
) -> Result<Response, ApiError> {
    let (body, permit) = receive(app, body).await?;
    // Long prompts take a while to encode.
    let (mut ready, permit) = aside(app, permit, move |app| prepare(app, &body)).await?;
    add(&app.metrics.requests, 1);
    let command = Command::Continue(std::mem::take(&mut ready.jobs));
    app.commands.send(command).map_err(|_| app.broken())?;
    let Ready {
        answer,
        events,
        is_stream,
        include_usage,
        ..
    } = ready;
    if is_stream {
        let stream = TextStream::new(answer, events, include_usage, permit);
        return Ok(stream.into_response());
    }
    let all = gather(events).await;
    let work = move |_: &Arc<App>| answer.whole(all).map(|value| json_text(&value));
    let (json, permit) = aside(app, permit, work).await?;
    Ok(whole(json, permit))
}

/// All events of a request, or those up to the first that makes it fail. The channel is closed then, which ends its other texts.
async fn gather(mut events: UnboundedReceiver<(usize, Event)>) -> Vec<(usize, Event)> {
    let mut all = Vec::new();
    // The channel ends when the last text has ended, because each holds a sender.
    while let Some((index, event)) = events.recv().await {
        let has_failed = matches!(event, Event::Busy | Event::Failed(_));
        all.push((index, event));
        if has_failed {
            break;
        }
    }
    all
}

fn prepare_texts(app: &Arc<App>, body: &[u8]) -> Result<Ready, ApiError> {
    let request: CompletionRequest = parse(body)?;
    let common = request.common()?;
    if let Some(best_of) = request.best_of
        && best_of != request.n.unwrap_or(1)
    {
        let help = "ask for n texts with logprobs, and choose yourself";
        let got = best_of.to_string();
        return Err(ApiError::field("best_of", "the number n", got, help));
    }
    if request
        .suffix
        .as_ref()
        .is_some_and(|suffix| !suffix.is_empty())
    {
        let help = "leave it out: these models only continue a text";
        return Err(ApiError::field("suffix", "none", "a text", help));
    }
    let alternatives = match request.logprobs {
        None => None,
        Some(count) => Some(count_of("logprobs", count, 0, MOST_ALTERNATIVES)?),
    };
    let wish = Wish {
        kind: Kind::Text,
        echo: request.echo.unwrap_or(false),
        alternatives,
        default_new_tokens: DEFAULT_NEW_TOKENS,
        common,
    };
    let model = app.find(&wish.common.model)?;
    let Prompts(prompts) = (request.prompt).unwrap_or(Prompts(vec![Prompt::Text(String::new())]));
    if prompts.is_empty() {
        let expected = "at least one text";
        return Err(ApiError::field(
            "prompt",
            expected,
            "an empty list",
            "\"\" starts a document",
        ));
    }
    ready(app, model, prompts, wish)
}

fn prepare_chat(app: &Arc<App>, body: &[u8]) -> Result<Ready, ApiError> {
    let request: ChatRequest = parse(body)?;
    let mut common = request.common()?;
    if let Some(most) = request.max_completion_tokens {
        common.max_tokens = Some(usize::try_from(most).unwrap_or(usize::MAX));
    }
    common.stops.push("\nUser:".into());
    let alternatives = match (request.logprobs, request.top_logprobs) {
        (Some(true), count) => Some(count_of(
            "top_logprobs",
            count.unwrap_or(0),
            0,
            MOST_ALTERNATIVES,
        )?),
        (_, Some(count)) if count > 0 => {
            let help = "set logprobs to true";
            return Err(ApiError::field(
                "top_logprobs",
                "0 without logprobs",
                count.to_string(),
                help,
            ));
        }
        _ => None,
    };
    let model = app.find(&common.model)?;
    let prompt = Prompt::Text(chat_text(&request.messages)?);
    let wish = Wish {
        kind: Kind::Chat,
        common,
        echo: false,
        alternatives,
        default_new_tokens: app.models[model].model.context(),
    };
    ready(app, model, vec![prompt], wish)
}

/// The template: what a system says comes first by itself, every other message is a line with the speaker's name, and the
/// model continues after `Assistant:`.
fn chat_text(messages: &[Message]) -> Result<String, ApiError> {
    let mut text = String::new();
    for (i, message) in messages.iter().enumerate() {
        let said = match &message.content {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => {
                if let Some(other) = parts.iter().find(|part| part.kind != "text") {
                    let param = format!("messages[{i}].content");
                    let got = tokenformer_base::shown(&other.kind);
                    let help = "these models read nothing but text";
                    return Err(ApiError::field(&param, "parts of type text", got, help));
                }
                parts.iter().map(|part| part.text.as_str()).collect()
            }
        };
        text += &match message.role.as_str() {
            "system" | "developer" => format!("{said}\n\n"),
            "user" => format!("User: {said}\n"),
            "assistant" => format!("Assistant: {said}\n"),
            other => {
                let param = format!("messages[{i}].role");
                let expected = "system, developer, user or assistant";
                let got = tokenformer_base::shown(other);
                return Err(ApiError::field(
                    &param,
                    expected,
                    got,
                    "tools are not supported",
                ));
            }
        };
    }
    if messages.is_empty() {
        let help = "for example [{\"role\": \"user\", \"content\": \"Hello\"}]";
        return Err(ApiError::field("messages", "at least one", "none", help));
    }
    Ok(text + "Assistant:")
}

/// The jobs of a request, and its answer in the making.
fn ready(
    app: &Arc<App>,
    model: usize,
    prompts: Vec<Prompt>,
    wish: Wish,
) -> Result<Ready, ApiError> {
    let Wish { common, .. } = &wish;
    let served = &app.models[model];
    if prompts.len() * common.n > MOST_TEXTS {
        let (expected, got) = (
            format!("at most {MOST_TEXTS} texts in all"),
            prompts.len() * common.n,
        );
        let help = "send fewer prompts at a time";
        return Err(ApiError::field("prompt", expected, got.to_string(), help));
    }
    let newest_stage = app.stage(model, common.stage)?;
    let vocab = served.model.vocab();
    if let Some((token, _)) = common
        .bias
        .iter()
        .find(|(token, _)| *token as usize >= vocab)
    {
        let expected = format!("token numbers below {vocab}");
        let help = "/tokenize tells the numbers of tokens";
        return Err(ApiError::field(
            "logit_bias",
            expected,
            token.to_string(),
            help,
        ));
    }
    let max_tokens = common.max_tokens.unwrap_or(wish.default_new_tokens);
    let (sender, events) = unbounded_channel();
    let has_logprobs = wish.alternatives.is_some();
    let mut losses = Losses::default();
    let (mut jobs, mut beginnings, mut prompt_tokens) = (Vec::new(), Vec::new(), 0);
    let mut reported = 0;
    for prompt in prompts {
        let encoded = encode(served, prompt, max_tokens, common.truncate)?;
        let tokens = encoded.tokens;
        app.ensure_memory(model, tokens.len(), max_tokens)?;
        let new_tokens = max_tokens.min(served.model.context() - tokens.len() + 1);
        let scored_tokens = new_tokens + if wish.echo { tokens.len() } else { 0 };
        reported += common.n * scored_tokens * wish.alternatives.map_or(0, |count| count + 1);
        wish.ensure_reportable(reported, app.limits.logprobs)?;
        prompt_tokens += tokens.len();
        losses += encoded.losses;
        // The tokens may lose characters, so a text is echoed as it came.
        let text = encoded.text;
        let echoed = wish.echo.then(|| match text {
            Some(text) => text,
            None => served.tokenizer.decode(&tokens),
        });
        let beginning = Beginning::new(served, &tokens, echoed, has_logprobs);
        for i in 0..common.n {
            beginnings.push(beginning.clone());
            jobs.push(Job {
                model,
                newest_stage,
                prompt: tokens.clone(),
                max_tokens,
                sampling: Sampling {
                    seed: common.sampling.seed.wrapping_add(i as u64),
                    ..common.sampling.clone()
                },
                bias: common.bias.clone(),
                stops: common.stops.clone(),
                alternatives: wish.alternatives,
                scores_prompt: wish.echo && has_logprobs,
                index: jobs.len(),
                events: sender.clone(),
            });
        }
    }
    Ok(Ready {
        jobs,
        answer: Answer::new(
            app,
            model,
            wish.kind,
            beginnings,
            has_logprobs,
            PromptUse {
                tokens: prompt_tokens,
                losses,
            },
        ),
        events,
        is_stream: common.stream,
        include_usage: common.include_usage,
    })
}

/// A prompt for the model.
struct Encoded {
    /// At least one token, at most as many as the context.
    tokens: Vec<u32>,
    /// The text, if the prompt was one and is whole.
    text: Option<String>,
    /// What the tokens lose of the text.
    losses: Losses,
}

/// The tokens of a prompt.
fn encode(
    served: &Served,
    prompt: Prompt,
    max_tokens: usize,
    truncate: bool,
) -> Result<Encoded, ApiError> {
    let bad = |message: String| {
        let help = "docs/serve.md says what prompts can be";
        ApiError {
            param: Some("prompt".into()),
            ..ApiError::new(StatusCode::BAD_REQUEST, message, help)
        }
    };
    let (mut tokens, losses, mut text) = match prompt {
        Prompt::Text(text) => {
            let encoded = served.tokenizer.encode_counted(&text);
            let (tokens, losses) = encoded.map_err(|error| bad(format!("prompt: {error}")))?;
            (tokens, losses, Some(text))
        }
        Prompt::Tokens(tokens) => (tokens, Losses::default(), None),
    };
    if tokens.is_empty() {
        tokens.push(served.start_token());
    }
    let checked = served.model.check_tokens(&tokens);
    checked.map_err(|error| bad(format!("prompt: {error}")))?;
    let context = served.model.context();
    if tokens.len() > context {
        if !truncate {
            let expected = format!("at most {context} tokens, the model's context");
            let got = format!("{} tokens", tokens.len());
            let help = "shorten it, or set truncate to true to leave out its beginning";
            return Err(ApiError::field("prompt", expected, got, help));
        }
        // At least half of the context stays for the prompt, for any `max_tokens`.
        let kept = context - max_tokens.min(context / 2);
        tokens.drain(..tokens.len() - kept);
        text = None;
    }
    Ok(Encoded {
        tokens,
        text,
        losses,
    })
}
