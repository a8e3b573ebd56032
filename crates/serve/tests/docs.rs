//! The examples of `docs/serve.md` work as they stand there.

mod common;

use common::client::{Running, settings};
use common::served;

/// The path and the body of a `curl` line.
fn parts(line: &str) -> (&str, &str) {
    let rest = line.strip_prefix("curl http://127.0.0.1:8080").unwrap();
    match rest.split_once(" -d '") {
        Some((path, body)) => (path, body.strip_suffix('\'').unwrap()),
        None => (rest, ""),
    }
}

#[test]
fn every_example_is_answered() {
    let text = include_str!("../../../docs/serve.md");
    let server = Running::start(vec![served("a", 1)], settings());
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("curl ")) {
        let (path, body) = parts(line);
        let method = if body.is_empty() { "GET" } else { "POST" };
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let answer = server.ask(method, path, kind, body.as_bytes());
        assert_eq!(answer.status, 200, "{line}: {}", answer.body);
        if body.contains("\"stream\"") {
            assert!(
                answer.messages().last().unwrap()["usage"].is_object(),
                "{line}"
            );
        }
        seen.push(path);
    }
    for path in [
        "/v1/models",
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/metrics",
    ] {
        assert!(seen.contains(&path), "{path} has an example");
    }
    server.end();
}

#[test]
fn the_error_of_the_example_is_what_is_answered() {
    let text = include_str!("../../../docs/serve.md");
    let line = text
        .lines()
        .find(|line| line.starts_with("{\"error\""))
        .unwrap();
    let server = Running::start(vec![served("a", 1)], settings());
    let answer = server.post(
        "/v1/completions",
        &serde_json::json!({"prompt": "a", "stage": 7}),
    );
    assert_eq!(
        answer.json(),
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    );
    server.end();
}
