//! Starting several ranks on this machine, with the `mpiexec` that is there.

use crate::error::{Error, Result};
use crate::mpi::{VARIABLE, in_path};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An `mpiexec`: next to the library that the variable names, in an active Python environment, or in PATH. `variable` looks up a
/// variable. The ranks that it starts take the library that belongs to it.
///
/// # Errors
/// If there is none.
pub fn find(ranks: usize, variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let names = ["mpiexec", "mpirun"];
    let beside = variable(VARIABLE).map(PathBuf::from);
    let beside = beside.and_then(|library| Some(library.parent()?.parent()?.join("bin")));
    let environment = variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin"));
    let near = beside.into_iter().chain(environment);
    let near = near.flat_map(|folder| names.map(|name| folder.join(name)));
    let mut near = near.filter(|program| program.is_file());
    let found = near.next();
    let found = found.or_else(|| in_path(variable("PATH"), &names).into_iter().next());
    found.ok_or_else(|| Error::NoLauncher {
        ranks,
        got: "none".into(),
    })
}

/// The command that starts `ranks` ranks of `program` on this machine.
pub fn command(mpiexec: &Path, ranks: usize, program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(mpiexec);
    command.arg("-n").arg(ranks.to_string());
    command.arg(program).args(arguments);
    command.stdin(std::process::Stdio::null());
    command
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fake(folder: &Path, name: &str, says: &str) {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn found(path: &str) -> Result<PathBuf> {
        find(2, |name| (name == "PATH").then(|| path.to_string()))
    }

    #[test]
    fn the_nearest_launcher_is_taken() {
        let folder =
            std::env::temp_dir().join(format!("tokenformer-launch-{}", std::process::id()));
        let [first, second] = ["first", "second"].map(|name| folder.join(name));
        for each in [&first, &second] {
            std::fs::create_dir_all(each).unwrap();
        }
        fake(&first, "mpirun", "mpirun (Open MPI) 4.1.4");
        fake(&second, "mpiexec", "HYDRA build details:");
        let both = format!("{}:{}", first.display(), second.display());
        assert_eq!(found(&both).unwrap(), first.join("mpirun"));
        let text = found("").unwrap_err().to_string();
        for part in [
            "no mpiexec to start 2 ranks",
            "got:      none",
            "pip install mpich",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
