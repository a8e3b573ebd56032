//! GPT-2's encoding, whose tokens are part of the tiktoken-rs crate.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::ser::{Serialize, Serializer};

use super::words::BYTE_CHARS;

// The `expect` calls here are about constants of a crate, not about input; `tests/tokenizer_plain.rs` loads them all.

/// Number of tokens that are bytes or made by merges; the end-of-document token follows them.
const TOKENS: u32 = 50256;
const EOD_NAME: &str = "<|endoftext|>";

/// Its `tokenizer.json` in the Hugging Face format, which gives the same ids for every text.
pub(super) fn json() -> &'static [u8] {
    static JSON: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let tokens = tokens();
        let file = File::new(&tokens);
        // It is a struct of strings and numbers, so writing it to memory cannot fail.
        serde_json::to_vec(&file).expect("strings and numbers serialize to memory")
    });
    &JSON
}

/// The bytes of each token by id, which is also the order of the merges.
fn tokens() -> Vec<Vec<u8>> {
    // The table is inside the crate; `TOKENS` is its size.
    let bpe = tiktoken_rs::r50k_base().expect("the crate's own table");
    (0..TOKENS)
        .map(|id| {
            bpe.decode_bytes(&[id])
                .expect("r50k_base has ids 0 to 50256")
        })
        .collect()
}

/// The pair that merges into each token of two bytes or more: the two parts that the earlier merges leave of its bytes.
fn pairs(tokens: &[Vec<u8>]) -> Vec<[u32; 2]> {
    let mut bytes = [0; 256];
    let mut ids: HashMap<&[u8], u32> = HashMap::new();
    for (id, token) in (0..).zip(tokens) {
        if let [byte] = token[..] {
            bytes[usize::from(byte)] = id;
        }
        ids.insert(token, id);
    }
    let mut pairs = Vec::new();
    for (id, token) in (0..).zip(tokens).filter(|(_, token)| token.len() > 1) {
        pairs.push(last_pair(token, id, &bytes, &ids));
    }
    pairs
}

/// The two tokens that `token` consists of when only merges of lower ids have been applied.
fn last_pair(token: &[u8], id: u32, bytes: &[u32; 256], ids: &HashMap<&[u8], u32>) -> [u32; 2] {
    // Starts of the parts. Tokens are short, so each merge is found by a linear search.
    let mut starts: Vec<usize> = (0..=token.len()).collect();
    while starts.len() > 3 {
        let joined = |window: &[usize]| ids.get(&token[window[0]..window[2]]).copied();
        let merges = (0..).zip(starts.windows(3).map(joined));
        let lowest = merges
            .filter_map(|(at, merge)| merge.filter(|&merge| merge < id).map(|merge| (merge, at)))
            .min();
        // The table is made this way; it is a constant, and a test loads all of it.
        let (_, at): (u32, usize) = lowest.expect("every token is made of two earlier ones");
        starts.remove(at + 1);
    }
    let part = |range: std::ops::Range<usize>| match &token[range] {
        [byte] => bytes[usize::from(*byte)],
        part => ids[part],
    };
    [part(0..starts[1]), part(starts[1]..token.len())]
}

/// A token in the characters that represent its bytes.
fn spelled(token: &[u8]) -> String {
    token
        .iter()
        .map(|&byte| BYTE_CHARS[usize::from(byte)])
        .collect()
}

#[derive(serde::Serialize)]
struct File {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: serde_json::Value,
    normalizer: Option<()>,
    pre_tokenizer: serde_json::Value,
    post_processor: Option<()>,
    decoder: serde_json::Value,
    model: Model,
}

#[derive(serde::Serialize)]
struct Model {
    #[serde(rename = "type")]
    kind: &'static str,
    vocab: Vocab,
    merges: Vec<[String; 2]>,
}

/// A map from token to id in the order of the ids.
struct Vocab(Vec<String>);

impl Serialize for Vocab {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0_u32..))
    }
}

impl File {
    fn new(tokens: &[Vec<u8>]) -> Self {
        let byte_level = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let mut vocab: Vec<String> = tokens.iter().map(|token| spelled(token)).collect();
        let merges = pairs(tokens)
            .into_iter()
            .map(|pair| pair.map(|id| vocab[id as usize].clone()))
            .collect();
        vocab.push(EOD_NAME.into());
        Self {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: serde_json::json!([{
                "id": TOKENS, "content": EOD_NAME, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": true, "special": true,
            }]),
            normalizer: None,
            pre_tokenizer: byte_level.clone(),
            post_processor: None,
            decoder: byte_level,
            model: Model {
                kind: "BPE",
                vocab: Vocab(vocab),
                merges,
            },
        }
    }
}
