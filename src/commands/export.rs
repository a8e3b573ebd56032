//! `export`: a model with the published names.

use super::{device, find_model};
use crate::args::{ExportArgs, WeightArg};
use crate::{Failure, ui};
use tokenformer_convert::{ExportOptions, WeightType, export};
use tokenformer_report::table::human_count;
use tokenformer_store::Which;

/// Runs the verb.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let device = device(&args.compute)?;
    let options = ExportOptions {
        model: find_model(&args.model, Which::Latest)?.dir,
        to: args.to.clone(),
        weights: match args.dtype {
            WeightArg::F32 => WeightType::F32,
            WeightArg::F16 => WeightType::F16,
            WeightArg::Bf16 => WeightType::BF16,
        },
        shard_bytes: args.shard_bytes,
    };
    let bar = ui::bar(0, "exporting");
    let exported = export(&options, &device, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let exported = exported?;
    outln!(
        "{} tensors, {} parameters{}",
        exported.tensors,
        human_count(exported.params),
        match exported.joined {
            0 => String::new(),
            joined => format!(", {joined} grown segments joined to those before them"),
        }
    );
    for file in &exported.files {
        outln!("written to {}", file.display());
    }
    Ok(())
}
