//! The readers. Every module has one `run(input)`, which panics or ends the process where the reader is wrong.

pub mod convert_folder;
pub mod corpus;
pub mod dataset;
pub mod deepspeed;
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

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
