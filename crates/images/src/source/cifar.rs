//! The binary versions of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): records of a label (for CIFAR-100 the coarse label
//! and then the fine one, which is used) and 3 planes of 32 x 32.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Block, Data, Item, Part, Source, named_classes};
use crate::error::{Error, Result};
use crate::split::Split;

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// The files of a set.
pub(super) struct Files {
    /// Bytes of labels before each picture: 1 or 2.
    labels: usize,
    files: Vec<(Split, PathBuf)>,
    /// The file with the names of the classes, if it exists.
    names: Option<PathBuf>,
}

/// Finds the files of a set in the folder `path` or the folder of its archive; or takes `path` itself if it is a `.bin`
/// file.
pub(super) fn find(path: &Path) -> Result<Option<Files>> {
    if path.is_file() {
        if path.extension().is_none_or(|e| e != "bin") {
            return Ok(None);
        }
        let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
        // The size of a file is a multiple of the record size of only one of the two kinds; exceptions are larger than
        // all real files.
        let labels = if bytes % (PIXELS as u64 + 2) == 0 {
            2
        } else {
            1
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        return Ok(Some(Files {
            labels,
            files: vec![(Split::Train, path.to_owned())],
            names: names(folder, labels),
        }));
    }
    let folders = [
        path.to_owned(),
        path.join("cifar-10-batches-bin"),
        path.join("cifar-100-binary"),
    ];
    for folder in folders {
        let batches = (1..=5).map(|n| (Split::Train, folder.join(format!("data_batch_{n}.bin"))));
        let ten = batches.chain([(Split::Test, folder.join("test_batch.bin"))]);
        let hundred = [
            (Split::Train, folder.join("train.bin")),
            (Split::Test, folder.join("test.bin")),
        ];
        for (labels, files) in [(1, ten.collect::<Vec<_>>()), (2, hundred.to_vec())] {
            let is_train =
                |(split, file): &(Split, PathBuf)| *split == Split::Train && file.is_file();
            if !files.iter().any(is_train) {
                continue;
            }
            return Ok(Some(Files {
                labels,
                files,
                names: names(&folder, labels),
            }));
        }
    }
    Ok(None)
}

fn names(folder: &Path, labels: usize) -> Option<PathBuf> {
    let name = if labels == 2 {
        "fine_label_names.txt"
    } else {
        "batches.meta.txt"
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

pub(super) fn open(path: &Path, found: &Files, class_map: Option<&[String]>) -> Result<Source> {
    let mut parts: Vec<Part> = Vec::new();
    let mut count = 0;
    for (split, file) in &found.files {
        let items = read(file, found.labels)?;
        count = items
            .iter()
            .map(|item| item.label as usize + 1)
            .fold(count, usize::max);
        match parts.iter_mut().find(|part| part.split == *split) {
            Some(part) => part.items.extend(items),
            None => parts.push(Part {
                split: *split,
                items,
            }),
        }
    }
    let names = found
        .names
        .as_deref()
        .map(super::class_map::read)
        .transpose()?;
    let location = path.display().to_string();
    let known = if found.labels == 2 { 100 } else { 10 };
    Ok(Source {
        classes: named_classes(&location, known.max(count), names, class_map)?,
        location,
        root: None,
        channels: 3,
        parts,
        notes: Vec::new(),
        unreadable: Vec::new(),
    })
}

fn read(path: &Path, labels: usize) -> Result<Vec<Item>> {
    let invalid = |problem, expected: String, got: String| Error::Source {
        location: path.display().to_string(),
        problem,
        expected,
        got,
        help:
            "get the binary version of the set again and unpack it; all files of a set are needed"
                .into(),
    };
    let record = labels + PIXELS;
    let file_bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if file_bytes == 0 || file_bytes % record as u64 != 0 {
        let expected = format!("a multiple of {record} bytes, above 0");
        return Err(invalid(
            "not a CIFAR file of whole records",
            expected,
            file_bytes.to_string(),
        ));
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let numbers: Vec<u8> = bytes
        .iter()
        .skip(labels - 1)
        .step_by(record)
        .copied()
        .collect();
    let most = if labels == 2 { 100 } else { 10 };
    if let Some((index, label)) = numbers
        .iter()
        .enumerate()
        .find(|(_, label)| **label >= most)
    {
        let got = format!("{label} in record {index}");
        return Err(invalid(
            "a label out of range",
            format!("labels below {most}"),
            got,
        ));
    }
    let block = Arc::new(Block {
        bytes,
        before: labels,
        width: SIDE,
        height: SIDE,
        channels: 3,
        is_planar: true,
    });
    let file = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let items = numbers.into_iter().enumerate().map(|(index, label)| Item {
        label: u32::from(label),
        name: format!("{file}:{index}"),
        data: Data::Block {
            block: Arc::clone(&block),
            index,
        },
    });
    Ok(items.collect())
}
