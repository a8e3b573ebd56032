//! The routes, and the checks before each of them.

use crate::access::Access;
use crate::body::receive;
use crate::error::ApiError;
use crate::metrics::{Metrics, add};
use crate::models::Served;
use crate::request::{DetokenizeRequest, FiredRequest, TokenizeRequest, parse};
use crate::scheduler::Command;
use crate::stream::{Permit, whole};
use crate::{page, run_view, texts};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokenformer_data::{Losses, Tokenizer};
use tokio::sync::{Semaphore, oneshot};

/// Limits of what comes from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetLimits {
    /// Open connections.
    pub connections: usize,
    /// Requests for texts that are answered at a time.
    pub requests: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read, beyond the first 64 KiB of each.
    pub unfinished_bytes: usize,
    /// Probabilities that an answer reports: of every token and of each of its alternatives. One takes up to 2 kB until its
    /// answer is written.
    pub logprobs: usize,
    /// How long the head of a request may take, and a connection may be idle.
    pub head: Duration,
    /// How long a body may take.
    pub body: Duration,
    /// How long a client may take nothing of its answer.
    pub write: Duration,
    /// How long a connection beyond the limit stays open for its client to read that it is refused.
    pub refusal: Duration,
    /// How long requests may take to end after the server was asked to.
    pub drain: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            requests: 64,
            body_bytes: 2 << 20,
            unfinished_bytes: 128 << 20,
            logprobs: 1 << 17,
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(60),
            refusal: Duration::from_millis(250),
            drain: Duration::from_secs(60),
        }
    }
}

/// Everything that requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub models: Arc<Vec<Served>>,
    pub commands: Sender<Command>,
    pub metrics: Arc<Metrics>,
    pub access: Access,
    pub limits: NetLimits,
    pub cache_bytes: usize,
    pub places: Arc<Semaphore>,
    /// Bytes that bodies which are being read may still take.
    pub room: Semaphore,
    pub is_draining: AtomicBool,
    pub run: Option<PathBuf>,
}

impl App {
    /// The number of the model with this name; without a name, of the first.
    pub fn find(&self, name: &str) -> Result<usize, ApiError> {
        let found = match name {
            "" => self.models.first().map(|_| 0),
            name => self.models.iter().position(|served| served.name == name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|m| m.name.as_str()).collect();
            let message = format!(
                "model: there is none of this name; expected {}, got {}",
                if names.is_empty() {
                    "none: this server shows a run only".into()
                } else {
                    names.join(", ")
                },
                tokenformer_base::shown(name)
            );
            ApiError {
                param: Some("model".into()),
                ..ApiError::new(
                    StatusCode::NOT_FOUND,
                    message,
                    "/v1/models lists the models",
                )
            }
        })
    }

    /// The newest stage of birth that a request for the first `count` stages computes with.
    pub fn stage(&self, model: usize, count: Option<usize>) -> Result<Option<u32>, ApiError> {
        let Some(count) = count else { return Ok(None) };
        self.models[model].until(count).map_err(|expected| {
            let help = "/v1/models lists the stages of each model";
            ApiError::field("stage", expected, count.to_string(), help)
        })
    }

    /// Refuses a text whose keys and values could never be held.
    pub fn ensure_memory(&self, model: usize, prompt: usize, new: usize) -> Result<(), ApiError> {
        let served = &self.models[model];
        let positions = prompt.saturating_add(new).min(served.model.context());
        let needed = positions * served.position_bytes();
        if needed <= self.cache_bytes {
            return Ok(());
        }
        let expected = format!(
            "a text whose keys and values fit in {} bytes",
            self.cache_bytes
        );
        let help = "ask for fewer tokens, or start the server with a larger --cache-mib";
        Err(ApiError::field(
            "max_tokens",
            expected,
            format!("{needed} bytes"),
            help,
        ))
    }

    /// The error of a server whose thread of models is gone.
    pub fn broken(&self) -> ApiError {
        let help = "start the server again; its standard error says what happened";
        let message = "the thread that computes has ended";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message, help)
    }
}

/// All routes.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/v1/completions", post(texts::completions))
        .route("/v1/chat/completions", post(texts::chat))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/api/structure", get(structure))
        .route("/api/fired", post(fired))
        .route("/api/run", get(run_view::events))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(page::routes())
        .fallback(|| async {
            let help = "docs/serve.md lists the paths";
            ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path", help)
        })
        .method_not_allowed_fallback(|| async {
            let message = "this path is not for this method";
            let help = "docs/serve.md lists the paths with their methods";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message, help)
        })
        .layer(from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

/// Checks who asks, counts the errors, and adds the headers that every answer has.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let checked = app.access.check(request.uri().path(), request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        add(&app.metrics.refused, 1);
    }
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        let headers = response.headers_mut();
        if self.is_temporary() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Headers of a JSON answer, which must not be cached.
pub(crate) const JSON_HEADERS: [(HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "application/json"),
    (header::CACHE_CONTROL, "no-store"),
];

/// A short JSON answer.
fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, JSON_HEADERS, value.to_string()).into_response()
}

fn model_entry(served: &Served) -> Value {
    let stages = served.stages.iter().enumerate().map(|(i, stage)| {
        json!({"stage": i + 1, "params": stage.params, "flops_per_token": stage.flops})
    });
    json!({
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "tokenformer",
        "max_model_len": served.model.context(),
        "params": served.config.params(),
        "vocab": served.config.vocab,
        "stages": stages.collect::<Vec<_>>(),
    })
}

async fn models(State(app): State<Arc<App>>) -> Response {
    let list: Vec<Value> = app.models.iter().map(model_entry).collect();
    json_response(StatusCode::OK, &json!({"object": "list", "data": list}))
}

async fn model(
    State(app): State<Arc<App>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Response, ApiError> {
    let found = app.find(&name)?;
    Ok(json_response(
        StatusCode::OK,
        &model_entry(&app.models[found]),
    ))
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    match app.is_draining.load(Ordering::Relaxed) {
        false => Ok("ready\n"),
        true => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(ApiError::busy(status, "the server is ending"))
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, app.metrics.text()).into_response()
}

/// Runs work that takes a while on another thread. The place of the request goes along, so that the work of a client who
/// has left counts until it is done.
pub(crate) async fn aside<T: Send + 'static>(
    app: &Arc<App>,
    permit: Permit,
    work: impl FnOnce(&Arc<App>) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Permit), ApiError> {
    let for_thread = Arc::clone(app);
    let work = move || work(&for_thread).map(|made| (made, permit));
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| {
        let help = "the server's standard error says what happened";
        let message = "the work on this request has failed";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message, help)
    })?
}

/// The answer of `/tokenize`.
#[derive(Serialize)]
struct Tokenized<'a> {
    count: usize,
    max_model_len: usize,
    tokens: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_losses: Option<Losses>,
}

async fn tokenize(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    const MOST_TEXTS: usize = 4096;
    let (body, permit) = receive(&app, body).await?;
    let work = move |app: &Arc<App>| {
        let request: TokenizeRequest = parse(&body)?;
        let served = &app.models[app.find(request.model.as_deref().unwrap_or_default())?];
        let encoded = served.tokenizer.encode_counted(&request.prompt);
        let (tokens, losses) = encoded.map_err(|error| {
            let help = "the model's tokenizer cannot encode this text";
            ApiError::new(StatusCode::BAD_REQUEST, format!("prompt: {error}"), help)
        })?;
        let texts = || tokens.iter().map(|&token| served.token_text(token));
        Ok(json_text(&Tokenized {
            count: tokens.len(),
            max_model_len: served.model.context(),
            texts: (tokens.len() <= MOST_TEXTS).then(|| texts().collect()),
            tokens: &tokens,
            prompt_losses: (losses.characters() > 0).then_some(losses),
        }))
    };
    let (json, permit) = aside(&app, permit, work).await?;
    Ok(whole(json, permit))
}

/// The answer of `/detokenize`.
#[derive(Serialize)]
struct Detokenized {
    prompt: String,
}

async fn detokenize(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    let (body, permit) = receive(&app, body).await?;
    let work = move |app: &Arc<App>| {
        let request: DetokenizeRequest = parse(&body)?;
        let served = &app.models[app.find(request.model.as_deref().unwrap_or_default())?];
        let prompt = decode(&served.tokenizer, &request.tokens, app.limits.body_bytes)?;
        Ok(json_text(&Detokenized { prompt }))
    };
    let (json, permit) = aside(&app, permit, work).await?;
    Ok(whole(json, permit))
}

/// The text of tokens, if it could be sent back: a token can stand for a hundred times the bytes of its number.
fn decode(tokenizer: &Tokenizer, tokens: &[u32], most_bytes: usize) -> Result<String, ApiError> {
    let mut stream = tokenizer.decode_stream();
    let mut text = String::new();
    for &token in tokens {
        text += &stream.push(token);
        if text.len() > most_bytes {
            let expected = format!("those of a text of at most {most_bytes} bytes");
            let help = "send fewer tokens at a time";
            return Err(ApiError::field("tokens", expected, "more", help));
        }
    }
    Ok(text + &stream.finish())
}

/// A value as JSON.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    // Numbers and texts under fixed names: there is nothing that JSON could not hold.
    serde_json::to_string(value).unwrap_or_default()
}

/// The configurations of all models, for the picture of their structure.
async fn structure(State(app): State<Arc<App>>) -> Response {
    let models = app.models.iter().map(|served| {
        let mut entry = model_entry(served);
        entry["config"] = json!(served.config);
        entry["start_token"] = json!(served.start_token());
        entry["born"] = served.stages.iter().map(|stage| stage.born).collect();
        entry
    });
    let value = json!({"models": models.collect::<Vec<_>>(), "run": app.run.is_some()});
    json_response(StatusCode::OK, &value)
}

/// Which parameter tokens a position uses: for each site the shares of the stages and the tokens with the largest
/// weights.
async fn fired(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    const MOST_TOKENS: usize = 8;
    let (body, permit) = receive(&app, body).await?;
    let request: FiredRequest = parse(&body)?;
    let model = app.find(request.model.as_deref().unwrap_or_default())?;
    let newest_stage = app.stage(model, request.stage)?;
    let (context, got) = (app.models[model].model.context(), request.tokens.len());
    if !(1..=context).contains(&got) {
        let expected = format!("1 to {context} tokens");
        let help = "leave out the beginning of the text";
        return Err(ApiError::field("tokens", expected, got.to_string(), help));
    }
    let (answer, fired) = oneshot::channel();
    let command = Command::TokenWeights {
        model,
        newest_stage,
        tokens: request.tokens,
        answer,
    };
    app.commands.send(command).map_err(|_| app.broken())?;
    let fired = fired.await.map_err(|_| app.broken())?.map_err(|message| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            message,
            "/tokenize tells the tokens of a text",
        )
    })?;
    let number = |born: u32| app.models[model].stages.iter().position(|s| s.born == born);
    let sites = fired.iter().map(|site| {
        let total: f32 = site.weights.iter().map(|w| w.abs()).sum();
        let mut shares = vec![0.0f32; app.models[model].stages.len()];
        for (weight, &born) in site.weights.iter().zip(&site.stages) {
            if let Some(at) = number(born) {
                shares[at] += weight.abs() / total.max(f32::MIN_POSITIVE);
            }
        }
        let mut order: Vec<usize> = (0..site.weights.len()).collect();
        order.sort_by(|&a, &b| site.weights[b].abs().total_cmp(&site.weights[a].abs()));
        let top = order.into_iter().take(MOST_TOKENS).map(|token| {
            let stage = number(site.stages[token]).map(|at| at + 1);
            json!({"token": token, "stage": stage, "weight": site.weights[token]})
        });
        json!({
            "block": site.block,
            "site": site.kind.name(),
            "tokens": site.weights.len(),
            "stage_shares": shares,
            "top": top.collect::<Vec<_>>(),
        })
    });
    let sites: Vec<Value> = sites.collect();
    Ok(whole(json_text(&json!({"sites": sites})), permit))
}
