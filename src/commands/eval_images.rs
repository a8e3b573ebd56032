//! `eval` of a model of images: accuracies, calibration, classes, confusions, and what was said of each picture.

use super::{device, find_model, print_json, stop_flag};
use crate::args::{EvalArgs, Split};
use crate::{Failure, outputs, ui, usage};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::Ordering;
use tokenformer_images::dataset::Pictures;
use tokenformer_images::{ImageSet, Split as Part};
use tokenformer_report::table::Table;
use tokenformer_store::{DirWriter, Which};
use tokenformer_train::tally::{ClassScore, likeliest};
use tokenformer_train::{Classifier, Error, Result, Tally, memory};

/// Pictures of a forward pass.
const BATCH: usize = 64;
/// Classes up to which the table of all of them is printed.
const MAX_PRINTED: usize = 50;
/// What the manifest of the output folder says that it is.
const KIND: &str = "evaluation";

/// The keys of timm's `validate.py`, in percent, and values that it does not have.
#[derive(Serialize)]
struct Summary {
    model: String,
    top1: f64,
    top1_err: f64,
    top5: f64,
    top5_err: f64,
    /// Means over classes, in percent.
    precision: f64,
    recall: f64,
    f1: f64,
    /// Millions of parameters.
    param_count: f64,
    img_size: usize,
    crop_pct: f64,
    interpolation: &'static str,
    data: String,
    split: &'static str,
    weights: &'static str,
    /// Nats per image.
    loss: f64,
    /// Expected calibration error over 15 intervals, 0 to 1.
    ece: f64,
    found: usize,
    evaluated: usize,
    skipped: Vec<SkippedPicture>,
}

#[derive(Clone, Serialize)]
struct SkippedPicture {
    file: String,
    reason: String,
}

/// What was said of a picture.
struct Prediction {
    name: String,
    label: u32,
    top: Vec<(u32, f64)>,
}

/// What an evaluation found.
struct Found {
    tally: Tally,
    predictions: Vec<Prediction>,
    skipped: Vec<SkippedPicture>,
}

/// Runs the verb on a dataset of pictures.
pub fn run(args: &EvalArgs, data: &Path) -> std::result::Result<(), Failure> {
    refuse_flags_of_text(args)?;
    if let Some(out) = &args.out {
        outputs::folder("--out", out, args.force, &[&args.model, data])?;
    }
    if !(0.0..=1.0).contains(&args.max_unreadable) {
        let help = "0.01 is the default";
        return Err(usage("--max-unreadable", "from 0 to 1", args.max_unreadable, help).into());
    }
    let device = device(&args.compute)?;
    let model_dir = find_model(&args.model, Which::Best)?.dir;
    let classifier = Classifier::load(&model_dir, &device, args.weights.into(), args.precision)?;
    let set = ImageSet::open(data)?;
    check_classes(&classifier, &set, data)?;
    let part = match args.split {
        Split::Train => Part::Train,
        Split::Valid => Part::Valid,
        Split::Test => Part::Test,
    };
    let Some(pictures) = set.split(part) else {
        let names: Vec<&str> = set
            .summary()
            .splits
            .iter()
            .map(|s| s.split.name())
            .collect();
        let help = "prepare the dataset with --test-images, or choose another split";
        return Err(usage("--split", &names.join(" or "), part.name(), help).into());
    };
    let found = evaluate(args, &classifier, pictures)?;
    let summary = summary(args, &classifier, &found, &model_dir, data, part);
    if let Some(out) = &args.out {
        write(out, &classifier.labels().classes, &found, &summary)?;
    }
    match args.json {
        true => print_json(&summary),
        false => print(&summary, &classifier.labels().classes, &found.tally),
    }
    Ok(())
}

fn refuse_flags_of_text(args: &EvalArgs) -> Result<()> {
    let given = [
        ("--context", args.context.is_some()),
        ("--stride", args.stride.is_some()),
        ("--tokens", args.tokens != 0),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => {
            let help = "leave it out: pictures are scored one by one, and all of them";
            Err(usage(
                flag,
                "a dataset of text",
                "a dataset of pictures",
                help,
            ))
        }
        None => Ok(()),
    }
}

/// Refuses a dataset whose classes are not those of the model.
fn check_classes(classifier: &Classifier, set: &ImageSet, data: &Path) -> Result<()> {
    let (own, others) = (&classifier.labels().classes, &set.summary().classes);
    if own == others {
        return Ok(());
    }
    let differs = own
        .iter()
        .zip(others)
        .enumerate()
        .find(|(_, (a, b))| a != b);
    let (expected, got) = match differs {
        Some((number, (name, other))) => (
            format!("{} classes, number {number} is {name:?}", own.len()),
            format!("{} classes, number {number} is {other:?}", others.len()),
        ),
        None => (format!("{} classes", own.len()), others.len().to_string()),
    };
    Err(Error::Damaged {
        path: data.into(),
        problem: format!(
            "other classes than the model's\n  expected: {expected}\n  got:      {got}"
        ),
        help: "prepare the dataset with --class-map and the names in the model's classes.json"
            .into(),
    })
}

/// Shows the model every picture once. One that cannot be read is skipped and reported, never replaced.
fn evaluate(args: &EvalArgs, classifier: &Classifier, pictures: &Pictures) -> Result<Found> {
    let batch = match args.batch {
        Some(batch) if batch == 0 || batch > 1 << 16 => {
            let help = "leave it out for 64 pictures";
            return Err(usage("--batch", "between 1 and 65536", batch, help));
        }
        batch => batch.unwrap_or(BATCH),
    };
    let config = classifier.model().config();
    let rows = (batch.min(pictures.len()) * config.context) as u64;
    let bytes = memory::inference_bytes(&config, rows);
    memory::ensure("the evaluation", bytes, "choose a smaller --batch")?;
    let input = &classifier.labels().preparation.input;
    let classes = config.classes();
    let (total, stop) = (pictures.len(), stop_flag());
    let bar = ui::bar(total as u64, "scoring");
    let mut found = Found {
        tally: Tally::new(classes),
        predictions: Vec::new(),
        skipped: Vec::new(),
    };
    let mut pixels = Vec::new();
    for start in (0..total).step_by(batch) {
        if stop.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Err(Error::Stopped {
                what: "the evaluation",
                expected: format!("{total} pictures scored"),
                got: start.to_string(),
                help: "run the command again for a result",
            });
        }
        pixels.clear();
        let mut there = Vec::new();
        for index in start..total.min(start + batch) {
            match pictures.picture(index) {
                Ok(picture) => {
                    pixels.extend(input.input(picture));
                    there.push(index);
                }
                Err(error) => found.skipped.push(SkippedPicture {
                    file: pictures.name(index).into(),
                    reason: error.to_string(),
                }),
            }
        }
        let logits = classifier.logits(&pixels)?;
        for (row, index) in logits.chunks_exact(classes).zip(there) {
            let label = pictures.label(index);
            found.tally.add(label, row);
            found.predictions.push(Prediction {
                name: pictures.name(index).into(),
                label,
                top: likeliest(row, 5),
            });
        }
        bar.set_position(start as u64);
    }
    bar.finish_and_clear();
    too_many_skipped(args, &found.skipped, total)?;
    Ok(found)
}

fn too_many_skipped(args: &EvalArgs, skipped: &[SkippedPicture], total: usize) -> Result<()> {
    const LISTED: usize = 20;
    for SkippedPicture { file, reason } in skipped.iter().take(LISTED) {
        errln!("warning: {file} is left out: {}", reason.replace('\n', ";"));
    }
    let most = args.max_unreadable * total as f64;
    if skipped.len() as f64 <= most && skipped.len() < total {
        return Ok(());
    }
    Err(Error::Damaged {
        path: skipped
            .first()
            .map_or_else(Default::default, |first| (&first.file).into()),
        problem: format!(
            "too many pictures that cannot be read\n  expected: at most {} of {total}\n  got:      {}, the first of which is this",
            most as usize,
            skipped.len()
        ),
        help: "put the files back, prepare the dataset again, or raise --max-unreadable".into(),
    })
}

fn summary(
    args: &EvalArgs,
    classifier: &Classifier,
    found: &Found,
    model: &Path,
    data: &Path,
    part: Part,
) -> Summary {
    let result = found.tally.evaluation();
    let (top1, top5) = result.accuracy.map_or((0.0, 0.0), |a| (a.top1, a.top5));
    let percent = |share: f64| (1e6 * share).round() / 1e4;
    let per_class = found.tally.per_class();
    // As scikit-learn's macro average over the classes that occur.
    let seen: Vec<&ClassScore> = per_class.iter().filter(|c| c.images + c.told > 0).collect();
    let mean = |of: fn(&ClassScore) -> f64| {
        percent(seen.iter().map(|class| of(class)).sum::<f64>() / seen.len().max(1) as f64)
    };
    let input = &classifier.labels().preparation.input;
    Summary {
        model: model.display().to_string(),
        top1: percent(top1),
        top1_err: percent(1.0 - top1),
        top5: percent(top5),
        top5_err: percent(1.0 - top5),
        precision: mean(|class| class.precision),
        recall: mean(|class| class.recall),
        f1: mean(|class| class.f1),
        param_count: (classifier.model().config().params() as f64 / 1e4).round() / 1e2,
        img_size: input.height.max(input.width),
        crop_pct: input.crop_share,
        interpolation: input.filter.name(),
        data: data.display().to_string(),
        split: part.name(),
        weights: args.weights.name(),
        loss: result.loss,
        ece: found.tally.calibration_error(),
        found: found.predictions.len() + found.skipped.len(),
        evaluated: found.predictions.len(),
        skipped: found.skipped.clone(),
    }
}

/// Writes what the evaluation found into a folder, as a whole.
fn write(out: &Path, classes: &[String], found: &Found, summary: &Summary) -> Result<()> {
    let name = |class: u32| quoted(&classes[class as usize]);
    let mut to = DirWriter::begin(out, KIND)?;
    to.write_json("summary.json", summary)?;
    let places = found
        .predictions
        .iter()
        .map(|p| p.top.len())
        .max()
        .unwrap_or(0);
    let mut rows = String::from("file,label");
    (1..=places).for_each(|i| rows += &format!(",class{i},probability{i}"));
    rows.push('\n');
    for prediction in &found.predictions {
        rows += &format!("{},{}", quoted(&prediction.name), name(prediction.label));
        for (class, probability) in &prediction.top {
            rows += &format!(",{},{probability:?}", name(*class));
        }
        rows.push('\n');
    }
    to.write_bytes("predictions.csv", rows.as_bytes())?;
    let mut rows = String::from("class,images,told,precision,recall,f1\n");
    for (class, score) in (0..).zip(found.tally.per_class()) {
        let ClassScore {
            images,
            told,
            precision,
            recall,
            f1,
        } = score;
        rows += &format!(
            "{},{images},{told},{precision:.6},{recall:.6},{f1:.6}\n",
            name(class)
        );
    }
    to.write_bytes("classes.csv", rows.as_bytes())?;
    let mut rows = String::from("label,told,images\n");
    for ((label, told), images) in found.tally.confusions() {
        rows += &format!("{},{},{images}\n", name(label), name(told));
    }
    to.write_bytes("confusions.csv", rows.as_bytes())?;
    to.commit()?;
    Ok(())
}

/// A field of a file of comma-separated values.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

fn print(summary: &Summary, classes: &[String], tally: &Tally) {
    outln!(
        "model          {} ({} weights)",
        summary.model,
        summary.weights
    );
    outln!("data           {}, {}", summary.data, summary.split);
    outln!(
        "pictures       {} evaluated + {} skipped = {} found",
        summary.evaluated,
        summary.skipped.len(),
        summary.found
    );
    outln!("top-1          {:.2} %", summary.top1);
    outln!("top-5          {:.2} %", summary.top5);
    outln!("loss           {:.4} nats per image", summary.loss);
    outln!(
        "calibration    {:.4} expected error over 15 intervals",
        summary.ece
    );
    outln!(
        "mean of classes: precision {:.2} %, recall {:.2} %, F1 {:.2} %",
        summary.precision,
        summary.recall,
        summary.f1
    );
    if classes.len() <= MAX_PRINTED {
        let mut table = Table::new(["class", "pictures", "told", "precision", "recall", "F1"]);
        for (name, score) in classes.iter().zip(tally.per_class()) {
            table.row([
                ui::printable(name).to_string(),
                score.images.to_string(),
                score.told.to_string(),
                format!("{:.4}", score.precision),
                format!("{:.4}", score.recall),
                format!("{:.4}", score.f1),
            ]);
        }
        out!("{table}");
    }
    let mut wrong: Vec<_> = tally.confusions().filter(|((a, b), _)| a != b).collect();
    wrong.sort_by_key(|(pair, images)| (std::cmp::Reverse(*images), *pair));
    for ((label, told), images) in wrong.into_iter().take(5) {
        let name = |class: u32| ui::printable(&classes[class as usize]).to_string();
        outln!(
            "{images} times {} was taken for {}",
            name(label),
            name(told)
        );
    }
}
