//! Datasets of pictures: `data prepare --images`, `data fetch` of public sets, `data make`.

use super::print_json;
use crate::args::{FetchArgs, ImageArgs, MakeArgs, MakeWhat, PrepareArgs};
use crate::{Failure, shell, ui, usage};
use std::path::{Path, PathBuf};
use tokenformer_images::fetch::{PublicSet, fetch};
use tokenformer_images::fractals::{self, FractalOptions};
use tokenformer_images::source::SourceOptions;
use tokenformer_images::{ImageSet, PrepareOptions, Source, Split, prepare};

/// Seed of the split of a public set, so that everyone has the same.
const PUBLIC_SEED: u64 = 1234;

/// Runs `data prepare --images`.
pub fn prepare_images(args: &PrepareArgs, images: &Path) -> Result<(), Failure> {
    let ImageArgs {
        valid_images,
        test_images,
        class_map,
        ..
    } = &args.images;
    let source = Source::open(
        images,
        &SourceOptions {
            valid: valid_images.clone(),
            test: test_images.clone(),
            class_map: class_map.clone(),
        },
    )?;
    refuse_flags_of_the_split(args, &source)?;
    let mut options = PrepareOptions::new(args.out.clone());
    options.force = args.force;
    options.valid_share = args.valid();
    options.seed = args.seed();
    options.storage = args.images.storage;
    options.resize = args.images.resize;
    options.channels = args.images.grey.then_some(1);
    options.decode.orient = !args.images.as_stored;
    options.decode.lenient = args.images.lenient;
    if let Some(background) = args.images.background {
        options.decode.background = background;
    }
    if let Some(share) = args.images.max_unreadable {
        options.max_unreadable = share;
    }
    make(&source, &options, args.json)
}

/// Refuses flags that say how pictures are held out, if they are given.
fn refuse_flags_of_the_split(args: &PrepareArgs, source: &Source) -> Result<(), Failure> {
    let given = [
        ("--valid", args.valid.is_some()),
        ("--seed", args.seed.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) if source.has(Split::Valid) => {
            let expected = "pictures of which some are to be held out";
            let help = "leave it out: the pictures to validate on are those of their own folder";
            Err(usage(flag, expected, "pictures to validate on", help).into())
        }
        _ => Ok(()),
    }
}

/// Runs `data fetch` of a set of pictures.
pub fn fetch_images(args: &FetchArgs, set: PublicSet) -> Result<(), Failure> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => PathBuf::from("data").join(set.name()),
    };
    let fetched = fetch(set, args.package.as_deref(), &out)?;
    let mut options = PrepareOptions::new(out);
    options.force = args.force;
    options.seed = PUBLIC_SEED;
    // A dataset of files would outlive the folder that the package was unpacked into.
    options.storage = Some(tokenformer_images::Storage::Packed);
    make(&fetched.source, &options, args.json)
}

/// Runs `data make`.
pub fn make_images(args: &MakeArgs) -> Result<(), Failure> {
    let source = match args.what {
        MakeWhat::Fractals => fractals::source(&FractalOptions {
            classes: args.classes,
            per_class: args.per_class,
            test_per_class: args.test_per_class,
            side: args.size,
            seed: args.seed,
        })?,
    };
    let mut options = PrepareOptions::new(args.out.clone());
    options.force = args.force;
    options.valid_share = args.valid;
    options.seed = args.seed;
    make(&source, &options, args.json)
}

/// Runs `data inspect` of a dataset of pictures.
pub fn inspect(dir: &Path, json: bool) -> Result<(), Failure> {
    let set = ImageSet::open(dir)?;
    match json {
        true => print_json(set.summary()),
        false => out!("{}", set.summary()),
    }
    Ok(())
}

fn make(source: &Source, options: &PrepareOptions, json: bool) -> Result<(), Failure> {
    let mut bar = None;
    let summary = prepare(source, options, &mut |progress| {
        bar.get_or_insert_with(|| ui::bar(progress.total as u64, "pictures"))
            .set_position(progress.done as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let summary = summary?;
    match json {
        true => print_json(&summary),
        false => {
            out!("{summary}");
            outln!("in {}", shell::path(&options.out));
        }
    }
    Ok(())
}
