//! DeepSpeed folders: the pickles of the module's file and of one rank's.

use tokenformer_formats::Error;
use tokenformer_formats::deepspeed::DeepSpeedFolder;

use super::torch_file::FIXED_BYTES;
use crate::memory::bounded;
use crate::{files, forge};

/// The separator of the two pickles, which hardly appears in one.
pub const SEPARATOR: &[u8] = b"\0|\0";

/// Makes a folder of the input's two parts and reads the best weights.
pub fn run(input: &[u8]) {
    let at = input
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR);
    let (states, shard) = match at {
        Some(at) => (&input[..at], &input[at + SEPARATOR.len()..]),
        None => (input, &input[..0]),
    };
    let folder = files::folder();
    let states = forge::torch(states);
    let shard = forge::torch(shard);
    files::write("mp_rank_00_model_states.pt", &states);
    files::write("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", &shard);
    // Each of the two files has a separate budget.
    bounded(input, 2 * FIXED_BYTES, || {
        if let Err(error) = read(folder, input.len()) {
            assert!(error.to_string().len() < 4000, "{error}");
        }
    });
}

fn read(folder: &std::path::Path, most: usize) -> Result<(), Error> {
    let opened = DeepSpeedFolder::open(folder)?;
    let _ = opened.iteration();
    let weights = opened.weights()?;
    let _ = opened.frozen()?;
    let listed = weights.tensors.list().iter();
    // Tensors that repeat numbers have a separate limit.
    for info in listed.filter(|info| info.elements() <= most) {
        if let Ok(numbers) = weights.tensors.read_f32(&info.name) {
            assert_eq!(numbers.len(), info.elements());
        }
    }
    Ok(())
}
