//! Folders of class folders, as torchvision's `ImageFolder` and timm read them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Classes, Data, Item, MAX_CLASSES, Part, Source};
use crate::dataset::is_published;
use crate::decode::{Unreadable, looks_like_a_picture};
use crate::error::{Error, Result};
use crate::split::Split;
use crate::text::shown;

/// Folder names that mean splits instead of classes, if all folders have such names.
const SPLITS: [(&str, Split); 5] = [
    ("train", Split::Train),
    ("val", Split::Valid),
    ("valid", Split::Valid),
    ("validation", Split::Valid),
    ("test", Split::Test),
];

/// File extensions that mark a file as a picture, regardless of its content.
const ENDINGS: [&str; 13] = [
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "avif", "heic", "jxl",
];

/// Lists the pictures of a folder. Known `classes` have their numbers; otherwise they are the folders of the training
/// pictures. A folder without splits, or with a single one, has the pictures of `split`.
pub(super) fn open(dir: &Path, split: Split, classes: Classes<'_>) -> Result<Source> {
    let root = dir.canonicalize().map_err(Error::io("read", dir))?;
    let mut listing = Listing::default();
    let mut notes = Vec::new();
    let top = listing.folders(&root, "")?;
    let splits = splits(dir, &top, classes, &mut notes)?;
    let mut folders: Vec<(Split, String)> = match splits.is_empty() {
        true => vec![(split, String::new())],
        false => splits,
    };
    if let [(only, _)] = &mut folders[..] {
        *only = split;
    }
    folders.sort();
    let mut neighbours = folders.iter().zip(folders.iter().skip(1));
    if let Some(((split, first), (_, second))) = neighbours.find(|(a, b)| a.0 == b.0) {
        return Err(Error::Source {
            location: dir.display().to_string(),
            problem: "two sets for one split",
            expected: format!("one folder for {}", split.name()),
            got: format!("{first} and {second}"),
            help: "move one of them away".into(),
        });
    }

    let mut names = classes.names().map(<[String]>::to_vec);
    let mut parts = Vec::new();
    for (split, folder) in folders {
        let found = match folder.is_empty() {
            true => top.clone(),
            false => listing.folders(&root, &folder)?,
        };
        let names = names.get_or_insert_with(|| found.clone());
        let place: PathBuf = root.join(&folder).components().collect();
        let is_map = matches!(classes, Classes::Map(_));
        check_classes(&place, names, &found, is_map, split, &mut notes)?;
        let numbers: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
        let mut items = Vec::new();
        for class in &found {
            let Some(&label) = numbers.get(class.as_str()) else {
                continue;
            };
            let before = items.len();
            listing.pictures(&root, &format!("{folder}{class}"), label, &mut items)?;
            if items.len() == before {
                notes.push(format!("The class folder {folder}{class} has no pictures."));
            }
        }
        parts.push(Part { split, items });
    }
    let datasets = listing.datasets.iter();
    notes.extend(datasets.map(|name| format!("left out: {}, a dataset", shown(name))));
    if let Some(first) = listing.outside.iter().min() {
        notes.push(format!(
            "{} pictures that lie in no class folder were left out, such as {}.",
            listing.outside.len(),
            shown(first),
        ));
    }
    if listing.others > 0 {
        notes.push(format!("{} other files were left out.", listing.others));
    }
    Ok(Source {
        location: dir.display().to_string(),
        root: Some(root),
        channels: 3,
        classes: names.unwrap_or_default(),
        parts,
        notes,
        unreadable: listing.unreadable,
    })
}

/// The splits that the folders `top` of `dir` are, with a slash at the end of their names; none if they are classes.
///
/// They are splits if nothing with pictures stands beside a folder to train on. A second split there is none by chance: then
/// pictures beside both are an error, unless one of `classes` is called like a split.
fn splits(
    dir: &Path,
    top: &[String],
    classes: Classes<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<(Split, String)>> {
    let split_of = |name: &str| {
        let found = SPLITS.iter().find(|(known, _)| *known == name);
        found.map(|(_, split)| *split)
    };
    let splits: Vec<(Split, String)> = top
        .iter()
        .filter_map(|name| Some((split_of(name)?, format!("{name}/"))))
        .collect();
    let count = |train: bool| {
        splits
            .iter()
            .filter(|(split, _)| (*split == Split::Train) == train)
            .count()
    };
    if count(true) == 0 {
        return Ok(Vec::new());
    }
    let (mut others, mut empty) = (Vec::new(), Vec::new());
    for name in top.iter().filter(|name| split_of(name).is_none()) {
        match list(&dir.join(name))?.is_empty() {
            true => empty.push(name),
            false => others.push(shown(name)),
        }
    }
    if others.is_empty() {
        let left_out = |name: &String| format!("left out: {}, which has no pictures", shown(name));
        notes.extend(empty.into_iter().map(left_out));
        return Ok(splits);
    }
    let names = classes.names().unwrap_or_default();
    if count(false) == 0 || names.iter().any(|name| split_of(name).is_some()) {
        return Ok(Vec::new());
    }
    Err(Error::Source {
        location: dir.display().to_string(),
        problem: "pictures in other folders than those of splits",
        expected: "train, val (valid, validation) and test, or folders of classes".into(),
        got: format!("also {}", others.join(", ")),
        help: "move them away, or give train with --images, and val with --valid-images; classes that are called so have to be \
               named with --class-map"
            .into(),
    })
}

fn check_classes(
    dir: &Path,
    names: &[String],
    found: &[String],
    is_map: bool,
    split: Split,
    notes: &mut Vec<String>,
) -> Result<()> {
    let invalid = |problem, expected: String, got: String, help: &str| Error::Source {
        location: dir.display().to_string(),
        problem,
        expected,
        got,
        help: help.into(),
    };
    if found.is_empty() {
        let expected = "a folder for each class, with its pictures in it".into();
        let help = "if the pictures lie here themselves, move them to folders by class";
        return Err(invalid(
            "no class folders",
            expected,
            "no folder".into(),
            help,
        ));
    }
    if names.len() > MAX_CLASSES {
        let expected = format!("at most {MAX_CLASSES} classes");
        let help = "name the folder above the class folders";
        return Err(invalid(
            "too many classes",
            expected,
            names.len().to_string(),
            help,
        ));
    }
    let unknown: Vec<&String> = found.iter().filter(|name| !names.contains(name)).collect();
    if let Some(first) = unknown.first() {
        if !is_map {
            let expected = "classes that there are training pictures of".into();
            let got = format!("{} others, such as {}", unknown.len(), shown(first));
            let help =
                "rename or remove their folders, or name the classes to take with --class-map";
            return Err(invalid("unknown classes", expected, got, help));
        }
        notes.push(format!(
            "{} class folders of {} that are not among the classes were left out, such as {}.",
            unknown.len(),
            split.name(),
            shown(first),
        ));
    }
    let missing = names.iter().filter(|name| !found.contains(name)).count();
    if missing > 0 {
        notes.push(format!(
            "{missing} classes have no folder for {}.",
            split.name()
        ));
    }
    Ok(())
}

/// The pictures in a folder and below it, of every class.
#[derive(Debug, Default)]
pub struct Listed {
    /// Files from the folder on, in byte order of their names.
    pub names: Vec<String>,
    /// What was meant as a picture and cannot be read, with the reason.
    pub unreadable: Vec<(String, Unreadable)>,
    /// Files that are no pictures and do not look like any.
    pub others: usize,
}

impl Listed {
    /// Whether nothing there was meant as a picture.
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.unreadable.is_empty()
    }
}

/// Lists the pictures in `dir` and below it; hidden files are left out.
///
/// # Errors
/// A folder cannot be read.
pub fn list(dir: &Path) -> Result<Listed> {
    let mut listing = Listing::default();
    let mut items = Vec::new();
    listing.pictures(dir, "", 0, &mut items)?;
    Ok(Listed {
        names: items.into_iter().map(|item| item.name).collect(),
        unreadable: listing.unreadable,
        others: listing.others,
    })
}

/// Counts and notes from listing folders.
#[derive(Default)]
struct Listing {
    unreadable: Vec<(String, Unreadable)>,
    /// Number of files that are not pictures.
    others: usize,
    /// Names of pictures that lie beside folders of classes or splits.
    outside: Vec<String>,
    /// Folders that are datasets of this program.
    datasets: Vec<String>,
}

impl Listing {
    /// Names of the folders in `folder` (empty, or with a slash at its end) of `root`, in byte order; hidden folders are skipped,
    /// datasets made from these pictures and pictures beside the folders are noted.
    fn folders(&mut self, root: &Path, folder: &str) -> Result<Vec<String>> {
        let dir = &root.join(folder);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let entry = entry.map_err(Error::io("read", dir))?;
            // Links to folders are class folders too; a dangling link is not.
            if !entry.path().is_dir() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if !name.starts_with('.') && is_meant(&entry.path()) {
                    self.outside.push(format!("{folder}{name}"));
                }
                continue;
            }
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| Error::Source {
                    location: dir.join(&name).display().to_string(),
                    problem: "a class name that is not UTF-8",
                    expected: "folder names in UTF-8".into(),
                    got: shown(&name.to_string_lossy()),
                    help: "rename the folder".into(),
                })?;
            if name.starts_with('.') {
                continue;
            }
            match is_published(&entry.path()) {
                true => self.datasets.push(format!("{folder}{name}")),
                false => names.push(name),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Adds the pictures in the folder `class` of `root` and below it, in byte order of their names.
    fn pictures(
        &mut self,
        root: &Path,
        class: &str,
        label: u32,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let walk = WalkDir::new(root.join(class))
            .follow_links(true)
            .sort_by_file_name();
        let is_shown = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
        };
        for entry in walk.into_iter().filter_entry(is_shown) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.refused(root, error)?;
                    continue;
                }
            };
            if entry.file_type().is_dir() {
                continue;
            }
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(path);
            if !is_meant(path) {
                self.others += 1;
                continue;
            }
            match relative.to_str() {
                Some(name) => items.push(Item {
                    label,
                    name: name.replace(std::path::MAIN_SEPARATOR, "/"),
                    data: Data::File,
                }),
                None => {
                    let reason = Unreadable::new("the name is not UTF-8", "UTF-8", "other bytes");
                    let name = shown(&relative.to_string_lossy());
                    self.unreadable.push((name, reason));
                }
            }
        }
        Ok(())
    }

    /// A dangling or circular link hides no other pictures, so it is counted as an unreadable picture; an unreadable
    /// folder is an error, because it would hide pictures.
    fn refused(&mut self, root: &Path, error: walkdir::Error) -> Result<()> {
        let path = error.path().unwrap_or(root).to_owned();
        let is_link = path.is_symlink();
        let reason = match error.loop_ancestor() {
            Some(_) => "a link to a folder that it lies in".into(),
            None if is_link => error.to_string(),
            None => {
                let source = error
                    .into_io_error()
                    .unwrap_or_else(|| std::io::Error::other("unknown"));
                return Err(Error::io("read", &path)(source));
            }
        };
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let reason = Unreadable::new("cannot be followed", "a link to a picture", reason);
        self.unreadable.push((shown(&name), reason));
        Ok(())
    }
}

/// Whether a file is a picture, judged by its extension or else by its first bytes.
fn is_meant(path: &Path) -> bool {
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if ENDINGS.iter().any(|e| e.eq_ignore_ascii_case(ending)) {
        return true;
    }
    // Opening a pipe would block.
    if !path.is_file() {
        return false;
    }
    let mut first = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read(&mut first));
    read.is_ok_and(|count| looks_like_a_picture(&first[..count]))
}

/// The folder that two folders share, and how each of them is called from there.
pub(super) fn common_root(mine: &Path, theirs: &Path) -> Result<(PathBuf, [String; 2])> {
    let common: PathBuf = mine
        .components()
        .zip(theirs.components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    let below = |path: &Path| -> Result<String> {
        let rest = path.strip_prefix(&common).unwrap_or(path);
        let parts: Option<Vec<&str>> = rest.iter().map(|part| part.to_str()).collect();
        let parts = parts.ok_or_else(|| Error::Source {
            location: path.display().to_string(),
            problem: "a folder name that is not UTF-8",
            expected: "UTF-8".into(),
            got: "other bytes".into(),
            help: "rename the folder".into(),
        })?;
        Ok(parts.iter().map(|part| format!("{part}/")).collect())
    };
    let names = [below(mine)?, below(theirs)?];
    Ok((common, names))
}
