//! The readers. Every module has one `run(input)`, which panics or ends the process where the reader is wrong.

pub mod cifar;
pub mod class_map;
pub mod convert_folder;
pub mod corpus;
pub mod dataset;
pub mod deepspeed;
pub mod idx;
pub mod image;
pub mod image_set;
pub mod manifest;
pub mod megatron;
pub mod model_config;
pub mod model_folder;
pub mod neox_config;
pub mod pickle;
pub mod recipe;
pub mod records;
pub mod report;
pub mod request_body;
pub mod run_resolve;
pub mod safetensors;
pub mod task_partial;
pub mod task_rows;
pub mod token_file;
pub mod tokenizer;
pub mod torch_file;
pub mod torch_pickle;
pub mod train_state;

use tokenformer_images::source::Source;

/// Looks at every picture of a source that could be opened.
fn every_picture(opened: tokenformer_images::Result<Source>) {
    match opened {
        Ok(source) => {
            let classes = source.classes().len();
            source.each_picture(|label, picture| {
                assert!((label as usize) < classes);
                let picture = picture.expect("a picture of a whole block");
                assert!(picture.width() > 0 && picture.height() > 0);
            });
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
