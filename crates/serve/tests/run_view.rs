//! A run over a socket, while its files grow.

mod common;

use common::client::{Running, settings};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};

#[test]
fn records_arrive_while_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    std::fs::write(&path, "{\"kind\":\"train\",\"step\":1}\n").unwrap();
    let mut settings = settings();
    settings.run = Some(dir.path().into());
    let server = Running::start(vec![], settings);
    assert_eq!(
        server.get("/v1/models").json()["data"],
        serde_json::json!([])
    );
    assert_eq!(server.get("/api/structure").json()["run"], true);
    let mut stream = server.connect();
    stream
        .write_all(b"GET /api/run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut wait_for = |part: &str| {
        let line = lines.find(|line| line.contains(part));
        assert!(line.is_some(), "{part}");
    };
    wait_for("\"kind\":\"run\"");
    wait_for("\"step\":1");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"kind\":\"grow\",\"step\":2}\n").unwrap();
    wait_for("\"step\":2");
    wait_for("\"kind\":\"alive\"");
    server.end();
}
