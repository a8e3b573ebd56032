//! `export`: a model with the published names.

use super::{device, find_model};
use crate::args::{ExportArgs, with_layout};
use crate::{Failure, outputs, ui, usage};
use std::path::Path;
use tokenformer_convert::{ExportOptions, KIND_EXPORT, export};
use tokenformer_report::table::human_count;
use tokenformer_store::Which;
use tokenformer_train::Result;
use tokenformer_train::files::read_config;

/// Runs the verb.
pub fn run(args: &ExportArgs) -> std::result::Result<(), Failure> {
    let (is_timm, to) = with_layout("--to", &args.to)?;
    check_target(to, args.force, &args.model)?;
    let device = device(&args.compute)?;
    let model = find_model(&args.model, Which::Latest)?.dir;
    check_target(to, args.force, &model)?;
    if is_timm && read_config(&model)?.input.is_tokens() {
        let help = "timm has models of images; leave the word out to export this one";
        return Err(usage("--to", "a path, for a language model", "timm", help).into());
    }
    let options = ExportOptions {
        model,
        to: to.into(),
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

/// Returns an error for a target that may not be written while `model` is read.
fn check_target(to: &Path, force: bool, model: &Path) -> Result<()> {
    match to.extension().and_then(|end| end.to_str()) {
        // The configuration next to a file never replaces an existing one.
        Some("safetensors" | "bin" | "pt" | "pth") if !to.is_dir() => {
            outputs::new_files("--to", &[to.to_path_buf()], force, &[model])
        }
        _ => outputs::folder("--to", to, force, &[KIND_EXPORT], &[model]),
    }
}
