//! Streams of server-sent events.

use crate::answer::Answer;
use crate::error::ApiError;
use crate::http::App;
use crate::job::Event;
use crate::metrics::add;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

/// A place among the requests that are answered at a time.
#[derive(Debug)]
pub(crate) struct Permit {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    /// Takes a place.
    ///
    /// # Errors
    /// If none is free, or the server is ending.
    pub fn take(app: &Arc<App>) -> Result<Self, ApiError> {
        if app.is_draining.load(Ordering::Relaxed) {
            let message = "the server is ending; it only finishes what it has begun";
            return Err(ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        match Arc::clone(&app.places).try_acquire_owned() {
            Ok(permit) => {
                add(&app.metrics.in_flight, 1);
                Ok(Self {
                    app: Arc::clone(app),
                    _permit: permit,
                })
            }
            Err(_) => {
                let most = app.limits.requests;
                let message =
                    format!("{most} requests are being answered, as many as are at a time");
                Err(ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message))
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.app.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A message of a stream.
pub(crate) fn message(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

/// A response that streams `body`.
pub(crate) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// The events of an answer as messages. Dropping it, as happens when the client leaves, closes the channel, and the
/// texts are dropped.
pub(crate) struct TextStream {
    answer: Answer,
    events: UnboundedReceiver<(usize, Event)>,
    include_usage: bool,
    is_over: bool,
    _permit: Permit,
}

impl TextStream {
    pub fn new(
        answer: Answer,
        events: UnboundedReceiver<(usize, Event)>,
        include_usage: bool,
        permit: Permit,
    ) -> Self {
        Self {
            answer,
            events,
            include_usage,
            is_over: false,
            _permit: permit,
        }
    }

    fn end(&mut self) -> String {
        self.is_over = true;
        let usage = self.include_usage.then(|| self.answer.stream_usage());
        let usage = usage.map(|usage| format!("data: {usage}\n\n"));
        usage.unwrap_or_default() + "data: [DONE]\n\n"
    }
}

impl IntoResponse for TextStream {
    fn into_response(self) -> Response {
        event_stream(Body::new(self))
    }
}

impl hyper::body::Body for TextStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = &mut *self;
        loop {
            if stream.is_over {
                return Poll::Ready(None);
            }
            let text = match std::task::ready!(stream.events.poll_recv(cx)) {
                Some((index, event)) => match stream.answer.stream(index, event) {
                    Ok(messages) => {
                        let mut text: String =
                            messages.iter().map(|m| format!("data: {m}\n\n")).collect();
                        if stream.answer.is_complete() {
                            text += &stream.end();
                        }
                        text
                    }
                    Err(error) => {
                        stream.is_over = true;
                        format!("data: {}\n\n", error.body())
                    }
                },
                None => stream.end(),
            };
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))));
            }
        }
    }
}
