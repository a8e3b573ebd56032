//! `torch.save` archives as they come.

use tokenformer_formats::{Error, TorchFile};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// What a small archive may hold: the budget of its pickle and one tensor.
pub(super) const FIXED_BYTES: usize = 17 * MIB;

/// Opens the input as an archive and reads every tensor; those that repeat numbers have a separate limit.
pub fn run(input: &[u8]) {
    let path = files::write("input.pt", input);
    bounded(input, FIXED_BYTES, || {
        if let Err(error) = read(&path, input.len()) {
            assert!(error.to_string().len() < 4000, "{error}");
        }
    });
}

fn read(path: &std::path::Path, most: usize) -> Result<(), Error> {
    let tensors = TorchFile::open(path)?.tensors()?;
    for (name, _) in tensors.unread() {
        assert!(tensors.get(name).is_err());
    }
    for info in tensors.list().iter().filter(|info| info.elements() <= most) {
        let Ok(numbers) = tensors.read_f32(&info.name) else {
            continue;
        };
        assert_eq!(numbers.len(), info.elements());
        let mut passed = 0;
        tensors.for_each_chunk::<Error>(&info.name, 7, |chunk| {
            passed += chunk.len();
            Ok(())
        })?;
        assert_eq!(passed, numbers.len());
    }
    assert!(tensors.get("no such name").is_err());
    Ok(())
}
