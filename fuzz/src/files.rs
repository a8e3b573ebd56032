//! Files for readers that take paths.

use std::path::PathBuf;
use std::sync::OnceLock;

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let parent =
            std::env::var_os("TOKENFORMER_FUZZ_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = parent.join(format!("process-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the scratch folder can be made");
        folder
    })
}

/// Writes a file of [`folder`], over what an earlier input left.
pub fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the scratch folder can be written");
    path
}

/// A folder in [`folder`] that `make` fills once.
pub fn prepared(name: &str, make: impl FnOnce(&std::path::Path)) -> PathBuf {
    let path = folder().join(name);
    if !path.exists() {
        make(&path);
    }
    path
}

/// The parts of an input between NUL bytes, the last with all that follows; missing ones are empty.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input.splitn(N, |&byte| byte == 0);
    std::array::from_fn(|_| rest.next().unwrap_or_default())
}
