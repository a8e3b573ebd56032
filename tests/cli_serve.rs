//! `serve` as a program: it answers as `generate` writes, shows the training of another process, and ends when asked to.
#![cfg(unix)]

mod common;

use common::{GROWTH, Lab, Ran, fail, forge, succeed};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that listens; what is left of it is killed.
struct Server {
    child: Option<Child>,
    address: String,
}

impl Server {
    fn start(lab: &Lab, flags: &[&str]) -> Self {
        let mut args = vec!["serve", "--bind", "127.0.0.1:0"];
        args.extend(flags);
        let mut command = lab.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").expect("its address");
        Self {
            address: address.into(),
            child: Some(child),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("a limit");
        stream
    }

    /// The status and the body of an answer.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect();
        let len = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {len}\r\n\r\n"
        );
        stream
            .write_all((head + body).as_bytes())
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.expect("a status"), body.into())
    }

    /// Sends SIGTERM, and waits for the end.
    fn end(mut self) -> Ran {
        let child = self.child.take().expect("it runs");
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("kill runs").success());
        child.wait_with_output().expect("a child").into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_training_of_another_process_is_shown_while_it_goes_on() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("run")).expect("a folder");
    let server = Server::start(&lab, &["--run", "run"]);
    let mut stream = server.connect();
    stream
        .write_all(b"GET /api/run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it reads");
    // More steps than any test waits for: the records that are seen come from a run that goes on.
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let long = ["--set", "train.steps=1000000", "--set", "eval.every=0"];
    let mut train = lab.train(&recipe, "run", &long);
    train.stdout(Stdio::null()).stderr(Stdio::null());
    let mut train = train.spawn().expect("the program starts");
    let lines = BufReader::new(stream).lines();
    let mut messages = lines.map_while(Result::ok).filter_map(|line| {
        let data = line.strip_prefix("data: ")?.to_string();
        serde_json::from_str::<Value>(&data).ok()
    });
    let (mut seen, mut steps) = (Vec::<Value>::new(), Vec::new());
    let has_grown = messages.any(|message| {
        if message["kind"] == "run" {
            steps.push(message["steps"].as_u64());
        }
        let records = message["records"].as_array().cloned().unwrap_or_default();
        seen.extend(records);
        let at = seen.iter().position(|record| record["kind"] == "grow");
        at.is_some_and(|at| seen[at..].iter().any(|r| r["kind"] == "train"))
    });
    let is_running = train.try_wait().expect("a child").is_none();
    let _ = train.kill();
    let _ = train.wait();
    assert!(has_grown, "{seen:?}");
    assert!(is_running, "the run was still going on");
    // The recipe came after the first look.
    assert_eq!(steps, [None, Some(1_000_000)]);
    let of_kind = |kind: &str| seen.iter().find(|record| record["kind"] == kind);
    let grow = of_kind("grow").expect("a growth");
    assert_eq!(grow["step"], 13);
    assert!(grow["params_after"].as_u64() > grow["params_before"].as_u64());
    assert!(of_kind("sample").is_some_and(|sample| sample["text"].is_string()));
    drop(messages);
    let ran = server.end();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
}

#[test]
fn a_server_answers_as_generate_writes_and_ends_when_asked_to() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &[]));
    let key = lab.file("keys", "a-long-random-text\n");
    let server = Server::start(&lab, &["--model", "m=run", "--api-key-file", &key]);
    let sent = json!({"model": "m", "prompt": "ka", "max_tokens": 20, "temperature": 0.9, "top_p": 0.9, "seed": 3});
    let (status, body) = server.ask("POST", "/v1/completions", "", &sent.to_string());
    assert_eq!(status, 401, "{body}");
    let headers = "Authorization: Bearer a-long-random-text\r\n";
    let (status, body) = server.ask("POST", "/v1/completions", headers, &sent.to_string());
    assert_eq!(status, 200, "{body}");
    let value: Value = serde_json::from_str(&body).expect("JSON");
    let text = value["choices"][0]["text"].as_str().expect("a text");
    let flags = [
        "generate",
        "--model",
        "run",
        "--prompt",
        "ka",
        "--tokens",
        "20",
        "--seed",
        "3",
        "--temperature",
        "0.9",
        "--top-p",
        "0.9",
    ];
    let alone = succeed(lab.command(&flags));
    assert_eq!(format!("ka{text}\n"), alone.out);
    // A request that has begun is answered after the server was asked to end.
    let mut last = server.connect();
    let long = json!({"prompt": "ka", "max_tokens": 30, "n": 100}).to_string();
    let len = long.len();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len}\r\n\r\n"
    );
    last.write_all((head + &long).as_bytes()).expect("it reads");
    let in_flight = |server: &Server| {
        let (_, metrics) = server.ask("GET", "/metrics", headers, "");
        metrics.contains("\ntokenformer_requests_in_flight 1\n")
    };
    while !in_flight(&server) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ran = server.end();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!ran.err.contains("a-long-random-text"), "{ran:#?}");
    let mut answer = String::new();
    last.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"index\":99"), "the last text: {answer}");
}

#[test]
fn a_model_that_fails_is_told_on_standard_error_and_not_without_end() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    succeed(lab.train(&recipe, "run", &["--set", "sample.tokens=0"]));
    forge(&lab, "broken", 200, f32::NAN);
    let server = Server::start(&lab, &["--model", "broken"]);
    let sent = json!({"prompt": "ka", "max_tokens": 5}).to_string();
    for _ in 0..30 {
        let (status, body) = server.ask("POST", "/v1/completions", "", &sent);
        assert_eq!(status, 500, "{body}");
        assert!(body.contains("not finite"), "{body}");
        assert!(body.contains("standard error"), "{body}");
    }
    let ran = server.end();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let told: Vec<&str> = (ran.err.lines())
        .filter(|line| line.contains("not finite"))
        .collect();
    assert_eq!(told.len(), 10, "{ran:#?}");
    let line = told[0];
    assert!(
        line.starts_with("error: broken: the logit of token"),
        "{line}"
    );
}

#[test]
fn what_cannot_be_served_is_refused() {
    let lab = Lab::empty();
    let dir = lab.path("none");
    let dir = common::text_of(&dir);
    let open = ["serve", "--run", ".", "--bind", "0.0.0.0:0"];
    fail(lab.command(&open), 2, &["--bind", "--allow-no-key"]);
    fail(
        lab.command(&["serve", "--run", dir]),
        2,
        &["--run", "a directory"],
    );
    fail(lab.command(&["serve", "--model", dir]), 1, &["none"]);
    let keys = lab.file("keys", " \n\n");
    let empty = ["serve", "--run", ".", "--api-key-file", &keys];
    fail(
        lab.command(&empty),
        2,
        &["--api-key-file", "a key in every line"],
    );
}
