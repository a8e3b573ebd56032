//! Batches: the same for any number of workers and any cut, and resumed from a position.

mod common;

use std::sync::Arc;

use common::{fixture, prepared};
use tokenformer_images::augment::{Augment, Crop, Erase};
use tokenformer_images::{Batch, ImageSet, Loader, LoaderOptions, Preprocess, Split, Target};

fn everything() -> Augment {
    Augment {
        erase: Some(Erase::default()),
        ..Augment::mae()
    }
}

fn options(augment: Augment) -> LoaderOptions {
    let preprocess = Preprocess::small(16, vec![0.5; 3], vec![0.25; 3]);
    LoaderOptions {
        seed: 5,
        ..LoaderOptions::new(preprocess, augment)
    }
}

fn set() -> (tempfile::TempDir, Arc<ImageSet>) {
    let scratch = tempfile::tempdir().unwrap();
    let set = Arc::new(prepared(scratch.path(), 30, 20));
    (scratch, set)
}

/// Samples of the batches of these sizes, one after the other.
fn joined(loader: &mut Loader, sizes: &[usize]) -> Batch {
    let mut all = loader.next(0).unwrap();
    for &size in sizes {
        let batch = loader.next(size).unwrap();
        all.pixels.extend(batch.pixels);
        all.targets.extend(batch.targets);
        all.images.extend(batch.images);
    }
    all
}

#[test]
fn workers_and_cuts_change_nothing() {
    let (_scratch, set) = set();
    let reference = {
        let mut loader = Loader::training(set.clone(), options(everything()), 0).unwrap();
        joined(&mut loader, &[160])
    };
    assert!(
        reference
            .targets
            .iter()
            .any(|t| t.first != t.second && t.weight < 1.0)
    );
    for (workers, ahead) in [(0, 1), (1, 1), (2, 7), (4, 64)] {
        let options = LoaderOptions {
            workers,
            ahead,
            ..options(everything())
        };
        // Odd sizes cut pairs apart.
        let mut loader = Loader::training(set.clone(), options, 0).unwrap();
        let batch = joined(&mut loader, &[1, 7, 32, 0, 20, 99, 1]);
        assert!(batch == reference, "{workers} workers");
        assert_eq!(loader.position(), 160);
    }
}

#[test]
fn a_position_is_all_that_a_resumed_run_needs() {
    let (_scratch, set) = set();
    let mut loader = Loader::training(set.clone(), options(everything()), 0).unwrap();
    loader.next(37).unwrap();
    let position = loader.position();
    let expected = loader.next(50).unwrap();
    let mut resumed = Loader::training(set.clone(), options(everything()), position).unwrap();
    assert_eq!(resumed.next(50).unwrap(), expected);
    loader.next(3).unwrap();
    loader.seek(position);
    assert_eq!(loader.next(50).unwrap(), expected);
    let other = LoaderOptions {
        seed: 6,
        ..options(everything())
    };
    assert_ne!(
        Loader::training(set, other, position)
            .unwrap()
            .next(50)
            .unwrap(),
        expected
    );
}

#[test]
fn an_epoch_shows_every_picture_once() {
    let (_scratch, set) = set();
    let count = set.split(Split::Train).unwrap().len();
    let mut loader = Loader::training(set, options(Augment::small()), 0).unwrap();
    let mut orders = Vec::new();
    for _ in 0..3 {
        let mut images = loader.next(count).unwrap().images;
        orders.push(images.clone());
        images.sort_unstable();
        assert!(images.into_iter().eq(0..count));
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
}

#[test]
fn evaluation_shows_every_picture_in_order_without_changes() {
    let (_scratch, set) = set();
    let preprocess = options(everything()).preprocess;
    let valid = set.split(Split::Valid).unwrap();
    for workers in [0, 3] {
        let options = LoaderOptions {
            workers,
            ..options(everything())
        };
        let mut loader = Loader::evaluation(set.clone(), Split::Valid, options).unwrap();
        let batch = joined(&mut loader, &[5, 1000]);
        assert!(batch.images.iter().copied().eq(0..valid.len()));
        assert!(loader.next(5).unwrap().is_empty());
        for (index, pixels) in batch.pixels.chunks(preprocess.len()).enumerate() {
            let mut expected = vec![0.0; preprocess.len()];
            preprocess.normalise(
                &preprocess.center(valid.picture(index).unwrap()),
                &mut expected,
            );
            assert!(pixels == expected);
            let label = valid.label(index);
            let target = Target {
                first: label,
                second: label,
                weight: 1.0,
            };
            assert_eq!(batch.targets[index], target);
        }
    }
    assert!(Loader::evaluation(set, Split::Test, options(Augment::default())).is_err());
}

/// Without random changes training shows what evaluation does.
#[test]
fn a_part_of_an_evaluation_has_pictures_of_all_classes() {
    let (_dir, set) = set();
    let of = set.split(Split::Valid).unwrap();
    let loader = |most| {
        let options = options(Augment::default());
        Loader::evaluation_of_part(set.clone(), Split::Valid, options, most).unwrap()
    };
    let classes = |images: &[usize]| {
        let labels = images.iter().map(|&image| of.label(image));
        labels.collect::<std::collections::BTreeSet<_>>()
    };
    let every: Vec<usize> = (0..of.len()).collect();
    let most = classes(&every).len();
    assert!(most > 1 && most < of.len());
    let part = loader(most).next(of.len()).unwrap();
    assert_eq!(part.len(), most);
    assert!(part.images.is_sorted_by(|a, b| a < b));
    assert!(classes(&part.images).len() > 1, "{:?}", part.images);
    for all in [of.len(), of.len() + 1, usize::MAX] {
        assert_eq!(loader(all).next(of.len() + 9).unwrap().images, every);
    }
}

#[test]
fn nothing_random_is_the_evaluation() {
    let (_scratch, set) = set();
    let plain = Augment::default();
    assert_eq!(plain.crop, Crop::Center);
    let mut training = Loader::training(set.clone(), options(plain.clone()), 0).unwrap();
    let mut evaluation = Loader::evaluation(set.clone(), Split::Train, options(plain)).unwrap();
    let all = evaluation.next(usize::MAX >> 40).unwrap();
    let batch = training.next(20).unwrap();
    let input = batch.pixels.len() / 20;
    for (at, &image) in batch.images.iter().enumerate() {
        let expected = &all.pixels[image * input..(image + 1) * input];
        assert!(&batch.pixels[at * input..(at + 1) * input] == expected);
    }
}

#[test]
fn a_lost_picture_is_an_error_with_its_name() {
    use tokenformer_images::source::SourceOptions;
    use tokenformer_images::{PrepareOptions, Source, Storage, prepare};
    let scratch = tempfile::tempdir().unwrap();
    drop(prepared(scratch.path(), 30, 20));
    let source = Source::open(&scratch.path().join("tree"), &SourceOptions::default()).unwrap();
    let mut prepare_options = PrepareOptions::new(scratch.path().join("index"));
    prepare_options.storage = Some(Storage::Indexed);
    prepare(&source, &prepare_options, &mut |_| {}).unwrap();
    let set = Arc::new(ImageSet::open(&scratch.path().join("index")).unwrap());
    let lost = set.split(Split::Train).unwrap().name(3).to_owned();
    let path = scratch.path().join("tree").join(&lost);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for workers in [0, 2] {
        let options = LoaderOptions {
            workers,
            ..options(Augment::default())
        };
        let mut loader = Loader::evaluation(set.clone(), Split::Train, options).unwrap();
        loader.next(2).unwrap();
        let error = loader.next(5).unwrap_err().to_string();
        assert!(error.contains(&lost), "{error}");
        // The position stayed, so the same batch can be asked for again.
        assert_eq!(loader.position(), 2);
        std::fs::write(&path, &bytes).unwrap();
        // A worker may have tried the picture a second time before it was there again.
        let again = loader.next(5).or_else(|_| loader.next(5));
        assert_eq!(again.unwrap().images, [2, 3, 4, 5, 6]);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Against timm's `mixup_target` with the classes 2 and 0 of 5.
#[test]
fn soft_targets_equal_timm() {
    for row in fixture("targets") {
        let batch = Batch {
            pixels: Vec::new(),
            targets: vec![Target {
                first: 2,
                second: 0,
                weight: row["lam"].as_f64().unwrap() as f32,
            }],
            images: vec![0],
        };
        let soft = batch.soft_targets(5, row["smoothing"].as_f64().unwrap());
        for (got, expected) in soft.iter().zip(row["soft"].as_array().unwrap()) {
            assert!(
                (f64::from(*got) - expected.as_f64().unwrap()).abs() < 1e-6,
                "{row}: {soft:?}"
            );
        }
        assert!((soft.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn wrong_options_are_refused() {
    let (_scratch, set) = set();
    let mut wrong = options(Augment::mae());
    wrong.augment.flip = 2.0;
    assert!(Loader::training(set.clone(), wrong, 0).is_err());
    let mut wrong = options(Augment::mae());
    wrong.preprocess.std = vec![0.0; 3];
    assert!(Loader::training(set, wrong, 0).is_err());
}
