//! `predict`: the likeliest classes of pictures.

use super::{device, find_model, print_json, stop_flag};
use crate::args::PredictArgs;
use crate::{Failure, ui, usage};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tokenformer_images::source;
use tokenformer_train::files::Weights;
use tokenformer_train::tally::likeliest;
use tokenformer_train::{Classifier, Error};

#[derive(Serialize)]
struct Output {
    model: String,
    found: usize,
    predicted: usize,
    pictures: Vec<Picture>,
    skipped: Vec<Skipped>,
}

#[derive(Serialize)]
struct Picture {
    file: String,
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    number: u32,
    name: String,
    probability: f64,
}

#[derive(Serialize)]
struct Skipped {
    file: String,
    reason: String,
}

/// Runs the verb.
pub fn run(args: &PredictArgs) -> Result<(), Failure> {
    if args.top == 0 {
        return Err(usage("--top", "at least 1", args.top, "5 is the default").into());
    }
    let device = device(&args.compute)?;
    let weights = Weights::from(args.weights);
    let dir = find_model(&args.model, weights.best())?.dir;
    let classifier = Classifier::load(&dir, &device, weights, args.precision, args.image_size)?;
    let (files, skipped) = list(&args.paths)?;
    let mut output = Output {
        model: dir.display().to_string(),
        found: files.len() + skipped.len(),
        predicted: 0,
        pictures: Vec::new(),
        skipped,
    };
    for file in files {
        if stop_flag().load(Ordering::Relaxed) {
            return Err(Error::Stopped {
                what: "the prediction",
                expected: format!("{} pictures", output.found),
                got: output.pictures.len().to_string(),
                help: "run the command again for the rest",
            }
            .into());
        }
        let shown = file.display().to_string();
        match classifier.labels().preparation.file(&file) {
            Ok(pixels) => {
                let picture = picture(&classifier, shown, &pixels, args.top)?;
                if !args.json {
                    print(&picture);
                }
                output.pictures.push(picture);
            }
            Err(reason) => output.skipped.push(Skipped {
                file: shown,
                reason: reason.to_string(),
            }),
        }
    }
    output.predicted = output.pictures.len();
    for Skipped { file, reason } in &output.skipped {
        errln!(
            "warning: {}: {}",
            ui::printable(file),
            ui::printable(reason)
        );
    }
    if output.predicted == 0 {
        return Err(nothing(&args.paths, &output).into());
    }
    match args.json {
        true => print_json(&output),
        false => errln!(
            "{} predicted + {} skipped = {} found",
            output.predicted,
            output.skipped.len(),
            output.found
        ),
    }
    Ok(())
}

/// The pictures that the paths mean, and what was met among them that cannot be followed.
fn list(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Skipped>), Failure> {
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let listed = source::list(path)?;
        files.extend(listed.names.into_iter().map(|name| path.join(name)));
        skipped.extend(listed.unreadable.into_iter().map(|(name, reason)| Skipped {
            file: path.join(name).display().to_string(),
            reason: reason.to_string(),
        }));
    }
    Ok((files, skipped))
}

fn picture(
    classifier: &Classifier,
    file: String,
    pixels: &[f32],
    top: usize,
) -> Result<Picture, Failure> {
    let logits = classifier.logits(pixels)?;
    let names = &classifier.labels().classes;
    let classes = likeliest(&logits, top)
        .into_iter()
        .map(|(number, probability)| Class {
            number,
            name: names[number as usize].clone(),
            probability,
        });
    Ok(Picture {
        file,
        classes: classes.collect(),
    })
}

fn print(picture: &Picture) {
    outln!("{}", ui::printable(&picture.file));
    for class in &picture.classes {
        outln!(
            "  {:6.2} %  {}",
            100.0 * class.probability,
            ui::printable(&class.name)
        );
    }
}

fn nothing(paths: &[PathBuf], output: &Output) -> Error {
    let got = match output.skipped.first() {
        Some(first) => format!(
            "{} files that cannot be read; {}: {}",
            output.found, first.file, first.reason
        ),
        None => "none".into(),
    };
    Error::Damaged {
        path: paths.first().map_or(Path::new("."), |path| path).into(),
        problem: format!("no pictures\n  expected: JPEG, PNG or WebP files\n  got:      {got}"),
        help: "name files, or folders that hold some".into(),
    }
}
