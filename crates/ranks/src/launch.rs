//! Starting several ranks on this machine, with the `mpiexec` that is there.

use crate::error::{Error, Result};
use crate::mpi::{VARIABLE, in_path};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `mpiexec` of an MPI whose library has the standard ABI: next to the library that the variable names, in an active Python
/// environment, or in PATH. `variable` looks up a variable.
///
/// # Errors
/// If there is none, with what was found instead.
pub fn find(ranks: usize, variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let names = ["mpiexec", "mpirun"];
    let beside = variable(VARIABLE).map(PathBuf::from);
    let beside = beside.and_then(|library| Some(library.parent()?.parent()?.join("bin")));
    let environment = variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin"));
    let near = beside.into_iter().chain(environment);
    let near = near.flat_map(|folder| names.map(|name| folder.join(name)));
    let near = near.filter(|program| program.is_file());
    let mut refused = None;
    for program in near.chain(in_path(variable("PATH"), &names)) {
        match understands(&program) {
            Ok(()) => return Ok(program),
            Err(reason) => {
                refused.get_or_insert(format!("{}: {reason}", program.display()));
            }
        }
    }
    Err(Error::NoLauncher {
        ranks,
        got: refused.unwrap_or_else(|| "none".into()),
    })
}

/// Whether a launcher speaks PMI, which a library with the standard ABI understands; Open MPI's does not.
fn understands(program: &Path) -> std::result::Result<(), String> {
    let told = Command::new(program).arg("--version").output();
    let told = told.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&told.stdout).to_lowercase();
    match text.contains("open mpi") || text.contains("open-mpi") || text.contains("openrte") {
        true => Err("it is Open MPI's, which starts no ranks of the standard ABI".into()),
        false => Ok(()),
    }
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
    fn a_launcher_of_another_mpi_is_passed_over() {
        let folder =
            std::env::temp_dir().join(format!("tokenformer-launch-{}", std::process::id()));
        let [open, mpich] = ["open", "mpich"].map(|name| folder.join(name));
        for each in [&open, &mpich] {
            std::fs::create_dir_all(each).unwrap();
        }
        fake(&open, "mpirun", "mpirun (Open MPI) 4.1.4");
        fake(&mpich, "mpiexec", "HYDRA build details:");
        let both = format!("{}:{}", open.display(), mpich.display());
        assert_eq!(found(&both).unwrap(), mpich.join("mpiexec"));
        let text = found(&open.display().to_string()).unwrap_err().to_string();
        for part in [
            "no mpiexec to start 2 ranks",
            "it is Open MPI's",
            "pip install mpich",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        let text = found("").unwrap_err().to_string();
        assert!(text.contains("got:      none"), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
