//! OpenAI's interface over sockets: what comes is what `generate` gives, in the shapes that clients read.

mod common;

use common::client::{Running, settings};
use common::{CONTEXT, alone, served};
use serde_json::{Value, json};
use tokenformer_core::generate::Sampling;
use tokenformer_train::End;

fn start() -> Running {
    Running::start(vec![served("a", 1), served("b", 2)], settings())
}

fn sampling(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_p: 1.0,
        seed,
        ..Sampling::default()
    }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn reason(end: End) -> &'static str {
    match end {
        End::Document | End::Stop => "stop",
        End::Length | End::Context => "length",
    }
}

#[test]
fn completions_are_what_the_model_generates_alone() {
    let server = start();
    for (name, seed) in [("a", 1u64), ("b", 2)] {
        let model = served(name, seed);
        let body =
            json!({"model": name, "prompt": ["Once", "upon"], "max_tokens": 9, "n": 2, "seed": 5});
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let value = answer.json();
        assert_eq!(value["object"], "text_completion");
        assert_eq!(value["model"], name);
        let mut used = 0;
        for (i, (prompt, seed)) in [("Once", 5), ("Once", 6), ("upon", 5), ("upon", 6)]
            .into_iter()
            .enumerate()
        {
            let want = alone(&model, &bytes(prompt), 9, &sampling(seed), &[], None);
            let choice = &value["choices"][i];
            assert_eq!(choice["index"], i);
            assert_eq!(choice["text"], want.text);
            assert_eq!(choice["finish_reason"], reason(want.end));
            assert_eq!(choice["logprobs"], Value::Null);
            used += want.tokens.len();
        }
        let usage =
            json!({"prompt_tokens": 8, "completion_tokens": used, "total_tokens": 8 + used});
        assert_eq!(value["usage"], usage);
    }
    server.end();
}

#[test]
fn a_stream_is_the_same_text_in_parts() {
    let server = start();
    let mut body =
        json!({"model": "a", "prompt": bytes("Once"), "max_tokens": 20, "seed": 3, "stop": "q"});
    let whole = server.post("/v1/completions", &body).json();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let answer = server.post("/v1/completions", &body);
    assert!(
        answer.head.contains("content-type: text/event-stream"),
        "{}",
        answer.head
    );
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    let messages = answer.messages();
    let (last, parts) = messages.split_last().unwrap();
    let text: String = parts
        .iter()
        .map(|m| m["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, whole["choices"][0]["text"]);
    let reasons: Vec<&Value> = parts
        .iter()
        .map(|m| &m["choices"][0]["finish_reason"])
        .collect();
    assert_eq!(reasons.last(), Some(&&whole["choices"][0]["finish_reason"]));
    assert!(reasons[..reasons.len() - 1].iter().all(|r| r.is_null()));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    server.end();
}

#[test]
fn stages_answer_as_the_smaller_model() {
    let server = start();
    let model = served("a", 1);
    let ask = |stage: usize| {
        let body =
            json!({"model": "a", "prompt": "Once", "max_tokens": 9, "seed": 5, "stage": stage});
        server.post("/v1/completions", &body)
    };
    for (stage, newest) in [(1, Some(0)), (2, None)] {
        let want = alone(&model, &bytes("Once"), 9, &sampling(5), &[], newest);
        assert_eq!(ask(stage).json()["choices"][0]["text"], want.text);
    }
    for stage in [0, 3, 1 << 40] {
        let error = &ask(stage).json()["error"];
        assert_eq!(error["param"], "stage");
        assert!(
            error["message"].as_str().unwrap().contains("1 to 2"),
            "{error}"
        );
    }
    server.end();
}

#[test]
fn probabilities_of_an_echoed_prompt_have_the_shape_that_harnesses_read() {
    let server = start();
    let body = json!({
        "model": "a", "prompt": [bytes("Once"), bytes("é!")], "max_tokens": 1, "logprobs": 2, "echo": true,
        "temperature": 0, "seed": 1,
    });
    let value = server.post("/v1/completions", &body).json();
    let model = served("a", 1);
    for (i, prompt) in ["Once", "é!"].into_iter().enumerate() {
        let (choice, tokens) = (&value["choices"][i], bytes(prompt));
        assert!(choice["text"].as_str().unwrap().starts_with(prompt));
        let logprobs = &choice["logprobs"];
        let numbers = logprobs["token_logprobs"].as_array().unwrap();
        assert_eq!(numbers.len(), tokens.len() + 1);
        assert_eq!(numbers[0], Value::Null);
        assert_eq!(logprobs["top_logprobs"][0], Value::Null);
        assert_eq!(logprobs["text_offset"][0], 0);
        let logits = model.model.infer(&tokens, 1).unwrap();
        for (at, row) in logits.chunks(model.model.vocab()).enumerate() {
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            let got = numbers[at + 1].as_f64().unwrap();
            let token = logprobs["token_ids"][at + 1].as_u64().unwrap() as usize;
            assert!((got - (f64::from(row[token]) - sum.ln())).abs() < 1e-4);
            let top = logprobs["top_logprobs"][at + 1].as_object().unwrap();
            assert!((2..=3).contains(&top.len()), "{top:?}");
            assert!(top.values().any(|l| l.as_f64() == Some(got)));
        }
    }
    // A token that is half a character is named by its bytes.
    assert_eq!(value["choices"][1]["logprobs"]["tokens"][0], "bytes:\\xc3");
    let nothing_new =
        json!({"model": "a", "prompt": "ab", "max_tokens": 0, "logprobs": 0, "echo": true});
    let value = server.post("/v1/completions", &nothing_new).json();
    assert_eq!(value["choices"][0]["text"], "ab");
    assert_eq!(value["choices"][0]["logprobs"]["tokens"], json!(["a", "b"]));
    server.end();
}

#[test]
fn a_bias_decides_and_the_end_of_the_document_ends() {
    let server = start();
    let body = json!({"model": "a", "prompt": "x", "max_tokens": 3, "logit_bias": {"65": 100.0}, "seed": 1});
    let value = server.post("/v1/completions", &body).json();
    assert_eq!(value["choices"][0]["text"], "AAA");
    let body = json!({"model": "a", "prompt": "x", "max_tokens": 3, "logit_bias": {"256": 100}, "logprobs": 1});
    let choice = &server.post("/v1/completions", &body).json()["choices"][0];
    assert_eq!(
        (choice["text"].as_str(), choice["finish_reason"].as_str()),
        (Some(""), Some("stop"))
    );
    assert_eq!(choice["logprobs"]["tokens"], json!(["<|endoftext|>"]));
    server.end();
}

#[test]
fn a_chat_is_a_text_by_the_template() {
    let server = start();
    let text = "Be brief.\n\nUser: Hi\nAssistant: Yes?\nUser: Go on\nAssistant:";
    let mut body = json!({"model": "b", "max_completion_tokens": 4, "seed": 2, "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go on"},
    ], "truncate": true, "logprobs": true, "top_logprobs": 1});
    let value = server.post("/v1/chat/completions", &body).json();
    let all = bytes(text);
    let kept = all[all.len() - (CONTEXT - 4)..].to_vec();
    let want = alone(
        &served("b", 2),
        &kept,
        4,
        &sampling(2),
        &["\nUser:".into()],
        None,
    );
    let message = &value["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["content"], want.text.trim_start());
    assert_eq!(value["object"], "chat.completion");
    let content = value["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(content.len(), want.tokens.len());
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 1);
    body["stream"] = json!(true);
    let messages = server.post("/v1/chat/completions", &body).messages();
    assert_eq!(messages[0]["choices"][0]["delta"]["role"], "assistant");
    let parts: String = messages
        .iter()
        .filter_map(|m| m["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(parts, want.text.trim_start());
    server.end();
}

#[test]
fn tokens_go_out_and_come_back() {
    let server = start();
    let value = server
        .post("/tokenize", &json!({"model": "a", "prompt": "né"}))
        .json();
    assert_eq!(value["tokens"], json!([0x6e, 0xc3, 0xa9]));
    assert_eq!(
        (value["count"].as_u64(), value["max_model_len"].as_u64()),
        (Some(3), Some(CONTEXT as u64))
    );
    let back = server
        .post("/detokenize", &json!({"tokens": value["tokens"]}))
        .json();
    assert_eq!(back["prompt"], "né");
    server.end();
}

#[test]
fn models_stages_and_parameter_tokens_are_told() {
    let server = start();
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "a");
    let stages = list["data"][1]["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    assert!(stages[0]["params"].as_u64() < stages[1]["params"].as_u64());
    assert!(stages[0]["flops_per_token"].as_f64() < stages[1]["flops_per_token"].as_f64());
    assert_eq!(server.get("/v1/models/b").json()["id"], "b");
    assert_eq!(server.get("/v1/models/c").status, 404);
    let structure = server.get("/api/structure").json();
    assert_eq!(
        structure["models"][0]["config"]["blocks"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(structure["models"][0]["born"], json!([0, 1]));
    // What an empty text is continued from.
    let start = &structure["models"][0]["start_token"];
    assert_eq!(*start, 256);
    let text = |prompt: Value| {
        let body = json!({"model": "a", "prompt": prompt, "max_tokens": 5, "seed": 1});
        server.post("/v1/completions", &body).json()["choices"][0]["text"].clone()
    };
    assert_eq!(text(json!("")), text(json!([start])));
    let fired = server
        .post("/api/fired", &json!({"model": "a", "tokens": [1, 2, 3]}))
        .json();
    let sites = fired["sites"].as_array().unwrap();
    assert_eq!(sites.len(), 10);
    for site in sites {
        let shares: f64 = site["stage_shares"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s.as_f64().unwrap())
            .sum();
        assert!((shares - 1.0).abs() < 1e-4, "{site}");
        assert_eq!(site["top"].as_array().unwrap().len(), 8);
    }
    let small = server
        .post(
            "/api/fired",
            &json!({"model": "a", "tokens": [1, 2, 3], "stage": 1}),
        )
        .json();
    assert_eq!(small["sites"][0]["tokens"], 12);
    for (status, body) in [
        (400, json!({"tokens": []})),
        (400, json!({"tokens": vec![1; 99]})),
        (400, json!({"tokens": [999]})),
    ] {
        assert_eq!(server.post("/api/fired", &body).status, status, "{body}");
    }
    server.end();
}

#[test]
fn health_readiness_and_metrics_are_told() {
    let server = start();
    assert_eq!(server.get("/health").body, "ok\n");
    assert_eq!(server.get("/ready").status, 200);
    server.post(
        "/v1/completions",
        &json!({"prompt": "abc", "max_tokens": 4, "n": 2, "logit_bias": {"256": -100}}),
    );
    assert_eq!(server.metric("tokenformer_requests_total"), 1.0);
    assert_eq!(server.metric("tokenformer_new_tokens_total"), 8.0);
    assert_eq!(server.metric("tokenformer_prompt_tokens_total"), 6.0);
    assert_eq!(
        server.metric("tokenformer_time_to_first_token_seconds_count"),
        2.0
    );
    assert_eq!(
        server.metric("tokenformer_time_per_token_seconds_count"),
        6.0
    );
    server.wait_for("tokenformer_texts_running", 0.0);
    server.end();
}

#[test]
fn a_server_that_ends_finishes_what_it_has_begun() {
    let server = start();
    let body = json!({"prompt": "abc", "max_tokens": 40, "logit_bias": {"256": -100}, "n": 20});
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.post("/v1/completions", &body));
        server.wait_for("tokenformer_requests_total", 1.0);
        server.ask_to_end();
        asking.join().unwrap()
    });
    assert_eq!(answer.status, 200);
    let value = answer.json();
    assert_eq!(value["choices"].as_array().unwrap().len(), 20);
    assert_eq!(value["usage"]["completion_tokens"], 800);
    let address = server.address;
    server.end();
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn the_page_is_served_under_a_strict_policy() {
    let server = start();
    for (path, kind) in [
        ("/", "text/html"),
        ("/app.css", "text/css"),
        ("/app.js", "text/javascript"),
        ("/run.js", "text/javascript"),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains(&format!("content-type: {kind}")),
            "{path}: {}",
            answer.head
        );
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'; script-src 'self'")
        );
        assert!(!answer.head.contains("unsafe-inline") && !answer.head.contains("access-control"));
        // What the policy forbids is not in the files, and neither is another host.
        let namespace = "http://www.w3.org/2000/svg";
        let text = answer.body.replace(namespace, "");
        assert!(
            !text.contains("http:") && !text.contains("https:") && !text.contains("//cdn"),
            "{path}"
        );
        assert!(
            !text.contains(" style=\"") && !text.contains("innerHTML") && !text.contains("onclick"),
            "{path}"
        );
    }
    server.end();
}
