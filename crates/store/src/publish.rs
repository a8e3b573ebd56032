//! Directories that appear under their final name complete or not at all.
//!
//! Files are written into `.tmp-<name>` next to the final directory and synced, then the manifest; then the directory is
//! renamed. A directory that is being replaced is called `.old-<name>` between the two renames. If the process dies
//! there, the next writer renames it back.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::claim::claim_dir;
use crate::durable::{
    ASIDE, TEMPORARY, create_dir_all, discard, exists, parent, remove, rename, sibling, sync_dir,
};
use crate::hash::{Written, hash_opened, open_regular};
use crate::manifest::{
    FileEntry, MANIFEST_NAME, Manifest, check_file_name, entry_names, unlisted, verify,
};
use crate::space::ensure_space;
use crate::tensors::{TensorSource, encoded_bytes, write_to};
use crate::{Error, Result};

/// What a new directory may replace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    /// Only a directory that was published completely and has no other files.
    Published,
    /// Anything, because the path belongs to this crate.
    Anything,
}

/// A directory being written. If it is dropped without [`commit`](DirWriter::commit), it is removed.
pub struct DirWriter {
    final_dir: PathBuf,
    temporary: PathBuf,
    kind: String,
    replace: Replace,
    /// Files so far; those that the caller writes are hashed at the end.
    files: BTreeMap<String, Option<Written>>,
    /// Keeps other processes away from the temporary directory.
    _claim: Option<File>,
    committed: bool,
}

impl DirWriter {
    /// Starts writing a directory that will appear as `final_dir`; `kind`, for example `checkpoint`, is stored in its
    /// manifest.
    ///
    /// Missing parent folders are created. Files left by a killed process are removed, and its unfinished replacement
    /// is undone.
    ///
    /// # Errors
    /// [`Error::NotReplaceable`] when `final_dir` holds anything that its manifest does not list (the listed files are not
    /// read), [`Error::Damaged`] when the manifest cannot be read or is not as it was written, [`Error::Busy`] when another
    /// process is writing the directory, [`Error::Io`].
    pub fn begin(final_dir: &Path, kind: &str) -> Result<DirWriter> {
        DirWriter::begin_in_place_of(final_dir, kind, Replace::Published)
    }

    pub(crate) fn begin_in_place_of(
        final_dir: &Path,
        kind: &str,
        replace: Replace,
    ) -> Result<DirWriter> {
        let temporary = sibling(final_dir, TEMPORARY)?;
        create_dir_all(parent(final_dir))?;
        let claim = claim_dir(&temporary)?;
        let writer = DirWriter {
            final_dir: final_dir.to_path_buf(),
            temporary,
            kind: kind.to_string(),
            replace,
            files: BTreeMap::new(),
            _claim: claim,
            committed: false,
        };
        recover(final_dir, replace)?;
        check_replaceable(final_dir, replace)?;
        Ok(writer)
    }

    /// The path at which the caller writes the file `name` by other means, before [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`Error::FileName`].
    pub fn file(&mut self, name: &str) -> Result<PathBuf> {
        check_file_name(&self.final_dir, name)?;
        self.files.insert(name.to_string(), None);
        Ok(self.temporary.join(name))
    }

    /// Writes a file with the given content.
    ///
    /// # Errors
    /// [`Error::FileName`], [`Error::NoSpace`], [`Error::Io`] (also for a name that was written before).
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        check_file_name(&self.final_dir, name)?;
        let written = self.create_file(name, bytes)?;
        self.files.insert(name.to_string(), Some(written));
        Ok(())
    }

    /// Writes a value as indented JSON.
    ///
    /// The bytes follow the value's own order of fields and keys, so the value should hold no hash map. JSON has no
    /// numbers for infinity and NaN: they become `null`.
    ///
    /// # Errors
    /// [`Error::Json`], and those of [`write_bytes`](Self::write_bytes).
    pub fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.final_dir.join(name);
        let mut bytes =
            serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path, source })?;
        bytes.push(b'\n');
        self.write_bytes(name, &bytes)
    }

    /// Writes a `.safetensors` file, tensor after tensor, laid out as [`crate::write_safetensors`] does.
    ///
    /// # Errors
    /// [`Error::Unwritable`], [`Error::WrongSize`], and those of [`write_bytes`](Self::write_bytes).
    pub fn write_tensors<'a>(
        &mut self,
        name: &str,
        metadata: &BTreeMap<String, String>,
        tensors: impl IntoIterator<Item = TensorSource<'a>>,
    ) -> Result<Written> {
        check_file_name(&self.final_dir, name)?;
        let path = self.temporary.join(name);
        let tensors: Vec<TensorSource<'a>> = tensors.into_iter().collect();
        ensure_space(&self.final_dir, encoded_bytes(&path, metadata, &tensors)?)?;
        let mut file = create_new(&path)?;
        let written = write_to(&mut file, &path, metadata, tensors)?;
        file.sync_all().map_err(Error::io("sync it", &path))?;
        self.files.insert(name.to_string(), Some(written.clone()));
        Ok(written)
    }

    /// Syncs everything, writes the manifest and renames the directory to its final name.
    ///
    /// When this returns, the directory survives a power cut. All other files in the temporary directory are published
    /// and listed too.
    ///
    /// # Errors
    /// The errors of [`begin`](Self::begin), and [`Error::Io`]. The final name then still leads to the old directory.
    pub fn commit(mut self) -> Result<Manifest> {
        for name in entry_names(&self.temporary)? {
            check_file_name(&self.final_dir, &name)?;
            self.files.entry(name).or_insert(None);
        }
        let mut files = Vec::with_capacity(self.files.len());
        for (name, written) in &self.files {
            let written = match written {
                Some(written) => written.clone(),
                None => sync_and_hash(&self.temporary.join(name))?,
            };
            files.push(FileEntry {
                name: name.clone(),
                bytes: written.bytes,
                blake3: written.blake3,
            });
        }
        let manifest = Manifest {
            kind: self.kind.clone(),
            files,
        };
        self.create_file(MANIFEST_NAME, &manifest.to_bytes(&self.final_dir)?)?;
        sync_dir(&self.temporary)?;
        self.take_final_name()?;
        Ok(manifest)
    }

    fn create_file(&self, name: &str, bytes: &[u8]) -> Result<Written> {
        let path = self.temporary.join(name);
        ensure_space(&self.final_dir, bytes.len() as u64)?;
        let mut file = create_new(&path)?;
        file.write_all(bytes)
            .map_err(Error::io("write it", &path))?;
        file.sync_all().map_err(Error::io("sync it", &path))?;
        Ok(Written::of(bytes))
    }

    fn take_final_name(&mut self) -> Result<()> {
        check_replaceable(&self.final_dir, self.replace)?;
        if !exists(&self.final_dir)? {
            rename(&self.temporary, &self.final_dir)?;
            self.committed = true;
            return Ok(());
        }
        let aside = sibling(&self.final_dir, ASIDE)?;
        rename(&self.final_dir, &aside)?;
        if let Err(error) = fs::rename(&self.temporary, &self.final_dir) {
            rename(&aside, &self.final_dir)?;
            return Err(Error::io("rename to this name", &self.final_dir)(error));
        }
        self.committed = true;
        sync_dir(parent(&self.final_dir))?;
        // The new directory is in place; if the old one cannot be removed now, the next writer's `recover` tries again.
        let _ = remove(&aside);
        Ok(())
    }
}

impl Drop for DirWriter {
    fn drop(&mut self) {
        if !self.committed {
            // The original error is already being returned; the next writer removes the directory.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Ends a replacement that a killed process left between its two renames. Only the writer of `final_dir` may call it.
pub(crate) fn recover(final_dir: &Path, replace: Replace) -> Result<()> {
    let aside = sibling(final_dir, ASIDE)?;
    if !exists(&aside)? {
        return Ok(());
    }
    if !exists(final_dir)? {
        return rename(&aside, final_dir);
    }
    match verify(final_dir) {
        Ok(_) => remove(&aside),
        Err(error) if replace == Replace::Published => Err(error),
        Err(_) => {
            discard(final_dir)?;
            rename(&aside, final_dir)
        }
    }
}

fn check_replaceable(dir: &Path, replace: Replace) -> Result<()> {
    if replace == Replace::Anything || !exists(dir)? {
        return Ok(());
    }
    let refuse = |got: String| {
        Err(Error::NotReplaceable {
            path: dir.to_path_buf(),
            got,
        })
    };
    if !dir.is_dir() {
        return refuse("a file".into());
    }
    if entry_names(dir)?.is_empty() {
        return Ok(());
    }
    let manifest = match Manifest::read(dir) {
        Err(Error::ManifestMissing { .. }) => {
            return refuse(format!("a folder without {MANIFEST_NAME}"));
        }
        result => result?,
    };
    match unlisted(dir, &manifest)?.first() {
        Some(name) => refuse(format!(
            "the file {name:?} that {MANIFEST_NAME} does not list"
        )),
        None => Ok(()),
    }
}

fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(Error::io("create it", path))
}

fn sync_and_hash(path: &Path) -> Result<Written> {
    let (file, bytes) = open_regular(path)?;
    // Windows syncs through a writable handle only; elsewhere the file may well be read-only.
    let synced = if cfg!(windows) {
        OpenOptions::new().write(true).open(path)
    } else {
        file.try_clone()
    };
    synced
        .and_then(|handle| handle.sync_all())
        .map_err(Error::io("sync it", path))?;
    hash_opened(path, &file, bytes)
}
