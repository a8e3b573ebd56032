//! Printing that does not panic when the output is closed or full, unlike `println!`.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Prints a line to standard output.
macro_rules! outln {
    ($($arg:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints to standard output.
macro_rules! out {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}

/// Prints a line to standard error, if anything can be printed there.
macro_rules! errln {
    ($($arg:tt)*) => { $crate::output::log(format_args!($($arg)*)) };
}

/// Prints to standard output. A reader that has gone away ends the program quietly, as it ends other
/// programs; any other failure ends it with exit code 1.
pub fn print(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        errln!(
            "error: standard output: cannot write: {error}\n  help:     free space where the output goes, or send it elsewhere"
        );
        std::process::exit(1);
    }
}

/// Prints a line to standard error. If that fails, the message is lost and the work continues.
pub fn log(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
