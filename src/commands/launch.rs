//! `launch`: several ranks on this machine.

use crate::args::LaunchArgs;
use crate::{Failure, usage};
use tokenformer_ranks::launch;

/// Most ranks of one machine.
const MAX_RANKS: usize = 4096;

/// Runs the verb; returns the exit code of the ranks.
pub fn run(args: &LaunchArgs) -> Result<i32, Failure> {
    if args.ranks == 0 || args.ranks > MAX_RANKS {
        let help = "as many as this machine has cores, or fewer with several threads each";
        return Err(usage("-n", "between 1 and 4096", args.ranks, help).into());
    }
    let program = std::env::current_exe().map_err(|source| tokenformer_ranks::Error::Start {
        program: "this program".into(),
        source,
    })?;
    let mpiexec = launch::find(args.ranks, |name| std::env::var(name).ok())?;
    let command = launch::command(&mpiexec, args.ranks, &program, &args.command);
    start(command)
}

#[cfg(unix)]
fn start(command: std::process::Command) -> Result<i32, Failure> {
    let (status, _) = tokenformer_ranks::guard::run_to_end(command, None)?;
    Ok(status.code().unwrap_or(1))
}

#[cfg(not(unix))]
fn start(mut command: std::process::Command) -> Result<i32, Failure> {
    let status = command
        .status()
        .map_err(|source| tokenformer_ranks::Error::Start {
            program: command.get_program().into(),
            source,
        })?;
    Ok(status.code().unwrap_or(1))
}
