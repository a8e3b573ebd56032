//! A reader of Python pickles (protocols 0 to 5) in which nothing can run.
//!
//! A pickle is a program for a small stack machine. This reader follows the program but has no way to import, call or
//! construct anything: a function or class is only its name, and a call is only a record of that name and its
//! arguments ([`Object`]). Names are checked against an explicit list ([`globals`]); any other one ends the reading with
//! [`Error::RefusedGlobal`](crate::Error::RefusedGlobal).
//!
//! Memory is accounted for while reading: a pickle may not take more than the caller's budget, however it is made.
//! Values form a graph in which parts can be shared or even contain themselves, so whoever walks it must bound the walk.
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
