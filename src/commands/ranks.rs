//! The ranks of this command, if a launcher has started several.

use crate::Failure;
use crate::args::ComputeArgs;
use std::sync::Arc;
use tokenformer_core::device::{Collective, Single};
use tokenformer_ranks::{Environment, Mpi, mpi};

/// What a process is in its job.
pub enum Role {
    /// One that trains, alone or with others.
    Rank(Arc<dyn Collective>),
    /// The guard of a rank, which has ended with this exit code.
    #[cfg(unix)]
    Guard(i32),
}

/// What to do instead where ranks cannot be connected, with a verb that has the flag.
pub const ALONE: &str = "or compute alone with --ranks off";

/// Connects this process to the other ranks, if there are any and `wanted` says so. Ranks of a launcher that cannot be
/// connected are an error, because as independent runs they would write into one folder; its help ends with what to do
/// `instead`.
pub fn join(wanted: bool, instead: &str) -> Result<Role, Failure> {
    if !wanted {
        return Ok(Role::Rank(Arc::new(Single)));
    }
    connect().map_err(|error| {
        let is_of_launcher = error.is_of_launcher();
        let mut failure = Failure::from(error);
        if is_of_launcher {
            failure.message += &format!("; {instead}");
        }
        failure
    })
}

fn connect() -> tokenformer_ranks::Result<Role> {
    let found = Environment::find(|name| std::env::var(name).ok())?;
    let Some(found) = found.filter(|found| found.world > 1) else {
        return Ok(Role::Rank(Arc::new(Single)));
    };
    #[cfg(unix)]
    if let Some(code) = tokenformer_ranks::guard::run(&found)? {
        return Ok(Role::Guard(code));
    }
    let ranks = Mpi::connect(&found)?;
    if ranks.rank() == 0 {
        errln!(
            "{} ranks of {}, connected by {}",
            found.world,
            found.launcher.name(),
            ranks.describe()
        );
        (0..found.world).for_each(|rank| errln!("  {}", ranks.name(rank)));
    }
    Ok(Role::Rank(Arc::new(ranks)))
}

/// The flags of this rank: its share of the machine's cores.
pub fn share(compute: &ComputeArgs) -> ComputeArgs {
    ComputeArgs {
        threads: threads(compute.threads),
        ..compute.clone()
    }
}

/// Threads of this rank where none were asked for: its share of the machine's cores, unless the launcher has bound it to some.
fn threads(asked: Option<usize>) -> Option<usize> {
    let found = Environment::find(|name| std::env::var(name).ok())
        .ok()
        .flatten();
    let local = found.and_then(|found| found.local_world).unwrap_or(1);
    match (asked, mpi::connected()) {
        (None, Some(_)) if local > 1 => {
            let usable = std::thread::available_parallelism().map_or(1, usize::from);
            match is_bound(usable) {
                true => None,
                false => Some((usable / local).max(1)),
            }
        }
        _ => asked,
    }
}

/// Whether this process may use only some of the machine's cores.
fn is_bound(usable: usize) -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    usable < cores
}

/// Ends a job of which this rank has failed, with all other ranks. Does nothing in a process that is alone.
pub fn fail(failure: &Failure) {
    const OTHERS_FIRST: std::time::Duration = std::time::Duration::from_secs(1);
    if let Some(ranks) = mpi::connected() {
        if ranks.rank() > 0 {
            // What every rank finds wrong is said once: rank 0 ends the job before this.
            std::thread::sleep(OTHERS_FIRST);
        }
        errln!("error: {}: {}", ranks.name(ranks.rank()), failure.message);
        mpi::abort(failure.code());
    }
}
