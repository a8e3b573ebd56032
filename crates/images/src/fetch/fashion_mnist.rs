//! Fashion-MNIST out of Debian's package: four gzipped IDX files.

use std::path::{Path, PathBuf};

use super::Work;
use crate::error::Result;
use crate::source::{Source, SourceOptions};

pub(super) const PACKAGE: &str = "dataset-fashion-mnist (Debian, Ubuntu)";

const NAME: &str = "dataset-fashion-mnist";
const INSIDE: &str = "usr/share/datasets/fashion-mnist";
const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

pub(super) fn fetch(work: &Work<'_>) -> Result<Source> {
    let dir = folder(work)?;
    let mut source = Source::open(&dir, &SourceOptions::default())?;
    if source.root.is_some() || source.classes.len() != CLASSES.len() {
        return Err(work.wrong(&dir, "other files".into()));
    }
    source.location = "Fashion-MNIST".into();
    source.classes = CLASSES.map(str::to_owned).to_vec();
    Ok(source)
}

/// The folder with the four files: the installed one, the given one, or one that is unpacked now.
fn folder(work: &Work<'_>) -> Result<PathBuf> {
    let package = match work.package {
        Some(dir) if dir.is_dir() => {
            let inside = dir.join(INSIDE);
            return Ok(if inside.is_dir() {
                inside
            } else {
                dir.to_owned()
            });
        }
        Some(file) => work.absolute(file)?,
        None => {
            let installed = Path::new("/").join(INSIDE);
            if installed.is_dir() {
                return Ok(installed);
            }
            work.run("apt-get", &["download", NAME])?;
            let file = work.downloaded("deb")?;
            work.absolute(&file)?
        }
    };
    work.run("dpkg-deb", &["-x", &package, "unpacked"])?;
    Ok(work.folder.join("unpacked").join(INSIDE))
}
