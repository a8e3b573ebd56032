//! The containers of a checkpoint's weights.

use std::path::PathBuf;

/// Where weights are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// In `torch.save` archives.
    Torch(Vec<PathBuf>),
    /// In safetensors files.
    Safetensors(Vec<PathBuf>),
    /// In a DeepSpeed training folder: the most precise copy there is.
    DeepSpeed(PathBuf),
    /// In the module of a DeepSpeed training folder.
    Module(PathBuf),
    /// In the copies that a DeepSpeed training folder may have of frozen parameters.
    Frozen(PathBuf),
}
