//! The 1,797 handwritten digits of 8 x 8 that are part of the crate `smartcore`.
//!
//! The format of its file `digits.xy` is: features and samples (8 bytes each), features of all samples, then their
//! labels, all as f32, everything little-endian. Levels are 0 to 16 and become 0 to 255.
//!
//! The set comes without parts. Of every ten pictures of a class, in the order of the file, one validates and one tests, so
//! all parts have the classes in the same shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::Work;
use crate::error::{Error, Result};
use crate::source::{Block, Data, Item, Part, Source};
use crate::split::Split;

pub(super) const PACKAGE: &str = "smartcore 0.7.0 (a crate)";

const MANIFEST: &str = "[package]\nname = \"digits\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
    [lib]\npath = \"lib.rs\"\n[dependencies]\nsmartcore = \"=0.7.0\"\n[workspace]\n";
const INSIDE: &str = "src/dataset/digits.xy";
const SAMPLES: usize = 1797;
const FEATURES: usize = 64;
const FILE_BYTES: usize = 16 + 4 * SAMPLES * (FEATURES + 1);

pub(super) fn fetch(work: &Work<'_>) -> Result<Source> {
    let path = file(work)?;
    let bytes = tokenformer_store::read_small(&path, FILE_BYTES as u64)?;
    let (pixels, labels) =
        parse(&bytes).ok_or_else(|| work.wrong(&path, "another content".into()))?;
    let block = Arc::new(Block {
        bytes: pixels,
        before: 0,
        width: 8,
        height: 8,
        channels: 1,
        is_planar: false,
    });
    let splits = splits(&labels);
    let part = |split: Split| {
        let own = (splits.iter().zip(&labels).enumerate()).filter(|(_, (of, _))| **of == split);
        let items = own.map(|(index, (_, &label))| Item {
            label: u32::from(label),
            name: format!("digit:{index}"),
            data: Data::Block {
                block: Arc::clone(&block),
                index,
            },
        });
        Part {
            split,
            items: items.collect(),
        }
    };
    Ok(Source {
        location: "Optical recognition of handwritten digits".into(),
        root: None,
        channels: 1,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        parts: Split::ALL.map(part).into(),
        notes: Vec::new(),
        unreadable: Vec::new(),
    })
}

/// The path of the file in the given package, or in the crate, which cargo downloads for a project that depends on it.
fn file(work: &Work<'_>) -> Result<PathBuf> {
    match work.package {
        Some(dir) if dir.is_dir() => return Ok(dir.join(INSIDE)),
        Some(file) if file.extension().is_some_and(|e| e == "crate") => {
            let archive = work.absolute(file)?;
            work.run("tar", &["-xzf", &archive])?;
            return Ok(work.folder.join("smartcore-0.7.0").join(INSIDE));
        }
        Some(file) => return Ok(file.to_owned()),
        None => {}
    }
    for (name, text) in [("Cargo.toml", MANIFEST), ("lib.rs", "")] {
        let path = work.folder.join(name);
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    let json = work.run("cargo", &["metadata", "--format-version=1", "--quiet"])?;
    let manifest =
        manifest(&json).ok_or_else(|| work.wrong(work.folder, "no such crate".into()))?;
    Ok(manifest.parent().unwrap_or(Path::new(".")).join(INSIDE))
}

/// The path of the crate's `Cargo.toml` in cargo's cache.
fn manifest(json: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    let metadata: Metadata = serde_json::from_slice(json).ok()?;
    let package = metadata
        .packages
        .into_iter()
        .find(|p| p.name == "smartcore")?;
    Some(package.manifest_path)
}

/// The part of each picture, by the labels of all.
fn splits(labels: &[u8]) -> Vec<Split> {
    let mut seen = [0; 10];
    let split = |&label: &u8| {
        let seen = &mut seen[usize::from(label)];
        *seen += 1;
        match *seen % 10 {
            0 => Split::Test,
            5 => Split::Valid,
            _ => Split::Train,
        }
    };
    labels.iter().map(split).collect()
}

/// Pixels of all samples and their labels; `None` if the file has another format.
fn parse(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (header, numbers) = bytes.split_at_checked(16)?;
    let expected = [FEATURES as u64, SAMPLES as u64]
        .map(u64::to_le_bytes)
        .concat();
    if bytes.len() != FILE_BYTES || header != expected {
        return None;
    }
    let numbers = numbers
        .chunks_exact(4)
        .map(|n| n.try_into().map(f32::from_le_bytes));
    let numbers: Vec<f32> = numbers.collect::<Result<_, _>>().ok()?;
    let whole = |number: &f32, most: f32| (0.0..=most).contains(number) && number.fract() == 0.0;
    let (levels, labels) = numbers.split_at(SAMPLES * FEATURES);
    if !levels.iter().all(|n| whole(n, 16.0)) || !labels.iter().all(|n| whole(n, 9.0)) {
        return None;
    }
    let pixel = |&level: &f32| ((level as u32 * 255 + 8) / 16) as u8;
    Some((
        levels.iter().map(pixel).collect(),
        labels.iter().map(|&l| l as u8).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = [
            (FEATURES as u64).to_le_bytes(),
            (SAMPLES as u64).to_le_bytes(),
        ]
        .concat();
        let levels = (0..SAMPLES * FEATURES).map(|n| (n % 17) as f32);
        let labels = (0..SAMPLES).map(|n| (n % 10) as f32);
        bytes.extend(levels.chain(labels).flat_map(f32::to_le_bytes));
        bytes
    }

    #[test]
    fn levels_become_bytes() {
        let (pixels, labels) = parse(&file()).unwrap();
        assert_eq!((pixels.len(), labels.len()), (1797 * 64, 1797));
        assert_eq!(
            [pixels[0], pixels[1], pixels[8], pixels[16]],
            [0, 16, 128, 255]
        );
        assert_eq!(labels[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    }

    #[test]
    fn every_part_has_a_share_of_every_class() {
        let (_, labels) = parse(&file()).unwrap();
        let splits = splits(&labels);
        for digit in 0..10 {
            let count = |split| {
                let pairs = labels.iter().zip(&splits);
                pairs.filter(|pair| *pair == (&digit, &split)).count()
            };
            let all = Split::ALL.map(count);
            assert_eq!(all[0] + all[1] + all[2], 179 + usize::from(digit < 7));
            assert!(all[1] == 18 && [17, 18].contains(&all[2]), "{all:?}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let with = |at: usize, number: f32| {
            let mut bytes = file();
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            parse(&bytes).is_none()
        };
        assert!(parse(&file()[1..]).is_none() && parse(b"").is_none());
        assert!(with(0, 1.0) && with(16, 17.0) && with(16, 0.5) && with(16, f32::NAN));
        assert!(with(FILE_BYTES - 4, 10.0));
    }
}
