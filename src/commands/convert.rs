//! `convert`: a model directory from a published checkpoint.

use super::device;
use crate::args::{ConvertArgs, StoredArg, with_layout};
use crate::{Failure, outputs, shell, ui};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokenformer_convert::{ConvertOptions, convert, expect_timm};
use tokenformer_data::Tokenizer;
use tokenformer_report::table::{human_bytes, human_count};
use tokenformer_train::Error;
use tokenformer_train::files::KIND_MODEL;

/// Runs the verb.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    // The only type so far; the match is where another one would be chosen.
    let StoredArg::F32 = args.dtype;
    let (is_timm, from) = with_layout("--from", &args.from)?;
    let configs = args.config.iter().map(PathBuf::as_path);
    let inputs: Vec<&Path> = std::iter::once(from).chain(configs).collect();
    outputs::folder("--to", &args.to, args.force, &[KIND_MODEL], &inputs)?;
    let device = device(&args.compute)?;
    let tokenizer = args.tokenizer.as_deref().map(Tokenizer::parse_spec);
    if is_timm {
        expect_timm(from)?;
    }
    let options = ConvertOptions {
        from: from.into(),
        configs: args.config.clone(),
        tokenizer: tokenizer.transpose().map_err(Error::from)?,
        to: args.to.clone(),
    };
    let started = Instant::now();
    let bar = ui::bar(0, "converting");
    let converted = convert(&options, &device, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let converted = converted?;
    let config = &converted.config;
    let outputs = if config.input.is_tokens() {
        "vocabulary"
    } else {
        "classes"
    };
    outln!(
        "{}: {} tensors, {} parameters, {} layers of width {}, {outputs} {}, context {}",
        converted.weights.display(),
        converted.tensors,
        human_count(config.params()),
        config.layers(),
        config.width,
        config.vocab,
        config.context
    );
    for note in &converted.notes {
        outln!("note: {note}");
    }
    outln!(
        "{} in f32 written to {} in {:.1} s",
        human_bytes(4 * config.params()),
        args.to.display(),
        started.elapsed().as_secs_f64()
    );
    if converted.has_tokenizer {
        outln!(
            "try it with: tokenformer generate --model {} --prompt \"Once\"",
            shell::path(&args.to)
        );
    }
    Ok(())
}
