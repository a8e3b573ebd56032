//! `demo --images`: a model learns to tell pictures apart, grows without forgetting, and continues to learn.

use super::demo::{DATA, FIRST_STAGE, check_length, ensure_demo, out_dir, steps_for, summary};
use super::device;
use super::train::train;
use crate::args::DemoArgs;
use crate::{Failure, outputs, shell, ui, usage};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::config::{Init, NormSpan, Slots};
use tokenformer_core::growth::{Amount, Growth};
use tokenformer_core::optim::{AdamW, AdamWConfig};
use tokenformer_core::{Device, Gradients, Graph, LossTargets, Model, ModelConfig, SiteKind};
use tokenformer_images::augment::Crop;
use tokenformer_images::fractals::{self, FractalOptions};
use tokenformer_images::{ImageSet, PrepareOptions, Split, prepare};
use tokenformer_report::table::{human_count, human_duration};
use tokenformer_train::recipe::{GrowEvent, ModelTable, resolve, resolve_table};
use tokenformer_train::schedule::{Schedule, Shape};
use tokenformer_train::{Classifier, Outcome, Recipe, Resolved, Result, Resume, Tally, files};

/// Pictures to try `predict` with, in the run directory.
const SHOWN: &str = "pictures";
const CLASSES: usize = 10;
const PER_CLASS: usize = 220;
const TEST_PER_CLASS: usize = 40;
/// Parameter tokens of the sites, and those that the growth adds to each.
const ATTENTION: [usize; 2] = [32, 32];
const FFN: [usize; 2] = [128, 256];
const BATCH: usize = 32;
/// Share of the time that is for updates; the rest is for making pictures, evaluation and the report.
const TRAINING: f64 = 0.75;

/// Runs the verb.
pub fn run(args: &DemoArgs) -> std::result::Result<(), Failure> {
    let started = Instant::now();
    check_length(args)?;
    let device = device(&args.compute)?;
    let out = out_dir(args, "demo-images");
    outln!(
        "TokenFormer demo: a model learns to tell pictures apart, grows, and learns on. Everything goes to {}.\n",
        out.display()
    );
    let earlier = out.join("config.toml");
    let recipe = if earlier.exists() {
        outputs::run_folder(&out)?;
        ensure_demo(&out, "images.json")?;
        outln!("going on with the demo that is there, by its own settings");
        let mut recipe = resolve(Some(&earlier), &[])?;
        recipe.recipe.data.dir = out.join(DATA).display().to_string();
        recipe
    } else {
        outputs::run_folder_with_data(&out, DATA)?;
        make_pictures(args, &out)?;
        recipe(args, &out, &device)?
    };
    let config = recipe.recipe.model.build(CLASSES)?;
    outln!(
        "model: {} parameters, {} layers of width {}; {} steps of {} pictures, growing after {}\n",
        human_count(config.params()),
        config.layers(),
        config.width,
        recipe.recipe.train.steps,
        recipe.recipe.train.batch,
        recipe.recipe.grow.first().map_or(0, |grow| grow.at_step),
    );
    if train(&recipe, &out, &Resume::Auto, &device)? == Outcome::Finished {
        summary(&out)?;
        test(&out, &device)?;
        let shown = show_some(&out)?;
        outln!("\nlook at     {}", out.join("report.html").display());
        outln!(
            "ask it      {} predict {} --model {} --weights ema --top 2",
            shell::program(),
            shell::path(&shown),
            shell::path(&out)
        );
        outln!(
            "took        {}",
            human_duration(started.elapsed().as_secs_f64())
        );
    }
    Ok(())
}

fn make_pictures(args: &DemoArgs, out: &Path) -> Result<()> {
    let source = fractals::source(&FractalOptions {
        classes: CLASSES,
        per_class: PER_CLASS,
        test_per_class: TEST_PER_CLASS,
        seed: args.seed,
        ..FractalOptions::default()
    })?;
    let mut options = PrepareOptions::new(out.join(DATA));
    options.force = true;
    options.valid_share = 0.1;
    options.seed = args.seed;
    let bar = ui::bar((CLASSES * (PER_CLASS + TEST_PER_CLASS)) as u64, "pictures");
    let made = prepare(&source, &options, &mut |progress| {
        bar.set_position(progress.done as u64);
    });
    bar.finish_and_clear();
    let made = made?;
    let count = |split| made.split(split).map_or(0, |split| split.images);
    outln!(
        "pictures: fractals of {CLASSES} classes, made from seed {}: {} to train on, {} held out, {} to test with",
        args.seed,
        count(Split::Train),
        count(Split::Valid),
        count(Split::Test)
    );
    Ok(())
}

/// The demo as a recipe, its length chosen for the time it may take.
fn recipe(args: &DemoArgs, out: &Path, device: &Arc<dyn Device>) -> Result<Resolved> {
    let mut recipe = Recipe {
        seed: args.seed,
        model: ModelTable {
            width: 64,
            heads: 4,
            layers: 3,
            slots: Slots {
                qkv: ATTENTION[0],
                proj: ATTENTION[0],
                ffn: FFN[0],
            },
            norm: NormSpan::Segment,
            init: Init::FanIn,
            ..ModelTable::from_preset("vit-cifar")?
        },
        ..Recipe::default()
    };
    recipe.data.dir = out.join(DATA).display().to_string();
    recipe.images.augment.crop = Crop::Padded { pixels: 2 };
    recipe.images.augment.smoothing = 0.1;
    recipe.train.batch = BATCH;
    recipe.optimizer.weight_decay = 0.1;
    recipe.ema.decay = 0.99;
    let base = recipe.model.build(CLASSES)?;
    let steps = match args.steps {
        Some(steps) => steps,
        None => {
            let seconds = [&base, &grown(&base)].map(|config| step_seconds(config, device));
            let [first, second] = seconds;
            let mean = FIRST_STAGE * first? + (1.0 - FIRST_STAGE) * second?;
            steps_for(args.minutes * 60.0 * TRAINING / mean)
        }
    };
    recipe.train.steps = steps;
    recipe.schedule = Schedule {
        shape: Shape::Cosine,
        lr: 2e-3,
        warmup_steps: (steps / 20).clamp(1, 100),
        min_ratio: 0.01,
        ..Schedule::default()
    };
    recipe.eval.every = (steps / 10).max(1);
    recipe.checkpoint.every = (steps / 5).max(1);
    recipe.log.every = (steps / 200).clamp(1, 50);
    let growth = Growth {
        qkv: Amount::Add(ATTENTION[1]),
        proj: Amount::Add(ATTENTION[1]),
        ffn: Amount::Add(FFN[1]),
        ..Growth::default()
    };
    recipe.grow = vec![GrowEvent {
        at_step: ((steps as f64 * FIRST_STAGE) as u64).clamp(1, steps - 1),
        growth,
        ..GrowEvent::default()
    }];
    let table = toml::Table::try_from(&recipe)
        .map_err(|e| usage("demo", "a recipe", e, "choose smaller numbers"))?;
    resolve_table(table, "demo", &[])
}

/// A configuration of the size after the growth.
fn grown(base: &ModelConfig) -> ModelConfig {
    let mut grown = base.clone();
    for block in &mut grown.blocks {
        for kind in SiteKind::ALL {
            if let Some(site) = block.site_mut(kind) {
                site.segments[0].tokens += match kind {
                    SiteKind::Ffn => FFN[1],
                    _ => ATTENTION[1],
                };
            }
        }
    }
    grown
}

/// Time of an update, from a few on a grey picture.
fn step_seconds(config: &ModelConfig, device: &Arc<dyn Device>) -> Result<f64> {
    const STEPS: usize = 4;
    let mut model = Model::fresh(device, config, 0)?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let pixels = vec![0.5; BATCH * config.input.image().map_or(0, |image| image.pixels())];
    let classes = [0; BATCH];
    let mut best = f64::INFINITY;
    for _ in 0..STEPS {
        let started = Instant::now();
        gradients.reset();
        let mut g = Graph::training(device, &mut gradients);
        let pooled = model.pooled(&mut g, &pixels, BATCH)?;
        let weight = 1.0 / BATCH as f32;
        model.losses(&mut g, &pooled, LossTargets::Classes(&classes), weight)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    device.trim();
    Ok(best)
}

/// Measures the best average on the pictures that nothing was chosen by.
fn test(out: &Path, device: &Arc<dyn Device>) -> Result<()> {
    let weights = files::Weights::Ema;
    let dir = super::find_model(out, weights.best())?.dir;
    let classifier = Classifier::load(&dir, device, weights, Default::default(), None)?;
    let set = ImageSet::open(&out.join(DATA))?;
    let mut tally = Tally::new(CLASSES);
    let input = &classifier.labels().preparation.input;
    if let Some(pictures) = set.split(Split::Test) {
        for index in 0..pictures.len() {
            let logits = classifier.logits(&input.input(pictures.picture(index)?))?;
            tally.add(pictures.label(index), &logits);
        }
    }
    let top1 = tally.evaluation().accuracy.map_or(0.0, |a| a.top1);
    outln!(
        "test: {:.1} % of {} pictures that it has never seen, with averaged weights",
        100.0 * top1,
        tally.images()
    );
    Ok(())
}

/// Writes a test picture of each class as a PNG file, and returns the folder.
fn show_some(out: &Path) -> Result<std::path::PathBuf> {
    let folder = out.join(SHOWN);
    let set = ImageSet::open(&out.join(DATA))?;
    std::fs::create_dir_all(&folder).map_err(|source| tokenformer_train::Error::Io {
        action: "make the folder",
        path: folder.clone(),
        source,
        help: "check the permissions",
    })?;
    let Some(pictures) = set.split(Split::Test) else {
        return Ok(folder);
    };
    for (class, name) in (0..).zip(&set.summary().classes) {
        let first = (0..pictures.len()).find(|&index| pictures.label(index) == class);
        if let Some(index) = first {
            let file = folder.join(format!("{name}.png"));
            tokenformer_store::write_atomic(&file, &pictures.picture(index)?.to_png())?;
        }
    }
    Ok(folder)
}
