//! Errors: those that keep a server from starting, and those that a request is answered with.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// An error that keeps the server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A model that cannot be served.
    #[error(
        "model {name}: cannot be served\n  expected: {expected}\n  got:      {got}\n  help:     `tokenformer inspect` describes a model"
    )]
    Model {
        /// Its name.
        name: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A setting that cannot be used.
    #[error(
        "{place}: not a possible value\n  expected: {expected}\n  got:      {got}\n  help:     {help}"
    )]
    Setting {
        /// The setting.
        place: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        help: String,
    },
    /// The system refuses.
    #[error("cannot {action}: {source}\n  help:     {help}")]
    Io {
        /// What was being done.
        action: String,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The answer to a request that cannot be served, in OpenAI's shape with a line of help.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What is wrong, what was expected, and what was found.
    pub message: String,
    /// The field of the request.
    pub param: Option<String>,
    /// What to do.
    pub help: String,
}

impl ApiError {
    /// An error of any kind.
    pub fn new(status: StatusCode, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            help: help.into(),
        }
    }

    /// A field whose value cannot be used.
    pub fn field(
        param: &str,
        expected: impl AsRef<str>,
        got: impl AsRef<str>,
        help: impl Into<String>,
    ) -> Self {
        let (expected, got) = (expected.as_ref(), got.as_ref());
        let message = format!("{param}: not a possible value; expected {expected}, got {got}");
        Self {
            param: Some(param.into()),
            ..Self::new(StatusCode::BAD_REQUEST, message, help)
        }
    }

    /// Too much to do; the client may ask again.
    pub fn busy(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(
            status,
            message,
            "ask again after the seconds of Retry-After",
        )
    }

    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        )
    }

    /// The body.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.status.as_u16(),
            "help": self.help,
        }})
    }
}
