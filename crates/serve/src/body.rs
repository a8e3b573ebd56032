//! The bodies of requests, within limits of size, memory and time.

use crate::error::ApiError;
use crate::http::App;
use crate::stream::Permit;
use axum::body::Body;
use axum::http::StatusCode;
use hyper::body::Body as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::SemaphorePermit;

/// If a body is too long, at most this many bytes are read and discarded, so that the client can read why it was refused.
const MOST_DISCARDED_BYTES: usize = 64 << 20;
/// First bytes of each body that do not count against the shared limit. Most requests are no longer, so large bodies never keep
/// them out; the number of connections bounds their sum.
const SMALL_BYTES: usize = 64 << 10;

/// Reads a body, and takes a place for its request. The place is taken last, so that a body without an end blocks no other request.
///
/// # Errors
/// If the body is too long or late, there is no room or place for it, or the server is ending.
pub(crate) async fn receive(app: &Arc<App>, body: Body) -> Result<(Vec<u8>, Permit), ApiError> {
    Permit::ensure_open(app)?;
    let bytes = read(app, body).await?;
    Ok((bytes, Permit::take(app)?))
}

/// What there is of a body.
struct Part<'a> {
    app: &'a App,
    bytes: Vec<u8>,
    /// Its room among the bodies that are being read.
    room: Option<SemaphorePermit<'a>>,
}

impl Part<'_> {
    fn add(&mut self, data: &[u8]) -> Result<(), ApiError> {
        let most = self.app.limits.body_bytes;
        let len = self.bytes.len() + data.len();
        if len > most {
            let message = format!("the body: expected at most {most} bytes, got more");
            let help = "send fewer or shorter prompts at a time";
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message, help));
        }
        let has = self.room.as_ref().map_or(0, SemaphorePermit::num_permits);
        let needed = len.saturating_sub(SMALL_BYTES) - has;
        let room = u32::try_from(needed).ok();
        let room = room.and_then(|needed| self.app.room.try_acquire_many(needed).ok());
        let Some(room) = room else {
            let message = "the body: other large ones are being received, as many as are at a time";
            return Err(ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message));
        };
        match &mut self.room {
            Some(own) => own.merge(room),
            none => *none = Some(room),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// The bytes of a body.
async fn read(app: &App, body: Body) -> Result<Vec<u8>, ApiError> {
    let read = async {
        let mut part = Ok(Part {
            app,
            bytes: Vec::new(),
            room: None,
        });
        let mut body = pin!(body);
        let mut len = 0usize;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|error| {
                let message = format!("the body ended early: {error}");
                let help = "send all of Content-Length";
                ApiError::new(StatusCode::BAD_REQUEST, message, help)
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            len += data.len();
            match &mut part {
                Ok(some) => {
                    // What was refused is given back at once.
                    if let Err(error) = some.add(&data) {
                        part = Err(error);
                    }
                }
                Err(_) if len > MOST_DISCARDED_BYTES => break,
                Err(_) => {}
            }
        }
        part.map(|part| part.bytes)
    };
    match tokio::time::timeout(app.limits.body, read).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = app.limits.body.as_secs_f32();
            let message = format!("the body: expected within {seconds} s, got only a part of it");
            let help = "send it at once";
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message, help))
        }
    }
}
