//! `state.json` of a checkpoint.

use tokenformer_train::files::read_state;

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Reads the input as the state of a training run.
pub fn run(input: &[u8]) {
    files::write("state.json", input);
    bounded(input, MIB, || match read_state(files::folder()) {
        Ok(state) => assert_eq!(state.version, 1),
        Err(error) => {
            let _ = error.to_string();
        }
    });
}
