//! From a run folder to the checkpoint to load.

use tokenformer_store::{CheckpointWriter, Checkpoints, Error, Which, resolve};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// The input's three parts are `latest`, `best` and, if there is one, the newest checkpoint's manifest.
pub fn run(input: &[u8]) {
    let folder = files::prepared("run", |path| {
        let mut writer = CheckpointWriter::open(path, &mut |_| {}).expect("a run folder");
        for step in [1, 2] {
            let fill = |to: &mut tokenformer_store::DirWriter| to.write_bytes("a", b"abc");
            writer
                .save::<Error>(step, "checkpoint", fill)
                .expect("a checkpoint");
        }
        let newest = path.join("checkpoints/step-00000002/manifest.json");
        std::fs::copy(&newest, path.join("manifest.kept")).expect("a copy");
    });
    let [latest, best, manifest] = files::parts(input);
    let newest = folder.join("checkpoints/step-00000002/manifest.json");
    std::fs::write(folder.join("latest"), latest).expect("a file");
    std::fs::write(folder.join("best"), best).expect("a file");
    if manifest.is_empty() {
        std::fs::copy(folder.join("manifest.kept"), &newest).expect("a copy");
    } else {
        std::fs::write(&newest, manifest).expect("a file");
    }
    bounded(input, 3 * MIB, || {
        let checkpoints = Checkpoints::open(&folder);
        let _ = (checkpoints.latest(), checkpoints.best(), checkpoints.list());
        for which in [Which::Latest, Which::Best] {
            match resolve(&folder, which, &mut |warning| drop(warning.to_string())) {
                Ok(found) => assert!(found.dir.starts_with(&folder)),
                Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
            }
        }
    });
}
