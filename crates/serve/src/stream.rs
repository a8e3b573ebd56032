//! Answers that are sent in pieces: streams of server-sent events, and long texts.

use crate::answer::Answer;
use crate::error::ApiError;
use crate::http::{App, JSON_HEADERS};
use crate::job::Event;
use crate::metrics::add;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

/// A place among the requests that are answered at a time.
#[derive(Debug)]
pub(crate) struct Permit {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    /// Checks that requests are still taken.
    ///
    /// # Errors
    /// If the server is ending.
    pub fn ensure_open(app: &App) -> Result<(), ApiError> {
        if app.is_draining.load(Ordering::Relaxed) {
            let message = "the server is ending; it only finishes what it has begun";
            return Err(ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        Ok(())
    }

    /// Takes a place.
    ///
    /// # Errors
    /// If none is free, or the server is ending.
    pub fn take(app: &Arc<App>) -> Result<Self, ApiError> {
        Self::ensure_open(app)?;
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
pub(crate) fn message(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// The body of a stream: polls for one piece of text after another until there is none.
struct Pieces<F>(F);

impl<F: FnMut(&mut Context<'_>) -> Poll<Option<String>> + Unpin> hyper::body::Body for Pieces<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
        (self.0)(cx).map(|text| text.map(frame))
    }
}

/// Bytes of the pieces of a whole answer: as many as a connection buffers before it asks for more.
const PIECE_BYTES: usize = 64 << 10;

/// The body of a whole answer, which keeps its place until the connection has taken it.
struct Whole {
    rest: Bytes,
    _permit: Permit,
}

impl hyper::body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(len);
        Poll::Ready((len > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A response of JSON, which keeps its place until its client has taken it.
pub(crate) fn whole(json: String, permit: Permit) -> Response {
    let body = Whole {
        rest: Bytes::from(json),
        _permit: permit,
    };
    (JSON_HEADERS, Body::new(body)).into_response()
}

/// A response that streams the messages of `poll`.
pub(crate) fn event_stream<F>(poll: F) -> Response
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<String>> + Unpin + Send + 'static,
{
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::new(Pieces(poll))).into_response()
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
        let usage = usage.map(|usage| message(&usage));
        usage.unwrap_or_default() + "data: [DONE]\n\n"
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            let text = match ready!(self.events.poll_recv(cx)) {
                Some((index, event)) => match self.answer.stream(index, event) {
                    Ok(messages) => {
                        let mut text: String = messages.iter().map(message).collect();
                        if self.answer.is_complete() {
                            text += &self.end();
                        }
                        text
                    }
                    Err(error) => {
                        self.is_over = true;
                        message(&error.body())
                    }
                },
                None => self.end(),
            };
            if !text.is_empty() {
                return Poll::Ready(Some(text));
            }
        }
    }
}

impl IntoResponse for TextStream {
    fn into_response(mut self) -> Response {
        event_stream(move |cx| self.poll(cx))
    }
}
