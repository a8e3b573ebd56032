//! IDX files, the format of MNIST and its successors: two bytes of 0, a type, the number of axes, the length of each
//! axis in 4 bytes (big-endian), then the numbers. Only type 8, unsigned bytes, holds pictures and labels.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::{Block, Data, Item, Part, Source, named_classes};
use crate::error::{Error, Result};
use crate::split::Split;

/// Images and labels of each split.
pub(super) type Files = Vec<(Split, PathBuf, PathBuf)>;

const UNSIGNED_BYTE: u8 = 8;
/// Limit of elements of a compressed file, whose header may claim far more than it holds.
const MAX_COMPRESSED: u64 = 4 << 30;

/// The files of an IDX set: in the folder `path`, or next to the file of images that it is.
pub(super) fn find(path: &Path) -> Result<Option<Files>> {
    if path.is_file() {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let is_idx = name.contains("images") && name.contains("idx");
        return Ok(is_idx.then(|| {
            let labels = name
                .replace("images", "labels")
                .replace("idx3", "idx1")
                .replace("idx4", "idx1");
            vec![(
                Split::Train,
                path.to_owned(),
                present(&path.with_file_name(labels)),
            )]
        }));
    }
    let files = [("train", Split::Train), ("t10k", Split::Test)].map(|(prefix, split)| {
        let at = |kind: &str| present(&path.join(format!("{prefix}-{kind}-ubyte")));
        (split, at("images-idx3"), at("labels-idx1"))
    });
    let files: Files = files
        .into_iter()
        .filter(|(_, images, _)| images.is_file())
        .collect();
    Ok((!files.is_empty()).then_some(files))
}

/// The path of the file, with or without the extension of gzip, whichever exists.
fn present(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let other = match name.strip_suffix(".gz") {
        Some(plain) => path.with_file_name(plain),
        None => path.with_file_name(format!("{name}.gz")),
    };
    match !path.is_file() && other.is_file() {
        true => other,
        false => path.to_owned(),
    }
}

pub(super) fn open(path: &Path, files: Files, class_map: Option<&[String]>) -> Result<Source> {
    let mut parts = Vec::new();
    let mut shape = None;
    let mut count = 0;
    for (split, images_path, labels_path) in files {
        let images = read(
            &images_path,
            "images: 3 axes (count, height, width), or a fourth of 1 or 3 channels",
            |axes| {
                (axes.len() == 3 || axes.len() == 4 && matches!(axes[3], 1 | 3))
                    && axes.iter().all(|&n| n > 0)
            },
        )?;
        let labels = read(&labels_path, "labels: 1 axis", |axes| axes.len() == 1)?;
        if labels.numbers.len() != images.axes[0] {
            return Err(invalid(
                &labels_path,
                "another number of labels than images",
                &format!(
                    "{} labels, as {} has images",
                    images.axes[0],
                    images_path.display()
                ),
                labels.numbers.len(),
            ));
        }
        let (height, width) = (images.axes[1], images.axes[2]);
        let channels = images.axes.get(3).copied().unwrap_or(1);
        let first_shape = *shape.get_or_insert(channels);
        if first_shape != channels {
            let expected = format!("{first_shape} channels, as the training images");
            return Err(invalid(&images_path, "other channels", &expected, channels));
        }
        count = labels
            .numbers
            .iter()
            .map(|&l| usize::from(l) + 1)
            .fold(count, usize::max);
        let block = Arc::new(Block {
            bytes: images.numbers,
            before: 0,
            width,
            height,
            channels,
            is_planar: false,
        });
        let file = images_path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let items = labels
            .numbers
            .iter()
            .enumerate()
            .map(|(index, &label)| Item {
                label: u32::from(label),
                name: format!("{file}:{index}"),
                data: Data::Block {
                    block: Arc::clone(&block),
                    index,
                },
            });
        parts.push(Part {
            split,
            items: items.collect(),
        });
    }
    let location = path.display().to_string();
    Ok(Source {
        classes: named_classes(&location, count, None, class_map)?,
        location,
        root: None,
        channels: shape.unwrap_or(1),
        parts,
        notes: Vec::new(),
        unreadable: Vec::new(),
    })
}

/// A file's axes and its numbers, as many as the axes say.
struct Idx {
    axes: Vec<usize>,
    numbers: Vec<u8>,
}

fn read(path: &Path, expected: &str, fits: impl Fn(&[usize]) -> bool) -> Result<Idx> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let file_bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let mut reader = BufReader::new(file);
    let is_gzip = std::io::BufRead::fill_buf(&mut reader)
        .map_err(Error::io("read", path))?
        .starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = match is_gzip {
        true => Box::new(MultiGzDecoder::new(reader)),
        false => Box::new(reader),
    };
    let cut = |error: std::io::Error| {
        invalid(
            path,
            "the file is damaged or ends early",
            "a whole IDX file",
            error,
        )
    };
    let mut start = [0; 4];
    reader.read_exact(&mut start).map_err(cut)?;
    let [0, 0, UNSIGNED_BYTE, axis_count @ 1..=4] = start else {
        let got = format!("the first bytes {start:02x?}");
        return Err(invalid(
            path,
            "not an IDX file of bytes",
            "00 00 08, then 1 to 4 axes",
            got,
        ));
    };
    let mut axes = Vec::new();
    let mut numbers = 1_u64;
    for _ in 0..axis_count {
        let mut axis = [0; 4];
        reader.read_exact(&mut axis).map_err(cut)?;
        let axis = u32::from_be_bytes(axis);
        axes.push(axis as usize);
        numbers = numbers.saturating_mul(u64::from(axis));
    }
    if !fits(&axes) {
        return Err(invalid(
            path,
            "an IDX file of another kind",
            expected,
            format!("the axes {axes:?}"),
        ));
    }
    let most = match is_gzip {
        // Deflate expands a byte to at most 1032.
        true => MAX_COMPRESSED.min(file_bytes.saturating_mul(1032)),
        false => file_bytes,
    };
    if numbers > most {
        let expected = format!("at most {most} numbers in a file of {file_bytes} bytes");
        return Err(invalid(
            path,
            "the file is too short for its axes",
            &expected,
            format!("{axes:?}"),
        ));
    }
    let mut bytes = Vec::new();
    let mut limited = reader.take(numbers + 1);
    limited.read_to_end(&mut bytes).map_err(cut)?;
    if bytes.len() as u64 != numbers {
        let got = match bytes.len() as u64 > numbers {
            true => "more".to_string(),
            false => bytes.len().to_string(),
        };
        let expected = format!("{numbers} numbers for the axes {axes:?}");
        return Err(invalid(
            path,
            "another length than the axes say",
            &expected,
            got,
        ));
    }
    Ok(Idx {
        axes,
        numbers: bytes,
    })
}

fn invalid(
    path: &Path,
    problem: &'static str,
    expected: &str,
    got: impl std::fmt::Display,
) -> Error {
    Error::Source {
        location: path.display().to_string(),
        problem,
        expected: expected.into(),
        got: got.to_string(),
        help: "get the file again; images and labels lie beside each other under their usual names"
            .into(),
    }
}
