//! What the fuzz targets share: each target hands its input to a reader and fails on a panic, a hang, or memory that the
//! input does not justify.
//!
//! * [`targets`]: one module per reader;
//! * [`memory`]: the allocator that counts, and the limit;
//! * [`files`]: the folder in memory where readers find their files;
//! * [`seeds`]: what fuzzing starts from;
//! * [`forge`]: containers whose lengths and hashes fit, so that a mutation reaches what is inside.

pub mod files;
pub mod forge;
pub mod memory;
pub mod seeds;
pub mod targets;

/// For readers that catch the panics of a library they do not trust: only an uncaught panic is a failure.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
