//! What a client can do wrong, or on purpose: clear answers, bounded memory, and no effect on other clients.

mod common;

use common::client::{Answer, Running, read, settings};
use common::served;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tokenformer_serve::{Error, NetLimits, Server, Settings};

fn start(change: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = settings();
    change(&mut settings);
    Running::start(vec![served("a", 1)], settings)
}

/// Checks that an answer is an error in OpenAI's shape, with advice.
fn ensure_error(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = answer.json()["error"].clone();
    for field in ["message", "type", "help"] {
        assert!(
            error[field].as_str().is_some_and(|s| !s.is_empty()),
            "{error}"
        );
    }
    assert!(error["message"].as_str().unwrap().len() < 2000, "{error}");
    error
}

#[test]
fn bodies_that_cannot_be_used_are_explained() {
    let server = start(|_| {});
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep_prompt = [b"{\"prompt\": ".to_vec(), deep.clone(), b"}".to_vec()].concat();
    let many = format!("{{\"prompt\": {:?}}}", vec!["a"; 129]);
    for body in [
        &b""[..],
        b"{",
        b"nonsense",
        b"[]",
        b"{}{}",
        b"\xff\xfe{\"prompt\": \"a\"}",
        b"{\"prompt\": \"\xff\"}",
        b"{\"prompt\": \"\\ud800\"}",
        &deep,
        &deep_prompt,
        many.as_bytes(),
        b"{\"prompt\": []}",
        b"{\"prompt\": [1, \"a\"]}",
        b"{\"prompt\": [257]}",
        b"{\"prompt\": [4294967295]}",
        b"{\"prompt\": [99999999999999999999999]}",
        b"{\"prompt\": [-1]}",
        b"{\"prompt\": \"a\", \"temperature\": -1}",
        b"{\"prompt\": \"a\", \"temperature\": 1e999}",
        b"{\"prompt\": \"a\", \"temperature\": \"hot\"}",
        b"{\"prompt\": \"a\", \"top_p\": 7}",
        b"{\"prompt\": \"a\", \"n\": 0}",
        b"{\"prompt\": \"a\", \"n\": 18446744073709551615}",
        b"{\"prompt\": \"a\", \"max_tokens\": -3}",
        b"{\"prompt\": \"a\", \"logprobs\": 21}",
        b"{\"prompt\": \"a\", \"stop\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]}",
        b"{\"prompt\": \"a\", \"logit_bias\": {\"x\": 1}}",
        b"{\"prompt\": \"a\", \"logit_bias\": {\"1\": 1e30}}",
        b"{\"prompt\": \"a\", \"logit_bias\": {\"9999\": 1}}",
        b"{\"prompt\": \"a\", \"best_of\": 3}",
        b"{\"prompt\": \"a\", \"suffix\": \"b\"}",
        b"{\"prompt\": \"a\", \"presence_penalty\": 1}",
        b"{\"prompt\": \"a\", \"temprature\": 1}",
        b"{\"prompt\": \"a\", \"seed\": 1.5}",
    ] {
        let answer = server.ask("POST", "/v1/completions", "", body);
        ensure_error(&answer, 400);
    }
    let typo = server.post("/v1/completions", &json!({"prompt": "a", "temprature": 1}));
    assert!(
        ensure_error(&typo, 400)["message"]
            .as_str()
            .unwrap()
            .contains("temperature")
    );
    let wrong = server.post(
        "/v1/completions",
        &json!({"prompt": "a", "temperature": "hot"}),
    );
    assert_eq!(ensure_error(&wrong, 400)["param"], "temperature");
    for body in [
        json!({"messages": []}),
        json!({}),
        json!({"messages": [{"role": "tool", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]}),
        json!({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3}),
    ] {
        ensure_error(&server.post("/v1/chat/completions", &body), 400);
    }
    ensure_error(
        &server.post("/v1/completions", &json!({"model": "other", "prompt": "a"})),
        404,
    );
    // Nothing of this has hurt it.
    assert_eq!(
        server
            .post("/v1/completions", &json!({"prompt": "a"}))
            .status,
        200
    );
    server.end();
}

#[test]
fn prompts_longer_than_the_context_are_refused_unless_they_may_be_cut() {
    let server = start(|_| {});
    let mut body = json!({"prompt": "x".repeat(1000), "max_tokens": 5});
    let error = ensure_error(&server.post("/v1/completions", &body), 400);
    assert_eq!(error["param"], "prompt");
    assert!(error["help"].as_str().unwrap().contains("truncate"));
    body["truncate"] = json!(true);
    let value = server.post("/v1/completions", &body).json();
    assert_eq!(value["usage"]["prompt_tokens"], common::CONTEXT - 5);
    body["max_tokens"] = json!(u64::MAX);
    assert_eq!(server.post("/v1/completions", &body).status, 200);
    server.end();
}

#[test]
fn texts_that_need_more_memory_than_there_is_are_refused() {
    let server = start(|s| s.limits.cache_bytes = 10 * 512);
    let body = json!({"prompt": "abc", "max_tokens": 30});
    assert_eq!(
        ensure_error(&server.post("/v1/completions", &body), 400)["param"],
        "max_tokens"
    );
    let body = json!({"prompt": "abc", "max_tokens": 6});
    assert_eq!(server.post("/v1/completions", &body).status, 200);
    server.end();
}

#[test]
fn answers_of_more_probabilities_than_fit_are_refused() {
    let server = start(|s| s.net.logprobs = 1000);
    let ask = |path: &str, body: Value| server.post(path, &body);
    let text = |n: usize, logprobs: usize, echo: bool| {
        let body = json!({
            "prompt": "abcdefghij", "max_tokens": 10, "n": n, "logprobs": logprobs, "echo": echo, "seed": 1,
        });
        ask("/v1/completions", body)
    };
    for (n, logprobs, echo) in [
        (4, 20, false),
        (2, 20, true),
        (50, 0, true),
        (100, 0, false),
    ] {
        assert_eq!(text(n, logprobs, echo).status, 200, "{n} {logprobs} {echo}");
    }
    for (n, logprobs, echo) in [
        (5, 20, false),
        (3, 20, true),
        (51, 0, true),
        (101, 0, false),
    ] {
        let error = ensure_error(&text(n, logprobs, echo), 400);
        assert_eq!(error["param"], "logprobs");
        assert!(
            error["message"].as_str().unwrap().contains("1000"),
            "{error}"
        );
    }
    // New tokens count as far as the context reaches, and prompts of one request together.
    let body = json!({"prompt": "a", "max_tokens": u64::MAX, "logprobs": 19});
    assert_eq!(ask("/v1/completions", body).status, 200);
    let body = json!({"prompt": ["a", "b"], "max_tokens": u64::MAX, "logprobs": 19});
    ensure_error(&ask("/v1/completions", body), 400);
    let chat = json!({"messages": [{"role": "user", "content": "x"}], "n": 20, "logprobs": true, "top_logprobs": 5});
    let error = ensure_error(&ask("/v1/chat/completions", chat), 400);
    assert_eq!(error["param"], "top_logprobs");
    server.end();
}

#[test]
fn a_request_of_which_one_text_fails_computes_no_others() {
    // Of 128 texts one finds no place. How long it may wait so that it is told before the others end depends on the machine.
    let has_cancelled = |wait_ms| {
        let server = start(|s| {
            s.limits.batch = 127;
            s.limits.wait = Duration::from_millis(wait_ms);
        });
        let body = json!({"prompt": "a", "max_tokens": 47, "n": 128, "logit_bias": {"256": -100}});
        let status = server.post("/v1/completions", &body).status;
        server.wait_for("tokenformer_texts_running", 0.0);
        let cancelled = server.metric("tokenformer_cancelled_total");
        server.end();
        status == 503 && cancelled > 0.0
    };
    assert!((0..10).any(|power| has_cancelled(1 << power)));
}

#[test]
fn every_request_that_is_answered_with_an_error_is_counted() {
    let server = start(|_| {});
    let refused = || server.metric("tokenformer_refused_total");
    server.post("/v1/completions", &json!({"prompt": "a"}));
    assert_eq!(refused(), 0.0);
    server.post("/v1/completions", &json!({"prompt": []}));
    server.post("/tokenize", &json!({"prompt": 1}));
    server.post("/api/fired", &json!({"tokens": []}));
    server.get("/nothing");
    server.get("/v1/completions");
    server.get("/v1/models/other");
    server.ask("GET", "/v1/models", "Origin: https://evil.example\r\n", b"");
    assert_eq!(refused(), 7.0);
    server.end();
}

#[test]
fn large_bodies_are_refused_and_not_kept() {
    let server = start(|s| s.net.body_bytes = 100_000);
    let body = vec![b'x'; 10 << 20];
    ensure_error(&server.ask("POST", "/v1/completions", "", &body), 413);
    let head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"20000\r\n".to_vec(), vec![b' '; 0x20000], b"\r\n".to_vec()].concat();
    let mut bytes = head.to_vec();
    for _ in 0..80 {
        bytes.extend_from_slice(&chunk);
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    ensure_error(&server.raw(&bytes), 413);
    server.end();
}

#[test]
fn paths_and_methods_that_do_not_exist_are_explained() {
    let server = start(|_| {});
    for path in [
        "/nothing",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/app.js/../../x",
        "//",
        "/v1/models/../../x",
        "/.git",
    ] {
        ensure_error(&server.get(path), 404);
    }
    ensure_error(&server.get("/v1/completions"), 405);
    ensure_error(&server.ask("DELETE", "/v1/models", "", b""), 405);
    ensure_error(&server.get("/api/run"), 404);
    let garbage = server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(garbage.status == 400 || garbage.status == 0, "{garbage:?}");
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(200_000)
    );
    assert!((400..500).contains(&server.raw(long.as_bytes()).status));
    let heads = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-A: b\r\n".repeat(5000)
    );
    assert!((400..500).contains(&server.raw(heads.as_bytes()).status));
    server.end();
}

#[test]
fn pages_of_other_origins_and_names_are_refused() {
    let server = start(|_| {});
    let body = b"{\"prompt\": \"a\"}";
    let origin = |origin: &str| {
        server.ask(
            "POST",
            "/v1/completions",
            &format!("Origin: {origin}\r\nContent-Type: text/plain\r\n"),
            body,
        )
    };
    ensure_error(&origin("https://evil.example"), 403);
    ensure_error(&origin("null"), 403);
    assert_eq!(origin("http://localhost").status, 200);
    let rebound = "GET /v1/models HTTP/1.1\r\nHost: evil.example:8080\r\nConnection: close\r\n\r\n";
    ensure_error(&server.raw(rebound.as_bytes()), 403);
    server.end();
}

#[test]
fn a_key_is_asked_for_and_is_in_no_answer() {
    let server = start(|s| s.keys = vec!["secret-key".into()]);
    ensure_error(&server.get("/v1/models"), 401);
    let wrong = server.ask(
        "GET",
        "/metrics",
        "Authorization: Bearer secret-kex\r\n",
        b"",
    );
    ensure_error(&wrong, 401);
    assert!(!wrong.body.contains("secret") && !wrong.head.contains("secret"));
    assert_eq!(
        server
            .ask(
                "GET",
                "/v1/models",
                "Authorization: Bearer secret-key\r\n",
                b""
            )
            .status,
        200
    );
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/").status, 200);
    server.end();
}

#[test]
fn an_open_address_needs_a_key_or_consent() {
    let open = Settings {
        bind: "0.0.0.0:0".parse().unwrap(),
        ..settings()
    };
    let error = Server::bind(vec![], open.clone()).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }));
    assert!(error.to_string().contains("--allow-no-key"), "{error}");
    Server::bind(
        vec![],
        Settings {
            allow_no_key: true,
            ..open.clone()
        },
    )
    .unwrap();
    Server::bind(
        vec![],
        Settings {
            keys: vec!["k".into()],
            ..open
        },
    )
    .unwrap();
    let error = Server::bind(vec![served("a", 1), served("a", 2)], settings()).unwrap_err();
    assert!(
        error.to_string().contains("two that are called a"),
        "{error}"
    );
}

#[test]
fn slow_heads_bodies_and_idle_connections_are_closed() {
    let server = start(|s| {
        s.net = NetLimits {
            head: Duration::from_millis(300),
            body: Duration::from_millis(300),
            ..s.net
        }
    });
    let started = Instant::now();
    let mut idle = server.connect();
    let mut slow_head = server.connect();
    slow_head.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut slow_body = server.connect();
    slow_body
        .write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{\"prompt\"")
        .unwrap();
    // Each read ends when the server closes the connection.
    ensure_error(&read(&mut slow_body), 408);
    let _ = read(&mut slow_head);
    let mut nothing = Vec::new();
    let _ = idle.read_to_end(&mut nothing);
    assert!(started.elapsed() < Duration::from_secs(30));
    server.wait_for("tokenformer_connections", 1.0);
    server.end();
}

#[test]
fn too_many_connections_and_requests_are_told_to_come_again() {
    let server = start(|s| {
        s.net.connections = 12;
        s.net.requests = 2;
        s.limits.batch = 1;
    });
    let long = json!({"prompt": "a", "max_tokens": 40, "n": 128, "logit_bias": {"256": -100}, "stream": true}).to_string();
    let ask = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{long}",
        long.len()
    );
    let mut busy: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut busy {
        stream.write_all(ask.as_bytes()).unwrap();
    }
    server.wait_for("tokenformer_requests_in_flight", 2.0);
    let refused = server.post("/v1/completions", &json!({"prompt": "a"}));
    ensure_error(&refused, 429);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    // Those that leave free their places at once.
    drop(busy);
    server.wait_for("tokenformer_requests_in_flight", 0.0);
    server.wait_for("tokenformer_texts_running", 0.0);
    assert_eq!(
        server
            .post("/v1/completions", &json!({"prompt": "a"}))
            .status,
        200
    );
    let idle: Vec<_> = (0..12).map(|_| server.connect()).collect();
    // They are open once one more is refused.
    let refused = (0..600).find_map(|_| {
        let answer = server.get("/health");
        std::thread::sleep(Duration::from_millis(20));
        (answer.status == 503).then_some(answer)
    });
    let refused = refused.expect("one that is refused");
    ensure_error(&refused, 503);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    drop(idle);
    server.end();
}

#[test]
fn bodies_that_never_end_keep_nobody_out() {
    let server = start(|s| s.net.requests = 2);
    let begin = |path: &str| {
        let mut stream = server.connect();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let begun = [
        "/v1/completions",
        "/v1/chat/completions",
        "/tokenize",
        "/detokenize",
        "/api/fired",
    ]
    .map(begin);
    // All of them have arrived.
    server.wait_for("tokenformer_connections", 6.0);
    std::thread::sleep(Duration::from_millis(100));
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/tokenize", json!({"prompt": "a"})),
        ("/detokenize", json!({"tokens": [97]})),
        ("/api/fired", json!({"tokens": [97]})),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    drop(begun);
    server.end();
}

#[test]
fn large_bodies_that_never_end_keep_small_ones_in() {
    let server = start(|s| {
        s.net.unfinished_bytes = 1 << 20;
        s.net.body = Duration::from_secs(20);
    });
    let small = json!({"prompt": "a", "max_tokens": 1});
    let large = json!({"prompt": "a", "max_tokens": 1, "user": "x".repeat(800_000)});
    assert_eq!(server.post("/v1/completions", &large).status, 200);
    let mut begun = server.connect();
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    begun.write_all(head.as_bytes()).unwrap();
    begun.write_all(&[b' '; 900_000]).unwrap();
    // The client can read why, although it sends all of its body first.
    let refused = (0..100).find_map(|_| {
        let answer = server.post("/v1/completions", &large);
        std::thread::sleep(Duration::from_millis(20));
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.expect("one that is refused");
    ensure_error(&refused, 429);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert_eq!(server.post("/v1/completions", &small).status, 200);
    // Its room is free once it has ended, or its client has left.
    begun.write_all(&[b' '; 100_000]).unwrap();
    let mut status = [0; 12];
    begun.read_exact(&mut status).unwrap();
    assert_eq!(status, *b"HTTP/1.1 400");
    assert_eq!(server.post("/v1/completions", &large).status, 200);
    server.end();
}

#[test]
fn an_answer_that_nobody_takes_keeps_its_place() {
    let server = start(|s| s.net.requests = 1);
    // Its answer is larger than what the sockets hold.
    let body = json!({"prompt": "x".repeat((2 << 20) - 100)}).to_string();
    let ask = format!(
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(ask.as_bytes()).unwrap();
    server.wait_for("tokenformer_requests_in_flight", 1.0);
    // The first bytes of the answer are there, so it is made; the rest waits for its reader.
    let mut first = [0; 8];
    stream.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    ensure_error(&server.post("/tokenize", &json!({"prompt": "a"})), 429);
    let rest = read(&mut stream);
    assert!(rest.body.ends_with('}'));
    server.wait_for("tokenformer_requests_in_flight", 0.0);
    let length = format!("content-length: {}", rest.body.len());
    assert!(rest.head.contains(&length), "{}", rest.head);
    server.end();
}

#[test]
fn tokens_of_a_long_text_come_without_their_texts() {
    let server = start(|_| {});
    let ask = |len: usize| server.post("/tokenize", &json!({"prompt": "x".repeat(len)}));
    let short = ask(4096).json();
    assert_eq!(short["texts"].as_array().unwrap().len(), 4096);
    let long = ask(4097).json();
    assert_eq!(long["texts"], Value::Null);
    assert_eq!(long["count"], 4097);
    assert_eq!(long["tokens"].as_array().unwrap().len(), 4097);
    server.end();
}

#[test]
fn a_flood_of_connections_is_told_that_there_are_too_many() {
    let server = start(|s| {
        s.net.connections = 8;
        s.net.head = Duration::from_secs(60);
        s.net.refusal = Duration::from_secs(60);
    });
    let idle: Vec<_> = (0..8).map(|_| server.connect()).collect();
    // More than are refused at a time, one after the other; each sends a request in parts that are not read.
    for _ in 0..300 {
        let mut stream = server.connect();
        let head =
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n";
        stream.write_all(head).unwrap();
        stream.write_all(&[b' '; 20_000]).unwrap();
        let refused = read(&mut stream);
        ensure_error(&refused, 503);
        assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    }
    drop(idle);
    let answer = (0..600).find_map(|_| {
        let answer = server.post("/v1/completions", &json!({"prompt": "a"}));
        std::thread::sleep(Duration::from_millis(20));
        (answer.status == 200).then_some(answer)
    });
    assert!(answer.is_some(), "the server answers again");
    server.wait_for("tokenformer_connections", 1.0);
    server.end();
}

#[test]
fn a_reader_that_takes_nothing_is_given_up() {
    let server = start(|s| s.net.write = Duration::from_millis(200));
    // More than the buffers of both sockets hold: every message has 20 alternatives to each token.
    let body = json!({
        "prompt": "a", "max_tokens": 47, "n": 128, "logprobs": 20, "stream": true, "logit_bias": {"256": -100},
    })
    .to_string();
    let ask = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(ask.as_bytes()).unwrap();
    server.wait_for("tokenformer_requests_in_flight", 1.0);
    server.wait_for("tokenformer_requests_in_flight", 0.0);
    server.wait_for("tokenformer_connections", 1.0);
    drop(stream);
    server.end();
}
