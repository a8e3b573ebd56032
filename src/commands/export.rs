//! `export`: a model with the published names.

use super::{device, find_model};
use crate::args::ExportArgs;
use crate::{Failure, outputs, ui};
use tokenformer_convert::{ExportOptions, export};
use tokenformer_report::table::human_count;
use tokenformer_store::Which;

/// Runs the verb.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let inputs = [args.model.as_path()];
    match args.to.extension().and_then(|end| end.to_str()) {
        // The configuration beside a file never replaces an existing one.
        Some("safetensors" | "bin" | "pt" | "pth") if !args.to.is_dir() => {
            outputs::new_files("--to", std::slice::from_ref(&args.to), args.force, &inputs)?;
        }
        _ => outputs::folder("--to", &args.to, args.force, &inputs)?,
    }
    let device = device(&args.compute)?;
    let options = ExportOptions {
        model: find_model(&args.model, Which::Latest)?.dir,
        to: args.to.clone(),
        weights: args.dtype,
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
