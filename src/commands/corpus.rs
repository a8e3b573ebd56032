//! `data import` and `data export`: conversion of token data of other programs.

use super::{dataset, print_json};
use crate::args::{ExportDataArgs, ImportArgs, Split};
use crate::{Failure, outputs, ui, usage};
use tokenformer_convert::corpus::{self, ImportCorpus, Part};
use tokenformer_data::Tokenizer;
use tokenformer_report::table::human_count;
use tokenformer_train::Error;

/// Runs `data import`.
pub fn import(args: &ImportArgs) -> Result<(), Failure> {
    let options = ImportCorpus {
        prefix: args.megatron.clone(),
        tokenizer: Tokenizer::parse_spec(&args.tokenizer).map_err(Error::from)?,
        out: args.out.clone(),
        valid_fraction: args.valid,
        seed: args.seed,
        force: args.force,
    };
    let bar = ui::bar(0, "reading");
    let summary = corpus::import(&options, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let summary = summary?;
    match args.json {
        true => print_json(&summary),
        false => out!("{summary}"),
    }
    Ok(())
}

/// Runs `data export`.
pub fn export(args: &ExportDataArgs) -> Result<(), Failure> {
    let part = match args.split {
        Some(Split::Train) => Part::Train,
        Some(Split::Valid) => Part::Valid,
        Some(Split::Test) => {
            let help = "a dataset of text has no test split";
            return Err(usage("--split", "valid or train", "test", help).into());
        }
        None => Part::All,
    };
    dataset::ensure_text("--data", &args.data)?;
    let files = corpus::files(&args.out);
    outputs::new_files("--out", &files, args.force, &[&args.data])?;
    let bar = ui::bar(0, "writing");
    let exported = corpus::export(&args.data, &args.out, part, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let exported = exported?;
    outln!(
        "{} documents ({} for training, then {} for validation), {} tokens",
        exported.train_documents + exported.valid_documents,
        exported.train_documents,
        exported.valid_documents,
        human_count(exported.tokens)
    );
    let [tokens, index] = files;
    outln!("written to {} and {}", tokens.display(), index.display());
    Ok(())
}
