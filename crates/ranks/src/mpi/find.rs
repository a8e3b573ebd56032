//! Where the MPI library is.

use super::abi::Abi;
use libloading::Library;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};

/// Names the library.
pub const VARIABLE: &str = "TOKENFORMER_MPI";

/// A library that was loaded.
pub struct Found {
    pub library: Library,
    pub abi: Abi,
    pub path: PathBuf,
}

/// File names of the library: of the standard's ABI, its present version first, and of Open MPI, which comes first if its launcher
/// started this process.
fn names(variable: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let versions = ["1", "0"];
    let versioned = versions.map(|version| match cfg!(target_os = "macos") {
        true => format!("{DLL_PREFIX}mpi_abi.{version}{DLL_SUFFIX}"),
        false => format!("{DLL_PREFIX}mpi_abi{DLL_SUFFIX}.{version}"),
    });
    let plain = format!("{DLL_PREFIX}mpi_abi{DLL_SUFFIX}");
    let mut names: Vec<String> = versioned.into_iter().chain([plain]).collect();
    let open_mpi = match cfg!(target_os = "macos") {
        true => format!("{DLL_PREFIX}mpi.40{DLL_SUFFIX}"),
        false => format!("{DLL_PREFIX}mpi{DLL_SUFFIX}.40"),
    };
    match variable("OMPI_COMM_WORLD_RANK") {
        Some(_) => names.insert(0, open_mpi),
        None => names.push(open_mpi),
    }
    names
}

/// Loads the library: the one that the variable names, the one next to the launcher of this process, the system's, or one
/// next to a launcher in PATH. A launcher and a library of two MPIs do not work together, so the order is this.
///
/// # Errors
/// What was found instead.
pub fn load(variable: impl Fn(&str) -> Option<String>) -> Result<Found, String> {
    if let Some(path) = variable(VARIABLE) {
        let path = PathBuf::from(path);
        return open(&path).map_err(|reason| format!("{VARIABLE} is {}: {reason}", path.display()));
    }
    let names = names(&variable);
    let folders = launchers_above()
        .into_iter()
        .flat_map(|launcher| libraries_of(&launcher, &names));
    let near: Vec<PathBuf> = folders.filter(|path| path.exists()).collect();
    let system = names.iter().map(PathBuf::from);
    let in_path = in_path(variable("PATH"), &["mpiexec", "mpirun"]).into_iter();
    let in_path = in_path
        .flat_map(|launcher| libraries_of(&launcher, &names))
        .filter(|path| path.exists());
    let mut refused = None;
    for path in near.into_iter().chain(system).chain(in_path) {
        match open(&path) {
            Ok(found) => return Ok(found),
            Err(reason) if path.is_absolute() => {
                refused.get_or_insert(format!("{}: {reason}", path.display()));
            }
            Err(_) => {}
        }
    }
    Err(refused
        .or_else(other_abi)
        .unwrap_or_else(|| "no library of this name".into()))
}

fn open(path: &Path) -> Result<Found, String> {
    let library = load_library(path).map_err(|error| {
        let cause = std::error::Error::source(&error);
        cause.map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let Some(abi) = Abi::of(&library) else {
        return Err(
            "it has neither MPI_Abi_get_version nor ompi_mpi_comm_world, so it has another ABI than the standard's and Open MPI's"
                .into(),
        );
    };
    Ok(Found {
        library,
        abi,
        path: path.into(),
    })
}

/// Loads a library so that its plugins, which Open MPI loads by itself, see its symbols.
fn load_library(path: &Path) -> std::result::Result<Library, libloading::Error> {
    // SAFETY: loading runs the library's initialisers. It is an MPI library by its name, or what the user named.
    #[cfg(unix)]
    return unsafe {
        use libloading::os::unix;
        let flags = unix::RTLD_LAZY | unix::RTLD_GLOBAL;
        unix::Library::open(Some(path), flags).map(Library::from)
    };
    // SAFETY: as above.
    #[cfg(not(unix))]
    unsafe {
        Library::new(path)
    }
}

/// An MPI library of another ABI, described.
fn other_abi() -> Option<String> {
    let name = format!("{DLL_PREFIX}mpi{DLL_SUFFIX}.12");
    // SAFETY: loading runs the library's initialisers; it is an MPI library by its name, and nothing of it is called.
    let found = unsafe { Library::new(name) };
    found
        .is_ok()
        .then(|| "an MPI with the ABI of MPICH 3 (libmpi.so.12), older than the standard's".into())
}

/// Where the library of a launcher may lie: `bin/mpiexec` belongs to `lib/libmpi_abi.so.1`.
fn libraries_of(launcher: &Path, names: &[String]) -> Vec<PathBuf> {
    let Some(prefix) = launcher.parent().and_then(Path::parent) else {
        return Vec::new();
    };
    let folders = [
        "lib",
        "lib64",
        "lib/x86_64-linux-gnu",
        "lib/aarch64-linux-gnu",
        "lib/mpich/lib",
        "lib/x86_64-linux-gnu/openmpi/lib",
    ];
    let folders = folders.map(|folder| prefix.join(folder));
    let all = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    all.collect()
}

/// The programs of these names in the folders of PATH.
pub fn in_path(path: Option<String>, names: &[&str]) -> Vec<PathBuf> {
    let folders = path.unwrap_or_default();
    std::env::split_paths(&folders)
        .flat_map(|folder| {
            names
                .iter()
                .map(move |name| folder.join(name))
                .collect::<Vec<_>>()
        })
        .filter(|program| program.is_file())
        .collect()
}

/// Programs above this process that start ranks, the nearest first (Linux).
fn launchers_above() -> Vec<PathBuf> {
    const MOST: usize = 8;
    let mut found = Vec::new();
    let mut process = "self".to_string();
    for _ in 0..MOST {
        let folder = Path::new("/proc").join(&process);
        let Ok(status) = std::fs::read_to_string(folder.join("status")) else {
            break;
        };
        if let Ok(program) = std::fs::read_link(folder.join("exe")) {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            const LAUNCHERS: [&str; 6] = ["hydra", "mpiexec", "mpirun", "prte", "orted", "orterun"];
            if LAUNCHERS.iter().any(|launcher| name.starts_with(launcher)) {
                found.push(program);
            }
        }
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        match parent.map(str::trim) {
            Some(parent) if parent != "0" => process = parent.to_string(),
            _ => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        let found = load(|name| (name == VARIABLE).then(|| path.to_string()));
        found.err().expect("no MPI library")
    }

    #[test]
    fn a_library_that_the_user_names_is_the_only_one() {
        let text = refusal("/there/is/none.so");
        assert!(
            text.contains("TOKENFORMER_MPI is /there/is/none.so:"),
            "{text}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_of_another_kind_is_refused_without_a_call() {
        let text = refusal("libc.so.6");
        assert!(
            text.contains("another ABI than the standard's and Open MPI's"),
            "{text}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn under_its_own_launcher_open_mpi_comes_first() {
        let of_mpich = names(&|_| None);
        let of_open_mpi = names(&|name| (name == "OMPI_COMM_WORLD_RANK").then(|| "0".into()));
        assert_eq!(
            (&*of_mpich[0], &*of_mpich[3]),
            ("libmpi_abi.so.1", "libmpi.so.40")
        );
        assert_eq!(
            (&*of_open_mpi[0], &*of_open_mpi[1]),
            ("libmpi.so.40", "libmpi_abi.so.1")
        );
    }

    #[test]
    fn the_library_lies_next_to_its_launcher() {
        let names = names(&|_| None);
        let libraries = libraries_of(Path::new("/opt/mpich/bin/mpiexec"), &names);
        assert_eq!(libraries[0], Path::new("/opt/mpich/lib").join(&names[0]));
        assert_eq!(libraries_of(Path::new("/"), &names), Vec::<PathBuf>::new());
    }
}
