//! The page, whose files are part of the program.

use crate::http::App;
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// What the page may load: its own files, and nothing written into it.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = include_str!("../page/index.html");
const CSS: &str = include_str!("../page/app.css");
const APP: &str = include_str!("../page/app.js");
const RUN: &str = include_str!("../page/run.js");

pub(crate) fn routes() -> Router<Arc<App>> {
    let file = |kind: &'static str, text: &'static str| get(async move || answer(kind, text));
    Router::new()
        .route("/", file("text/html; charset=utf-8", HTML))
        .route("/app.css", file("text/css; charset=utf-8", CSS))
        .route("/app.js", file("text/javascript; charset=utf-8", APP))
        .route("/run.js", file("text/javascript; charset=utf-8", RUN))
}

fn answer(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
