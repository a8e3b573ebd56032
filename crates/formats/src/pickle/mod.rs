//! A reader of Python pickles (protocols 0 to 5) that never executes anything.
//!
//! A pickle is a program for a small stack machine. This reader interprets the program but cannot import, call or
//! construct anything: a function or class is only its name, and a call is only a record of that name and its arguments
//! ([`Object`]). Names are checked against an explicit list ([`globals`]); any other name ends the reading with
//! [`Error::RefusedGlobal`](crate::Error::RefusedGlobal).
//!
//! Memory is counted while reading: no pickle may take more than the caller's budget. Values form a graph in which
//! parts can be shared or even contain themselves, so code that traverses it must limit the traversal.
//!
//! ```
//! use tokenformer_formats::pickle::Pickle;
//!
//! # fn main() -> Result<(), tokenformer_formats::Error> {
//! // pickle.dumps({"step": 3}, protocol=2)
//! let pickle = Pickle::read("step.pkl", b"\x80\x02}q\x00X\x04\x00\x00\x00stepq\x01K\x03s.", 1 << 20)?;
//! assert_eq!(pickle.root().get("step").and_then(|step| step.as_i64()), Some(3));
//!
//! // os.system("id")
//! let attack = Pickle::read("attack.pkl", b"cos\nsystem\n(S'id'\ntR.", 1 << 20);
//! assert!(attack.err().unwrap().to_string().contains("has not been run"));
//! # Ok(())
//! # }
//! ```
//!
//! Source of the format: the comments of CPython's `Lib/pickletools.py`.

mod call;
pub mod globals;
mod input;
mod literal;
mod machine;
mod number;
mod opcode;
mod value;

pub use value::{Object, Pickle, Value};
