//! Times of preparing pictures, on one thread: resizing beside `image::imageops::resize`, and inputs of 224 x 224 pixels
//! from JPEG files of 500 x 375.
//!
//! Every number is the best of many runs, and both programs take turns, so that other work on the machine matters little.

use image::imageops::FilterType;
use image::{DynamicImage, ImageBuffer, Rgb};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokenformer_images::augment::{Augment, Crop};
use tokenformer_images::{DecodeOptions, Filter, ImageSet, LoaderOptions, Loader, Picture, Preprocess};
use tokenformer_images::{PrepareOptions, Split, Storage, decode, prepare, resize};
use tokenformer_images::source::{Source, SourceOptions};

const SHAPES: [([usize; 2], [usize; 2]); 7] = [
    ([500, 375], [298, 224]),
    ([500, 375], [341, 256]),
    ([333, 217], [224, 224]),
    ([1500, 1000], [336, 224]),
    ([64, 64], [224, 224]),
    ([2000, 1500], [298, 224]),
    ([28, 28], [32, 32]),
];

fn main() {
    resizing();
    inputs();
}

/// A picture with edges and slopes.
fn pixels(width: usize, height: usize, seed: usize) -> Vec<u8> {
    let value = |x: usize, y: usize, c: usize| {
        let stripes = if (x / 17 + y / 11 + seed) % 3 == 0 { 90 } else { 0 };
        ((x * (c + 2) / 3 + y * (seed % 5 + 1) / 2 + stripes) % 256) as u8
    };
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(x, y, c))))
        .collect()
}

/// The best time of each of two, taken in turns.
fn best(rounds: usize, mut first: impl FnMut(), mut second: impl FnMut()) -> [Duration; 2] {
    let mut best = [Duration::MAX; 2];
    for _ in 0..rounds {
        let started = Instant::now();
        first();
        best[0] = best[0].min(started.elapsed());
        let started = Instant::now();
        second();
        best[1] = best[1].min(started.elapsed());
    }
    best
}

fn resizing() {
    println!("resizing, bicubic, ms: from, to, ours, image::imageops (CatmullRom), ratio");
    let mut total = [0.0; 2];
    for ([width, height], [to_width, to_height]) in SHAPES {
        let bytes = pixels(width, height, 1);
        let picture = Picture::new(width, height, 3, bytes.clone()).expect("a picture");
        let theirs: ImageBuffer<Rgb<u8>, _> =
            ImageBuffer::from_raw(width as u32, height as u32, bytes).expect("a picture");
        let times = best(
            60,
            || {
                black_box(resize(&picture, to_width, to_height, Filter::Bicubic));
            },
            || {
                let (w, h) = (to_width as u32, to_height as u32);
                black_box(image::imageops::resize(&theirs, w, h, FilterType::CatmullRom));
            },
        );
        let ms = times.map(|time| time.as_secs_f64() * 1e3);
        total[0] += ms[0];
        total[1] += ms[1];
        println!(
            "{width}x{height},{to_width}x{to_height},{:.3},{:.3},{:.2}",
            ms[0],
            ms[1],
            ms[1] / ms[0]
        );
    }
    println!("all,,{:.3},{:.3},{:.2}", total[0], total[1], total[1] / total[0]);
}

/// JPEG files of 500 x 375, with 4:2:0 and quality 90.
fn jpeg(seed: usize) -> Vec<u8> {
    let image = ImageBuffer::from_raw(500, 375, pixels(500, 375, seed)).expect("a picture");
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90);
    DynamicImage::ImageRgb8(image).write_with_encoder(encoder).expect("a file");
    file
}

fn inputs() {
    let files: Vec<Vec<u8>> = (0..16).map(jpeg).collect();
    let preprocess = Preprocess::imagenet();
    let options = DecodeOptions::default();
    let decoded = best(
        20,
        || {
            for file in &files {
                black_box(decode(file, &options).expect("a picture"));
            }
        },
        || {
            for file in &files {
                let picture = decode(file, &options).expect("a picture");
                black_box(preprocess.input(picture));
            }
        },
    );
    let per_s = |time: Duration| files.len() as f64 / time.as_secs_f64();
    println!("JPEG 500x375, decoding alone: {:.0} images/s", per_s(decoded[0]));
    println!("to the centre crop of 224x224 of evaluation: {:.0} images/s", per_s(decoded[1]));
    println!("to the random crop of 224x224 of training: {:.0} images/s", training(&files));
}

/// Images per second of the loader without workers: files are read, hashed, decoded, cropped, mirrored and normalised.
fn training(files: &[Vec<u8>]) -> f64 {
    let folder = std::env::temp_dir().join(format!("vision-input-{}", std::process::id()));
    for (number, file) in files.iter().enumerate() {
        let class = folder.join("tree").join(["a", "b"][number % 2]);
        std::fs::create_dir_all(&class).expect("a folder");
        std::fs::write(class.join(format!("{number}.jpg")), file).expect("a file");
    }
    let source = Source::open(&folder.join("tree"), &SourceOptions::default()).expect("a source");
    let mut prepared = PrepareOptions::new(folder.join("set"));
    prepared.storage = Some(Storage::Indexed);
    prepared.valid_share = 0.2;
    prepare(&source, &prepared, &mut |_| {}).expect("a dataset");
    let set = std::sync::Arc::new(ImageSet::open(&folder.join("set")).expect("a dataset"));
    let count = set.split(Split::Train).expect("pictures").len();
    let augment = Augment {
        crop: Crop::resized(),
        flip: 0.5,
        ..Augment::default()
    };
    let options = LoaderOptions {
        workers: 0,
        ..LoaderOptions::new(Preprocess::imagenet(), augment)
    };
    let mut loader = Loader::training(set, options, 0).expect("a loader");
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        black_box(loader.next(count).expect("a batch"));
        best = best.min(started.elapsed());
    }
    let _ = std::fs::remove_dir_all(folder);
    count as f64 / best.as_secs_f64()
}
