//! Errors of connecting ranks.

use std::path::PathBuf;
use tokenformer_base::shown;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variables of the launcher make no sense.
    #[error(
        "{name}: not a possible value\n  expected: {expected}\n  got:      {}\n  help:     unset the variables of {launcher}",
        shown(got)
    )]
    Variable {
        /// The variable.
        name: &'static str,
        /// What would be right.
        expected: String,
        /// What it is.
        got: String,
        /// The launcher that it belongs to.
        launcher: &'static str,
    },
    /// There are several ranks and no MPI that connects them.
    #[error(
        "{world} ranks were started by {launcher}, and no MPI library connects them\n  expected: libmpi_abi.so.1, the standard \
         ABI of MPI 5 (MPICH 4.3 or later), or of Open MPI 4 and 5\n  got:      {got}\n  help:     {help}"
    )]
    NoMpi {
        /// Number of ranks.
        world: usize,
        /// What started them.
        launcher: &'static str,
        /// What was found instead.
        got: String,
        /// What to do.
        help: String,
    },
    /// A library was found that lacks a function.
    #[error(
        "{}: not the standard ABI of MPI\n  expected: the function {function}\n  got:      {reason}\n  help:     {}",
        path.display(), crate::mpi::INSTALL
    )]
    Library {
        /// The library.
        path: PathBuf,
        /// The function.
        function: &'static str,
        /// The loader's message.
        reason: String,
    },
    /// The launcher and MPI disagree about the ranks.
    #[error(
        "{launcher} and MPI disagree about this process\n  expected: rank {} of {}, as {launcher} says\n  \
         got:      rank {} of {} ({library})\n  help:     {help}",
        expected.0, expected.1, got.0, got.1
    )]
    World {
        /// What started the ranks.
        launcher: &'static str,
        /// Rank of this process and number of ranks, as the launcher says.
        expected: (usize, usize),
        /// The same, as MPI says.
        got: (usize, usize),
        /// The library's name for itself.
        library: String,
        /// What to do.
        help: &'static str,
    },
    /// A call of MPI failed.
    #[error(
        "MPI: {function} failed\n  expected: success\n  got:      {reason}\n  help:     see the messages of the launcher above"
    )]
    Call {
        /// The function.
        function: &'static str,
        /// MPI's message.
        reason: String,
    },
    /// There is no launcher for `launch`.
    #[error(
        "no mpiexec to start {ranks} ranks with\n  expected: mpiexec in PATH, in a Python environment or next to the MPI \
         library\n  got:      {got}\n  help:     {}",
        crate::mpi::INSTALL
    )]
    NoLauncher {
        /// Ranks that were asked for.
        ranks: usize,
        /// What was searched.
        got: String,
    },
    /// A process could not be started.
    #[error("{}: cannot start: {source}\n  help:     check that it is a program that may be run", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the launcher's ranks cannot work together although each could work alone.
    pub fn is_of_launcher(&self) -> bool {
        matches!(
            self,
            Self::Variable { .. } | Self::NoMpi { .. } | Self::World { .. }
        )
    }

    /// Whether settings are wrong (exit code 2), as opposed to something that failed (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Variable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn ranks_that_differ_are_named() {
        let error = Error::World {
            launcher: "mpirun",
            expected: (1, 4),
            got: (0, 4),
            library: "a library".into(),
            help: "take another",
        };
        let text = error.to_string();
        for part in ["rank 1 of 4", "rank 0 of 4 (a library)"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
