//! Emoji of 64 x 64 by group, out of an npm package: `img/twitter/64/*.png` and `emoji.json`, which has a group for each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Work;
use crate::error::{Error, Result};
use crate::source::{Data, Item, Part, Source};
use crate::split::Split;

pub(super) const PACKAGE: &str = "emoji-datasource-twitter 16.0.0 (npm)";

const SPEC: &str = "emoji-datasource-twitter@16.0.0";
const PICTURES: &str = "img/twitter/64";
const MAX_JSON_BYTES: u64 = 64 << 20;
/// The group of skin tones and hair, which are only parts of other emoji.
const LEFT_OUT: &str = "Component";

#[derive(Deserialize)]
struct Emoji {
    image: String,
    category: String,
    has_img_twitter: bool,
}

pub(super) fn fetch(work: &Work<'_>) -> Result<Source> {
    let root = folder(work)?;
    let path = root.join("emoji.json");
    let json = tokenformer_store::read_small(&path, MAX_JSON_BYTES)?;
    let emoji: Vec<Emoji> =
        serde_json::from_slice(&json).map_err(|error| work.wrong(&path, error.to_string()))?;
    let is_used = |emoji: &&Emoji| emoji.has_img_twitter && emoji.category != LEFT_OUT;
    let groups: BTreeSet<&str> = emoji
        .iter()
        .filter(is_used)
        .map(|e| e.category.as_str())
        .collect();
    let classes: Vec<String> = groups.into_iter().map(str::to_owned).collect();
    let mut items = Vec::new();
    for emoji in emoji.iter().filter(is_used) {
        // A name with a separator could lead out of the package.
        if emoji.image.contains(['/', '\\']) {
            return Err(work.wrong(&path, format!("the picture {:?}", emoji.image)));
        }
        let label = classes.binary_search(&emoji.category).unwrap_or(0);
        items.push(Item {
            label: label as u32,
            name: format!("{PICTURES}/{}", emoji.image),
            data: Data::File,
        });
    }
    if items.is_empty() {
        return Err(work.wrong(&path, "no pictures".into()));
    }
    Ok(Source {
        location: "emoji by group".into(),
        root: Some(root),
        channels: 3,
        classes,
        parts: vec![Part {
            split: Split::Train,
            items,
        }],
        notes: vec!["Variants of skin tone were left out; each would be in both splits.".into()],
        unreadable: Vec::new(),
    })
}

/// The folder of the unpacked package: the given one, or one that is downloaded now.
fn folder(work: &Work<'_>) -> Result<PathBuf> {
    let archive = match work.package {
        Some(dir) if dir.is_dir() => {
            let dir = if dir.join("package").is_dir() {
                dir.join("package")
            } else {
                dir.to_owned()
            };
            return dir.canonicalize().map_err(Error::io("find", &dir));
        }
        Some(file) => work.absolute(file)?,
        None => {
            work.run("npm", &["pack", "--silent", SPEC])?;
            let file = work.downloaded("tgz")?;
            work.absolute(&file)?
        }
    };
    work.run(
        "tar",
        &[
            "-xzf",
            &archive,
            "package/emoji.json",
            &format!("package/{PICTURES}"),
        ],
    )?;
    let dir = work.folder.join(Path::new("package"));
    dir.canonicalize().map_err(Error::io("find", &dir))
}
