//! Tokenizers whose tokens depend on their neighbours, or that lose characters: tokens have names of their own, offsets
//! are places in the text, and a prompt comes back as it was sent.

mod common;

use common::client::{Running, settings};
use common::{CONTEXT, served_with};
use serde_json::{Value, json};
use std::collections::HashSet;

const FIRST_BYTE: u32 = 3;
const FIRST: u32 = FIRST_BYTE + 256;
const CAT: u32 = FIRST + 10;
const LONG: u32 = FIRST + 15;

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special})
}

fn vocabulary(tokens: &[String]) -> Value {
    let numbered = (0..).zip(tokens);
    let entries = numbered.map(|(id, token): (u32, _)| (token.clone(), id.into()));
    Value::Object(entries.collect())
}

/// As Llama's: spaces are written as `▁`, one more in front of the text, and characters without a token as bytes.
fn llama() -> Value {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let words = [
        "▁", "a", "c", "e", "h", "t", "é", "at", "he", "▁c", "▁cat", "▁t", "▁the", "l", "▁l",
    ];
    tokens.extend(words.map(str::to_owned));
    tokens.push("e".repeat(64));
    tokens.push("▁▁".into());
    json!({
        // The last stands for the same text as the token before it.
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true),
            added(tokens.len(), "  ", false)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocabulary(&tokens),
            "merges": ["a t", "h e", "▁ c", "▁c at", "▁ t", "▁t he", "▁ l", "▁ ▁"]},
    })
}

/// Small letters and `▁` only; another character becomes `unknown`, or is dropped if there is none.
fn letters(unknown: Option<&str>) -> Value {
    let mut tokens: Vec<String> = ["<unk>", "</s>", "▁"].map(str::to_owned).to_vec();
    tokens.extend(('a'..='z').map(String::from));
    let mark =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    json!({
        "added_tokens": [added(0, "<unk>", true), added(1, "</s>", true)],
        "normalizer": null,
        "pre_tokenizer": mark,
        "decoder": mark,
        "model": {"type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": false,
            "vocab": vocabulary(&tokens), "merges": []},
    })
}

fn start() -> Running {
    let models = vec![
        served_with("llama", &llama()),
        served_with("unknown", &letters(Some("<unk>"))),
        served_with("dropped", &letters(None)),
    ];
    Running::start(models, settings())
}

/// The text and the probabilities of an echoed prompt.
fn echo(server: &Running, model: &str, prompt: &str) -> Value {
    let body =
        json!({"model": model, "prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 20});
    let answer = server.post("/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn every_token_has_a_name_of_its_own() {
    for tokenizer in [llama(), letters(Some("<unk>"))] {
        let served = served_with("a", &tokenizer);
        let count = served.tokenizer.vocab_size() as u32;
        let names: HashSet<String> = (0..count)
            .map(|id| served.token_text(id).to_string())
            .collect();
        assert_eq!(names.len(), count as usize, "{names:?}");
    }
    let served = served_with("a", &llama());
    for (id, name) in [
        (1, "<|1|>"),
        (2, "<|endoftext|>"),
        (FIRST_BYTE + 0xc3, "bytes:\\xc3"),
        (FIRST_BYTE + 0x61, "bytes:\\x61"),
        (FIRST, " "),
        (FIRST + 1, "a"),
        (CAT, " cat"),
        (FIRST + 13, "l"),
        (FIRST + 14, " l"),
        (LONG + 1, "  "),
        (LONG + 2, "bytes:\\x20\\x20"),
        (1000, "<|1000|>"),
    ] {
        assert_eq!(served.token_text(id), name, "{id}");
    }
}

#[test]
fn tokens_alternatives_and_offsets_are_those_of_the_text() {
    let server = start();
    let prompt = "the cat é!ñ";
    let value = echo(&server, "llama", prompt);
    assert_eq!(value["choices"][0]["text"], prompt);
    let logprobs = &value["choices"][0]["logprobs"];
    let names = json!([
        " the",
        " cat",
        " ",
        "é",
        "bytes:\\x21",
        "bytes:\\xc3",
        "bytes:\\xb1"
    ]);
    assert_eq!(logprobs["tokens"], names);
    // A character of two tokens is counted with the first.
    assert_eq!(logprobs["text_offset"], json!([0, 3, 7, 8, 9, 10, 11]));
    for (at, top) in (0..).zip(logprobs["top_logprobs"].as_array().unwrap()) {
        let Some(top) = top.as_object() else {
            assert_eq!(at, 0);
            continue;
        };
        let alternatives = logprobs["alternatives"][at].as_array().unwrap();
        for alternative in alternatives {
            let name = alternative["text"].as_str().unwrap();
            assert_eq!(top[name], alternative["logprob"], "{name}");
        }
        let own = logprobs["tokens"][at].as_str().unwrap();
        assert_eq!(top[own], logprobs["token_logprobs"][at]);
    }
    server.end();
}

#[test]
fn offsets_of_new_tokens_count_the_text_that_they_make() {
    let server = start();
    let forced = json!({CAT.to_string(): 100});
    // At the beginning of a text its first space is left out; behind a prompt it is not.
    for (prompt, echo, text, offsets) in [
        ("", false, "cat cat cat", [0, 3, 7]),
        ("the", false, " cat cat cat", [0, 4, 8]),
    ] {
        let body = json!({"model": "llama", "prompt": prompt, "max_tokens": 3, "echo": echo,
            "logprobs": 0, "logit_bias": forced});
        let choice = &server.post("/v1/completions", &body).json()["choices"][0];
        assert_eq!(choice["text"], text);
        assert_eq!(choice["logprobs"]["text_offset"], json!(offsets));
    }
    let body = json!({"model": "llama", "prompt": " the", "max_tokens": 2, "echo": true,
        "logprobs": 0, "logit_bias": forced});
    let choice = &server.post("/v1/completions", &body).json()["choices"][0];
    assert_eq!(choice["text"], " the cat cat");
    let logprobs = &choice["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(tokens[tokens.len() - 2..], [" cat", " cat"]);
    let offsets = logprobs["text_offset"].as_array().unwrap();
    assert_eq!(offsets[0], 0);
    assert_eq!(offsets[offsets.len() - 2..], [4, 8]);
    // In chats the bytes are told.
    let byte = json!({(FIRST_BYTE + 0xc3).to_string(): 100});
    let body = json!({"model": "llama", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1,
        "logprobs": true, "logit_bias": byte, "truncate": true});
    let value = server.post("/v1/chat/completions", &body).json();
    let entry = &value["choices"][0]["logprobs"]["content"][0];
    assert_eq!(
        (&entry["token"], &entry["bytes"]),
        (&json!("bytes:\\xc3"), &json!([0xc3]))
    );
    server.end();
}

#[test]
fn a_prompt_comes_back_as_it_was_sent_with_what_its_tokens_lose() {
    let server = start();
    let prompt = "né 42 café";
    let value = echo(&server, "unknown", prompt);
    assert_eq!(value["choices"][0]["text"], prompt);
    assert_eq!(value["prompt_losses"], json!({"dropped": 0, "unknown": 4}));
    let offsets = &value["choices"][0]["logprobs"]["text_offset"];
    assert_eq!(*offsets, json!([0, 0, 1, 2, 3, 5, 6, 7, 8, 9]));
    let value = echo(&server, "dropped", prompt);
    assert_eq!(value["choices"][0]["text"], prompt);
    assert_eq!(value["prompt_losses"], json!({"dropped": 4, "unknown": 0}));
    let offsets = &value["choices"][0]["logprobs"]["text_offset"];
    assert_eq!(*offsets, json!([0, 0, 2, 5, 6, 7, 8]));
    // The encoding does not tell whether a text began with a space, but the answer does.
    let value = echo(&server, "unknown", " hello a cat");
    assert_eq!(value["choices"][0]["text"], " hello a cat");
    assert_eq!(value["prompt_losses"], Value::Null);
    let offsets = value["choices"][0]["logprobs"]["text_offset"].clone();
    assert_eq!(offsets, (0..12).collect::<Value>());
    // The answer to a shortened prompt has the tokens that were kept.
    let long = format!("{}abc", "é".repeat(CONTEXT));
    let body = json!({"model": "dropped", "prompt": format!("{}abc", "x".repeat(CONTEXT)), "max_tokens": 0,
        "echo": true, "truncate": true});
    let value = server.post("/v1/completions", &body).json();
    let text = value["choices"][0]["text"].as_str().unwrap();
    assert!(text.len() <= CONTEXT && text.ends_with("xabc"), "{text}");
    // All prompts of a request count, and so do chats and streams.
    let body =
        json!({"model": "dropped", "prompt": [prompt, "É", long], "max_tokens": 1, "stream": true});
    let messages = server.post("/v1/completions", &body).messages();
    let lost = json!({"dropped": 5 + CONTEXT, "unknown": 0});
    assert_eq!(messages[0]["prompt_losses"], lost);
    assert!(messages[1..].iter().all(|m| m["prompt_losses"].is_null()));
    let body = json!({"model": "unknown", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1});
    let value = server.post("/v1/chat/completions", &body).json();
    // Of "User: a\nAssistant:" the capitals, the colons and the end of the line.
    assert_eq!(value["prompt_losses"], json!({"dropped": 0, "unknown": 5}));
    server.end();
}

#[test]
fn tokenize_says_what_the_tokens_lose() {
    let server = start();
    let ask = |model: &str, prompt: &str| {
        let body = json!({"model": model, "prompt": prompt});
        server.post("/tokenize", &body).json()
    };
    let value = ask("unknown", "né 42");
    assert_eq!(value["prompt_losses"], json!({"dropped": 0, "unknown": 3}));
    assert_eq!(value["texts"], json!([" ", "n", "<|0|>", " ", "<|0|>"]));
    assert_eq!(ask("unknown", "a b")["prompt_losses"], Value::Null);
    let value = ask("llama", "the cat");
    assert_eq!(value["texts"], json!([" the", " cat"]));
    assert_eq!(value["tokens"], json!([FIRST + 12, CAT]));
    server.end();
}

#[test]
fn tokens_of_more_text_than_a_body_may_have_are_refused() {
    let mut settings = settings();
    settings.net.body_bytes = 1000;
    let server = Running::start(vec![served_with("llama", &llama())], settings);
    let ask = |count: usize| server.post("/detokenize", &json!({"tokens": vec![LONG; count]}));
    assert_eq!(ask(15).json()["prompt"].as_str().unwrap().len(), 15 * 64);
    let refused = ask(100);
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert_eq!(refused.json()["error"]["param"], "tokens");
    server.end();
}
