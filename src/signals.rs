//! Ctrl-C and the other signals that ask a program to end.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::ffi::c_int;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// A closed terminal sends SIGHUP, a job scheduler or service manager SIGTERM.
#[cfg(unix)]
const SIGNALS: &[c_int] = &[SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: &[c_int] = &[SIGINT, SIGTERM];

/// A flag that the first of these signals sets; Ctrl-C after that ends the program at once.
///
/// A signal that was ignored when the program started stays ignored: `nohup` does that to SIGHUP, and shells do
/// it to Ctrl-C for the background jobs of a script, to keep such programs running.
pub fn stop_flag() -> &'static AtomicBool {
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    STOP.get_or_init(install)
}

fn install() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard: Vec<c_int> = (SIGNALS.iter().copied())
        .filter(|&signal| !is_ignored(signal))
        .collect();
    // Where a handler cannot be installed the signal ends the program as usual; checkpoints stay good either way.
    announce(&heard);
    for &signal in &heard {
        // Handlers run in this order, so only a second Ctrl-C finds the flag set. The others can come twice without
        // being meant so: a shell passes on the SIGHUP that its terminal has sent already.
        if signal == SIGINT {
            let _ = flag::register_conditional_default(signal, Arc::clone(&stop));
        }
        let _ = flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// Tells the user that the signal was received, because a step can take a while.
#[cfg(unix)]
fn announce(signals: &[c_int]) {
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(signals) {
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                errln!(
                    "stopping as soon as the work at hand is done (Ctrl-C once more stops at once)"
                );
            }
        });
    }
}

#[cfg(not(unix))]
fn announce(_signals: &[c_int]) {}

#[cfg(unix)]
fn is_ignored(signal: c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the old one is written to memory of its type.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: on success all of it was written.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(not(unix))]
fn is_ignored(_signal: c_int) -> bool {
    false
}
