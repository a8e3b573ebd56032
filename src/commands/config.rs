//! `config show` and `config presets`.

use crate::args::{ConfigArgs, ConfigCommand};
use tokenformer_core::presets::PRESETS;
use tokenformer_report::table::Table;
use tokenformer_train::Result;
use tokenformer_train::recipe::resolve;

/// Runs the verb.
pub fn run(args: &ConfigArgs) -> Result<()> {
    match &args.command {
        ConfigCommand::Show(args) => {
            out!("{}", resolve(args.config.as_deref(), &args.sets)?.explain());
        }
        ConfigCommand::Presets => {
            let headers = [
                "preset",
                "about",
                "layers",
                "width",
                "heads",
                "context",
                "qkv",
                "proj",
                "ffn",
                "parameters",
            ];
            let mut table = Table::new(headers);
            for preset in PRESETS {
                let spec = preset.spec();
                let config = spec.build()?;
                table.row([
                    preset.name.to_string(),
                    preset.about.to_string(),
                    spec.layers.to_string(),
                    spec.width.to_string(),
                    spec.heads.to_string(),
                    config.context.to_string(),
                    spec.slots.qkv.to_string(),
                    spec.slots.proj.to_string(),
                    spec.slots.ffn.to_string(),
                    config.params().to_string(),
                ]);
            }
            out!("{table}");
        }
    }
    Ok(())
}
