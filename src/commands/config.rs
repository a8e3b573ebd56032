//! `config show` and `config presets`.

use super::recipe::of_user;
use crate::args::{ConfigArgs, ConfigCommand};
use tokenformer_core::presets::PRESETS;
use tokenformer_report::table::Table;
use tokenformer_train::Result;
use tokenformer_train::recipe::Recipe;

/// Prints the size of the model before any growth, as a comment of the recipe.
fn totals(recipe: &Recipe) {
    let config =
        super::memory_plan::without_data(recipe).and_then(|vocab| recipe.model.build(vocab));
    match config {
        Ok(config) => {
            let outputs = match config.input.is_tokens() {
                true => "tokens of the vocabulary",
                false => "classes",
            };
            outln!(
                "\n# The model has {} parameters, {} of them in blocks, with {} {outputs}{}{}.",
                config.params(),
                config.body_params(),
                config.vocab,
                match recipe.model.vocab {
                    0 => " as the preset (the dataset decides)",
                    _ => "",
                },
                if recipe.grow.is_empty() {
                    ""
                } else {
                    ", before it grows"
                }
            );
        }
        Err(_) => outln!("\n# How many parameters the model has depends on the dataset."),
    }
}

/// Runs the verb.
pub fn run(args: &ConfigArgs) -> Result<()> {
    match &args.command {
        ConfigCommand::Show(args) => {
            let resolved = of_user(args.config.as_deref(), &args.sets)?;
            out!("{}", resolved.explain());
            totals(&resolved.recipe);
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
