//! A guard process for a rank: it says which rank was killed, which a killed process cannot do itself, and launchers name only
//! a process number.

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mpi::machine_name;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

/// Set for the process that a guard started.
pub const VARIABLE: &str = "TOKENFORMER_GUARDED";

/// Exit code of a rank that was killed by a signal, as shells have it: 128 and the signal.
const KILLED: i32 = 128;

/// Runs this program again with the same arguments as the rank itself, and waits for it; `None` in that process, and where
/// there are no ranks. Signals that ask for an end are passed on; if the guard is killed, so is the rank.
///
/// # Errors
/// If the process cannot be started.
pub fn run(found: &Environment) -> Result<Option<i32>> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(None);
    }
    let program = std::env::current_exe().map_err(|source| Error::Start {
        program: "this program".into(),
        source,
    })?;
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "1");
    end_with_parent(&mut command);
    let (status, process) = run_to_end(command, Some(SIGTERM))?;
    if let Some(signal) = status.signal() {
        eprintln!(
            "error: rank {} of {} ({}, process {process}) was killed by signal {signal}\n  expected: a rank that ends by itself\n  \
             got:      {}\n  help:     the same command goes on from the last checkpoint, with any number of ranks",
            found.rank,
            found.world,
            machine_name(),
            meaning(signal)
        );
        return Ok(Some(KILLED + signal));
    }
    Ok(Some(status.code().unwrap_or(1)))
}

fn meaning(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => "SIGKILL: killed by hand, by the scheduler, or because memory ran out",
        libc::SIGSEGV | libc::SIGBUS => "a bad memory access",
        libc::SIGABRT => "an abort",
        libc::SIGXCPU => "too much processor time",
        _ => "a signal from outside",
    }
}

/// Runs a command to its end, and passes on the signals that ask for an end: as `instead` if that is given. The command is in a
/// process group of its own, so that a terminal's Ctrl-C reaches it once.
///
/// # Errors
/// If it cannot be started.
pub fn run_to_end(mut command: Command, instead: Option<i32>) -> Result<(ExitStatus, u32)> {
    let failed = |program: &Command, source| Error::Start {
        program: program.get_program().into(),
        source,
    };
    // Before the child exists, so that no signal is missed.
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|source| failed(&command, source))?;
    command.process_group(0);
    let mut child = command.spawn().map_err(|source| failed(&command, source))?;
    let process = child.id();
    let handle = signals.handle();
    let passing = std::thread::spawn(move || {
        for signal in signals.forever() {
            // SAFETY: `kill` only sends a signal. The child is not waited for before this thread has ended or the process
            // group is gone, in which case nothing happens.
            unsafe { libc::kill(process as libc::pid_t, instead.unwrap_or(signal)) };
        }
    });
    let status = wait(&mut child);
    handle.close();
    // It has nothing to say.
    let _ = passing.join();
    match status {
        Ok(status) => Ok((status, process)),
        Err(source) => Err(failed(&command, source)),
    }
}

fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

/// Lets the child end if its parent is killed (Linux).
fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let end = || {
            // SAFETY: `prctl` may be called between fork and exec; it changes this process only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: the closure only calls `prctl`, and allocates nothing.
        unsafe { command.pre_exec(end) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_end_of_a_command_is_told() {
        let (status, _) = run_to_end(shell("exit 7"), None).unwrap();
        assert_eq!(status.code(), Some(7));
        let (status, _) = run_to_end(shell("kill -KILL $$"), None).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        let error = run_to_end(Command::new("/there/is/none"), None).unwrap_err();
        assert!(
            error.to_string().contains("/there/is/none: cannot start"),
            "{error}"
        );
    }
}
