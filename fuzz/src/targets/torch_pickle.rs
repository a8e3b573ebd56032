//! The pickle inside a `torch.save` archive that is otherwise whole.

use super::torch_file;
use crate::forge;

/// Puts the input into an archive and reads that.
pub fn run(input: &[u8]) {
    torch_file::run(&forge::torch(input));
}
