//! Who may ask: keys, and the pages of other origins that a browser may be made to send requests from.

use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header};
use std::net::IpAddr;

/// Paths that need no key: the page itself, which asks for one, and what a supervisor looks at.
const OPEN: [&str; 7] = [
    "/",
    "/app.css",
    "/app.js",
    "/run.js",
    "/icon.svg",
    "/health",
    "/ready",
];

/// Who may ask.
#[derive(Debug)]
pub(crate) struct Access {
    /// Hashes of the keys. Comparing hashes takes the same time wherever two keys differ, and hides their lengths.
    keys: Vec<blake3::Hash>,
    /// Whether the address can only be reached from this machine.
    is_loopback: bool,
}

impl Access {
    pub fn new(keys: &[String], ip: IpAddr) -> Self {
        Self {
            keys: keys
                .iter()
                .map(|key| blake3::hash(key.as_bytes()))
                .collect(),
            is_loopback: ip.is_loopback(),
        }
    }

    /// Checks the head of a request.
    ///
    /// # Errors
    /// If it comes from another origin's page, or has no key where one is needed.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        self.check_origin(headers)?;
        match self.keys.is_empty() || OPEN.contains(&path) || self.has_key(headers) {
            true => Ok(()),
            false => Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "Authorization: expected `Bearer KEY` with a key of this server, got none that fits",
                "set the key in your client, or OPENAI_API_KEY for OpenAI's",
            )),
        }
    }

    fn has_key(&self, headers: &HeaderMap) -> bool {
        let value = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let Some((scheme, key)) = value.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        let got = blake3::hash(key.trim_ascii());
        // Every key is compared, so that the time does not reveal which one matches.
        let fits = self
            .keys
            .iter()
            .fold(false, |fits, known| fits | (*known == got));
        fits & scheme.eq_ignore_ascii_case(b"bearer ")
    }

    /// A page of another origin cannot read answers, but could send requests, and a name that its owner points at this
    /// machine would make them its own. Browsers name the page's origin and the host that they believe to ask.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name| {
            headers
                .get(name)
                .map(|v: &axum::http::HeaderValue| v.to_str().unwrap_or("?"))
        };
        let host = text(header::HOST).unwrap_or_default();
        let refused = |message: String| {
            let help = "open the server's own page, or ask with a program instead of a page";
            Err(ApiError::new(StatusCode::FORBIDDEN, message, help))
        };
        if self.is_loopback && self.keys.is_empty() && !is_local_name(host) {
            let host = tokenformer_base::shown(host);
            return refused(format!(
                "Host: expected localhost or its address, got {host}"
            ));
        }
        match text(header::ORIGIN) {
            Some(origin) if origin.split_once("://").map(|(_, own)| own) != Some(host) => {
                let origin = tokenformer_base::shown(origin);
                refused(format!(
                    "Origin: expected this server's own page, got {origin}"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `host`, with a port or without, is a name of this machine that no other can have.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    axum::http::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    fn status(access: &Access, path: &str, list: &[(&'static str, &str)]) -> Option<u16> {
        access
            .check(path, &headers(list))
            .err()
            .map(|e| e.status.as_u16())
    }

    #[test]
    fn only_local_names_reach_a_local_server_without_keys() {
        let access = Access::new(&[], "127.0.0.1".parse().unwrap());
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "127.0.0.1",
        ] {
            assert_eq!(
                status(&access, "/v1/models", &[("host", host)]),
                None,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "10.0.0.1",
            "",
            "127.0.0.1.evil",
        ] {
            assert_eq!(
                status(&access, "/v1/models", &[("host", host)]),
                Some(403),
                "{host}"
            );
        }
        let host = ("host", "localhost:8080");
        for (origin, want) in [
            ("http://localhost:8080", None),
            ("http://localhost:9090", Some(403)),
            ("https://evil.example", Some(403)),
            ("null", Some(403)),
        ] {
            let got = status(&access, "/", &[host, ("origin", origin)]);
            assert_eq!(got, want, "{origin}");
        }
    }

    #[test]
    fn keys_open_what_is_not_public() {
        let keys = ["first".to_string(), "second".to_string()];
        let access = Access::new(&keys, "0.0.0.0".parse().unwrap());
        let host = ("host", "some.name");
        assert_eq!(status(&access, "/health", &[host]), None);
        assert_eq!(status(&access, "/v1/models", &[host]), Some(401));
        for (value, want) in [
            ("Bearer first", None),
            ("bearer second", None),
            ("Bearer firs", Some(401)),
            ("Bearer ", Some(401)),
            ("Basic first", Some(401)),
            ("first", Some(401)),
        ] {
            let got = status(&access, "/v1/models", &[host, ("authorization", value)]);
            assert_eq!(got, want, "{value}");
        }
    }
}
