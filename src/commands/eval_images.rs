//! `eval` of a model of images: accuracies, calibration, classes, confusions, and what was said of each picture.

use super::picture_report::{About, Told};
use super::{device, find_model, print_json, stop_flag};
use crate::args::{EvalArgs, Split};
use crate::{Failure, outputs, ui, usage};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::Ordering;
use tokenformer_images::dataset::Pictures;
use tokenformer_images::{ImageSet, Preparation, Split as Part, Summary as ImageSummary};
use tokenformer_report::table::Table;
use tokenformer_store::DirWriter;
use tokenformer_train::files::Weights;
use tokenformer_train::insight::Verdicts;
use tokenformer_train::tally::ClassScore;
use tokenformer_train::{Classifier, Error, Result, memory};

/// Share of the pictures that may be unreadable by default.
const MAX_UNREADABLE: f64 = 0.01;
/// Pictures of a forward pass.
const BATCH: usize = 64;
/// Classes up to which the table of all of them is printed.
const MAX_PRINTED: usize = 50;
/// What the manifest of the output folder says that it is.
const KIND: &str = "evaluation";

/// The keys of timm's `validate.py`, in percent, and values that it does not have.
#[derive(Serialize)]
pub(super) struct Summary {
    model: String,
    pub(super) top1: f64,
    top1_err: f64,
    pub(super) top5: f64,
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
    pub(super) loss: f64,
    /// Expected calibration error over 15 intervals, 0 to 1.
    ece: f64,
    /// Divisor of the logits that gives these pictures the least loss, if one of the range looked at does.
    temperature: Option<f64>,
    /// Pictures that it was fitted to, spread evenly over a large split.
    temperature_pictures: Option<usize>,
    found: usize,
    pub(super) evaluated: usize,
    skipped: Vec<SkippedPicture>,
}

#[derive(Serialize)]
struct SkippedPicture {
    file: String,
    reason: String,
}

/// Runs the verb on a dataset of pictures.
pub fn run(args: &EvalArgs, data: &Path) -> std::result::Result<(), Failure> {
    refuse_flags_of_text(args)?;
    if let Some(out) = &args.out {
        outputs::folder("--out", out, args.force, &[KIND], &[&args.model, data])?;
    }
    let max_unreadable = args.max_unreadable.unwrap_or(MAX_UNREADABLE);
    if !(0.0..=1.0).contains(&max_unreadable) {
        let help = "0.01 is the default";
        return Err(usage("--max-unreadable", "from 0 to 1", max_unreadable, help).into());
    }
    let device = device(&args.compute)?;
    let weights = Weights::from(args.weights);
    let model_dir = find_model(&args.model, weights.best())?.dir;
    if let Some(out) = &args.out {
        outputs::folder("--out", out, args.force, &[KIND], &[&model_dir])?;
    }
    let classifier = Classifier::load(
        &model_dir,
        &device,
        weights,
        args.precision,
        args.image_size,
    )?;
    let set = ImageSet::open(data)?;
    check_classes(&classifier, &set, data)?;
    check_preparation(&classifier.labels().preparation, set.summary(), data)?;
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
    let verdicts = evaluate(args, &classifier, pictures)?;
    let skipped = skipped(&verdicts, pictures);
    refuse_too_many(max_unreadable, &skipped, pictures.len())?;
    let about = (data, part);
    let summary = summary(args, &classifier, &verdicts, skipped, &model_dir, about);
    if let Some(out) = &args.out {
        let told = match args.report {
            true => {
                let about = About {
                    model_dir: &model_dir,
                    device: &device,
                    classifier: &classifier,
                    pictures,
                    part,
                    summary: &summary,
                };
                Some(about.report(args, &verdicts)?)
            }
            false => None,
        };
        write(out, &classifier, pictures, &verdicts, &summary, told)?;
    }
    match args.json {
        true => print_json(&summary),
        false => print(&summary, &classifier.labels().classes, &verdicts),
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

/// Refuses pictures of other channels than the model's, and warns if they were decoded or reduced in another way than the model's
/// preparation says: `predict` shows the model other numbers then.
fn check_preparation(model: &Preparation, set: &ImageSummary, data: &Path) -> Result<()> {
    let channels = [model.input.channels, set.channels];
    if channels[0] != channels[1] {
        let [expected, got] = channels.map(|channels| match channels {
            1 => "grey pictures",
            _ => "pictures in colour",
        });
        return Err(Error::Damaged {
            path: data.into(),
            problem: format!(
                "pictures of other channels than the model's\n  expected: {expected}\n  got:      {got}"
            ),
            help: "prepare the dataset again: --grey makes its pictures grey, as those of IDX files are from the start".into(),
        });
    }
    let of_set = Preparation::of_dataset(set, model.input.clone());
    let shown = |preparation: &Preparation| {
        let decode = preparation.decode;
        let reduced = preparation
            .resized
            .map_or("no".into(), |side| side.to_string());
        [
            ("background", format!("{:?}", decode.background)),
            ("largest number of pixels", decode.max_pixels.to_string()),
            ("turning by EXIF", decode.orient.to_string()),
            ("files that end early", decode.lenient.to_string()),
            ("reduced short side", reduced),
        ]
    };
    for ((what, own), (_, theirs)) in shown(model).into_iter().zip(shown(&of_set)) {
        if own != theirs {
            errln!(
                "warning: {what}: {theirs} in {}, {own} in the model's preprocess.json: `predict` can give other probabilities",
                data.display()
            );
        }
    }
    Ok(())
}

/// Shows the model every picture once.
fn evaluate(args: &EvalArgs, classifier: &Classifier, pictures: &Pictures) -> Result<Verdicts> {
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
    let (device, help) = (classifier.model().device(), "choose a smaller --batch");
    memory::ensure(&**device, "the evaluation", bytes, help)?;
    let input = &classifier.labels().preparation.input;
    let (total, stop) = (pictures.len(), stop_flag());
    let bar = ui::bar(total as u64, "scoring");
    let mut verdicts = Verdicts::new(config.classes());
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
        let some = start..total.min(start + batch);
        verdicts.show(pictures, input, some, |pixels, _| classifier.logits(pixels))?;
        bar.set_position(start as u64);
    }
    bar.finish_and_clear();
    Ok(verdicts)
}

fn skipped(verdicts: &Verdicts, pictures: &Pictures) -> Vec<SkippedPicture> {
    let skipped = verdicts.skipped.iter().map(|picture| SkippedPicture {
        file: pictures.name(picture.index).into(),
        reason: picture.reason.to_string(),
    });
    skipped.collect()
}

/// Warns of pictures that were skipped, and refuses more of them than accepted.
fn refuse_too_many(max_unreadable: f64, skipped: &[SkippedPicture], total: usize) -> Result<()> {
    const LISTED: usize = 20;
    for SkippedPicture { file, reason } in skipped.iter().take(LISTED) {
        errln!("warning: {file} is left out: {}", reason.replace('\n', ";"));
    }
    let most = max_unreadable * total as f64;
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
    verdicts: &Verdicts,
    skipped: Vec<SkippedPicture>,
    model: &Path,
    (data, part): (&Path, Part),
) -> Summary {
    let tally = &verdicts.tally;
    let result = tally.evaluation();
    let (top1, top5) = result.accuracy.map_or((0.0, 0.0), |a| (a.top1, a.top5));
    let percent = |share: f64| (1e6 * share).round() / 1e4;
    let per_class = tally.per_class();
    // As scikit-learn's macro average over the classes that occur.
    let seen: Vec<&ClassScore> = per_class.iter().filter(|c| c.images + c.told > 0).collect();
    let mean = |of: fn(&ClassScore) -> f64| {
        percent(seen.iter().map(|class| of(class)).sum::<f64>() / seen.len().max(1) as f64)
    };
    let input = &classifier.labels().preparation.input;
    let fitted = verdicts.temperature();
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
        ece: tally.calibration_error(),
        temperature: fitted.map(|fitted| fitted.divisor),
        temperature_pictures: fitted.map(|fitted| fitted.pictures),
        found: verdicts.all.len() + skipped.len(),
        evaluated: verdicts.all.len(),
        skipped,
    }
}

/// Writes what the evaluation found into a folder, as a whole.
fn write(
    out: &Path,
    classifier: &Classifier,
    pictures: &Pictures,
    verdicts: &Verdicts,
    summary: &Summary,
    told: Option<Told>,
) -> Result<()> {
    let classes = &classifier.labels().classes;
    let name = |class: u32| quoted(&classes[class as usize]);
    let mut to = DirWriter::begin(out, KIND)?;
    to.write_json("summary.json", summary)?;
    let places = verdicts.all.iter().map(|v| v.top.len()).max().unwrap_or(0);
    let mut rows = String::from("file,label");
    (1..=places).for_each(|i| rows += &format!(",class{i},probability{i}"));
    rows.push('\n');
    for verdict in &verdicts.all {
        let file = quoted(pictures.name(verdict.index));
        rows += &format!("{file},{}", name(verdict.label));
        for (class, probability) in &verdict.top {
            rows += &format!(",{},{probability:?}", name(*class));
        }
        rows.push('\n');
    }
    to.write_bytes("predictions.csv", rows.as_bytes())?;
    let mut rows = String::from("class,images,told,precision,recall,f1\n");
    for (class, score) in (0..).zip(verdicts.tally.per_class()) {
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
    for ((label, told), images) in verdicts.tally.confusions() {
        rows += &format!("{},{},{images}\n", name(label), name(told));
    }
    to.write_bytes("confusions.csv", rows.as_bytes())?;
    if let Some(told) = told {
        to.write_bytes("tokens.csv", told.tokens.as_bytes())?;
        to.write_bytes("report.html", told.page.as_bytes())?;
    }
    to.commit()?;
    Ok(())
}

/// A field of a file of comma-separated values.
pub(super) fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

fn print(summary: &Summary, classes: &[String], verdicts: &Verdicts) {
    let tally = &verdicts.tally;
    outln!(
        "model          {} ({} weights)",
        summary.model,
        summary.weights
    );
    outln!("data           {}, {}", summary.data, summary.split);
    outln!("pictures       {}", verdicts.counts());
    outln!("top-1          {:.2} %", summary.top1);
    outln!("top-5          {:.2} %", summary.top5);
    outln!("loss           {:.4} nats per image", summary.loss);
    outln!(
        "calibration    {:.4} expected error over 15 intervals",
        summary.ece
    );
    match (summary.temperature, summary.temperature_pictures) {
        (Some(temperature), Some(pictures)) if pictures < summary.evaluated => {
            outln!(
                "temperature    {temperature:.3}, fitted to {pictures} of these pictures, spread evenly"
            );
        }
        (Some(temperature), _) => {
            outln!("temperature    {temperature:.3}, fitted to these pictures")
        }
        (None, _) => outln!("temperature    none: no divisor from 1/16 to 16 has the least loss"),
    }
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
