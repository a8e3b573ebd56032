//! `inspect --plan`: the memory of a run before it starts.

use super::recipe::of_user;
use super::{dataset, device_in, print_json};
use crate::args::InspectArgs;
use crate::devices;
use std::path::Path;
use tokenformer_core::Recompute;
use tokenformer_core::presets::Preset;
use tokenformer_data::Dataset;
use tokenformer_images::dataset::{Pictures, is_image_dataset};
use tokenformer_images::{ImageSet, Split};
use tokenformer_report::table::{Table, human_bytes, human_count};
use tokenformer_train::footprint::{Footprint, PlanInputs};
use tokenformer_train::recipe::Recipe;
use tokenformer_train::{Result, memory};

/// Assumed memory of the program if the system does not report it.
const PROGRAM_BYTES: u64 = 16 << 20;
/// What a training takes beside its arrays and does not share with this plan, as it was measured: code, stacks, records.
const RUN_BYTES: u64 = 5 << 20;
/// The same of what prepares pictures beside it: threads, and pictures that they are at.
const LOADER_BYTES: u64 = 5 << 20;

#[derive(serde::Serialize)]
struct Output {
    /// The plan with the settings of the recipe.
    recompute: Recompute,
    /// Bytes that are free on this machine, or on the GPU that the plan is for.
    available_bytes: Option<u64>,
    device: String,
    /// Bytes of the data that are read through the system's cache of files: they count as memory of the program while
    /// there is room, and the system takes them back when there is not.
    mapped_bytes: u64,
    modes: Vec<Footprint>,
}

/// Plans a run with each kind of recomputation.
pub fn run(args: &InspectArgs, recipe: Option<&Path>) -> Result<()> {
    let mut resolved = of_user(recipe, &args.sets)?;
    dataset::locate(&mut resolved, recipe)?;
    let recipe = resolved.recipe;
    let planned = devices::planned(args.compute.device.as_deref(), recipe.train.precision);
    let device = match planned {
        Some(device) => device,
        None => device_in(&args.compute, recipe.train.precision)?,
    };
    // What the device holds already, for its libraries, is part of the plan.
    let own_bytes = device.free_bytes();
    let own_bytes = own_bytes.map(|free| free + device.usage().total() as u64);
    let mut beside = RUN_BYTES;
    let (vocab, held_out) = match recipe.data.dir.as_str() {
        "" => (without_data(&recipe)?, 0),
        dir if is_image_dataset(Path::new(dir)) => {
            let set = ImageSet::open(Path::new(dir))?;
            let held_out = set.split(Split::Valid).map_or(0, Pictures::len);
            beside += LOADER_BYTES;
            (set.summary().classes.len(), held_out)
        }
        dir => {
            let dataset = Dataset::open(Path::new(dir))?;
            (dataset.tokenizer.vocab_size(), dataset.valid.len())
        }
    };
    let around = PlanInputs {
        vocab,
        held_out,
        base_bytes: match own_bytes {
            // The program itself is not in the memory of a GPU.
            Some(_) => 0,
            None => memory::resident().map_or(PROGRAM_BYTES, |r| r.now_bytes) + beside,
        },
    };
    let modes = (Recompute::ALL.into_iter())
        .map(|recompute| Footprint::plan(&recipe, recompute, &device, around))
        .collect::<Result<Vec<_>>>()?;
    let output = Output {
        recompute: recipe.train.recompute,
        available_bytes: own_bytes.or_else(memory::available_bytes),
        device: device.describe(),
        mapped_bytes: mapped_bytes(Path::new(&recipe.data.dir)),
        modes,
    };
    match args.json {
        true => print_json(&output),
        false => print(&output),
    }
    Ok(())
}

/// Size of the files of a dataset that are mapped into memory: tokens and packed pixels.
fn mapped_bytes(dir: &Path) -> u64 {
    let mapped = |path: &Path| {
        path.extension()
            .is_some_and(|end| end == "tokens" || end == "pixels")
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries
        .filter(|entry| mapped(&entry.path()))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.sum()
}

/// Says what would fit where the plan does not.
fn say_if_too_large(output: &Output, peak_bytes: u64) {
    let Some(available) = output.available_bytes.filter(|bytes| *bytes < peak_bytes) else {
        return;
    };
    let smaller = output.modes.iter().find(|m| m.peak_bytes <= available);
    let help = match smaller {
        Some(mode) => format!("train.recompute = \"{}\" does", mode.recompute),
        None => "use a smaller train.batch, with more train.accumulate, or a smaller model".into(),
    };
    outln!(
        "this does not fit into the memory of {}: {help}",
        output.device
    );
}

/// The vocabulary of a recipe whose dataset is not there: its own, or that of its preset.
pub(super) fn without_data(recipe: &Recipe) -> Result<usize> {
    Ok(match recipe.model.vocab {
        0 => Preset::named(&recipe.model.preset)?.spec().vocab,
        vocab => vocab,
    })
}

fn print(output: &Output) {
    let mut table = Table::new([
        "recompute",
        "from step",
        "parameters",
        "weights",
        "moments",
        "gradients",
        "activations",
        "arena",
        "scratch",
        "host",
        "peak",
    ]);
    for mode in &output.modes {
        for stage in &mode.stages {
            table.row([
                mode.recompute.to_string(),
                stage.from_step.to_string(),
                human_count(stage.params),
                human_bytes(stage.weights_bytes),
                human_bytes(stage.moments_bytes),
                human_bytes(stage.gradients_bytes),
                human_bytes(stage.activations_bytes),
                human_bytes(stage.arena_bytes),
                human_bytes(stage.scratch_bytes),
                human_bytes(stage.host_bytes),
                human_bytes(mode.base_bytes + stage.peak_bytes),
            ]);
        }
    }
    out!("{table}");
    outln!("gradients, activations and work areas share the arena, one after the other");
    if let Some(mode) = output
        .modes
        .iter()
        .find(|m| m.recompute == output.recompute)
    {
        let available = match output.available_bytes {
            Some(bytes) => format!(" of {} that are free", human_bytes(bytes)),
            None => String::new(),
        };
        outln!(
            "train.recompute = \"{}\": at most {}{available}, {} of them for the program and its data",
            mode.recompute,
            human_bytes(mode.peak_bytes),
            human_bytes(mode.base_bytes)
        );
        if output.mapped_bytes > 0 {
            outln!(
                "besides, up to {} of the data in the system's cache of files, which it takes back when it needs the room",
                human_bytes(output.mapped_bytes)
            );
        }
        say_if_too_large(output, mode.peak_bytes);
    }
}
