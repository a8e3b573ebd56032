//! `logits`: writes logits for other programs.

use super::{device, ensure_text, load_model};
use crate::args::LogitsArgs;
use crate::outputs;
use crate::usage;
use std::collections::BTreeMap;
use std::path::Path;
use tokenformer_core::Graph;
use tokenformer_data::token_rows::TokenRows;
use tokenformer_store::{SafetensorsFile, TensorSource, Which, write_safetensors};
use tokenformer_train::{Error, Result, ensure_finite, memory};

const MAX_JSON_BYTES: u64 = 256 << 20;
const EXPECTED: &str = "a non-empty rectangle [B, T] of token numbers";
const HELP: &str = "for example [[1, 2, 3], [4, 5, 6]] in a .json file, or an integer array `tokens` in a .safetensors file";

/// Runs the verb.
pub fn run(args: &LogitsArgs) -> Result<()> {
    let device = device(&args.compute)?;
    // The file is replaced by renaming, which would turn a device into a regular file.
    if args.out.exists() && !args.out.is_file() {
        let got = format!("{}, which is no plain file", args.out.display());
        return Err(usage(
            "--out",
            "a file to write",
            got,
            "choose another name",
        ));
    }
    outputs::file("--out", &args.out, &[&args.tokens])?;
    let (tokens, batch) = read_tokens(&args.tokens)?;
    let (found, model) = load_model(&args.model, Which::Latest, &device, args.precision)?;
    ensure_text(&model)?;
    outputs::file("--out", &args.out, &[&found.dir])?;
    let (t, v) = (tokens.len() / batch, model.vocab());
    if t > model.context() {
        return Err(tokenformer_core::Error::ContextFull {
            context: model.context(),
            needed: t,
        }
        .into());
    }
    let logit_bytes = (tokens.len() as u64)
        .saturating_mul(v as u64)
        .saturating_mul(4);
    // They are computed on the device and copied to the host, which for some devices is one memory.
    let bytes = memory::inference_bytes(&model.config(), tokens.len() as u64)
        .saturating_add(logit_bytes.saturating_mul(2));
    let help = "give fewer tokens at a time";
    memory::ensure(&*device, "the logits", bytes, help)?;
    memory::ensure_on_host("the logits", logit_bytes, help)?;
    tokenformer_store::ensure_space(&args.out, logit_bytes)?;

    let logits = model.infer(&tokens, batch)?;
    ensure_finite(&logits, |at| {
        let (row, token) = (at / v / t, at / v % t);
        format!(
            "the logit of token {} at row {row}, position {token}",
            at % v
        )
    })?;
    let mut nll = Vec::with_capacity(batch * (t - 1));
    if t > 1 {
        let rows = tokens.chunks_exact(t);
        let inputs: Vec<u32> = rows
            .clone()
            .flat_map(|row| &row[..t - 1])
            .copied()
            .collect();
        let targets: Vec<u32> = rows.flat_map(|row| &row[1..]).copied().collect();
        let mut g = Graph::inference(&device);
        nll = model.loss(&mut g, &inputs, &targets, batch, 0.0)?;
        ensure_finite(&nll, |at| {
            let (row, token) = (at / (t - 1), at % (t - 1) + 1);
            format!("the loss at row {row}, position {token}")
        })?;
    }
    let tensors = [
        TensorSource::f32("logits", &[batch, t, v], &logits),
        TensorSource::f32("nll", &[batch, t - 1], &nll),
    ];
    write_safetensors(&args.out, &BTreeMap::new(), tensors)?;
    outln!(
        "logits [{batch}, {t}, {v}] and nll [{batch}, {}] written to {}",
        t - 1,
        args.out.display()
    );
    Ok(())
}

/// Tokens `[B, T]` flat, and `B`.
fn read_tokens(path: &Path) -> Result<(Vec<u32>, usize)> {
    let place = format!("--tokens {}", path.display());
    let bad = |got: String| usage(&place, EXPECTED, got, HELP);
    if path.extension().is_some_and(|e| e == "safetensors") {
        let file = SafetensorsFile::open(path)?;
        if !file.contains("tokens") {
            let names: Vec<&str> = file.names().take(4).collect();
            return Err(bad(match names.is_empty() {
                true => "a file without arrays".into(),
                false => format!("no array `tokens` but {}", names.join(", ")),
            }));
        }
        let shape = file.shape("tokens")?.to_vec();
        let batch = match shape[..] {
            [t] if t > 0 => 1,
            [b, t] if b > 0 && t > 0 => b,
            _ => return Err(bad(format!("an array of shape {shape:?}"))),
        };
        return Ok((file.read_u32("tokens")?, batch));
    }
    let bytes = tokenformer_store::read_small(path, MAX_JSON_BYTES)?;
    let TokenRows { tokens, lengths } =
        serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
            path: path.into(),
            problem: format!("not {EXPECTED}: {error}"),
            help: HELP.into(),
        })?;
    let first = lengths.first().copied().unwrap_or(0);
    if first == 0 || lengths.iter().any(|&length| length != first) {
        let lengths = &lengths[..lengths.len().min(8)];
        return Err(bad(format!("rows of lengths {lengths:?}")));
    }
    Ok((tokens, lengths.len()))
}
