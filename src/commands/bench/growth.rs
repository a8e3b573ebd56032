//! The cost of growth: time of a training step against the size of the feed-forward networks.

use super::{Setup, flops_per_token, median, train};
use crate::commands::print_json;
use tokenformer_core::ModelConfig;
use tokenformer_report::table::{Table, human_count};
use tokenformer_train::Result;

/// Sizes of the feed-forward networks, as multiples of the preset's.
const FACTORS: [usize; 3] = [1, 2, 4];

#[derive(serde::Serialize)]
struct Row {
    ffn_tokens: usize,
    params: u64,
    step_ms: f64,
    /// Over the time of the preset itself.
    time_ratio: f64,
    /// The same of operations.
    flops_ratio: f64,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    preset: &'a str,
    computed_on: String,
    sizes: Vec<Row>,
}

/// Times a step at each size.
pub fn run(setup: &Setup<'_>) -> Result<()> {
    let precision = setup.precision()?;
    let configs = FACTORS
        .iter()
        .map(|factor| {
            let mut spec = setup.spec.clone();
            spec.slots.ffn *= factor;
            spec.mlp_hidden = factor * 4 * spec.width;
            Ok(spec.build()?)
        })
        .collect::<Result<Vec<ModelConfig>>>()?;
    for config in &configs {
        setup.ensure_training(config)?;
    }
    let device = setup.device(precision)?;
    let mut sizes: Vec<Row> = Vec::new();
    let mut first = None;
    for config in &configs {
        let (shape, recompute) = ([setup.batch, setup.context], setup.args.recompute);
        let time = median(train::run(
            config,
            shape,
            recompute,
            setup.args.steps,
            &device,
        )?);
        device.trim();
        let flops = flops_per_token(config, setup.context);
        let (first_time, first_flops) = *first.get_or_insert((time, flops));
        sizes.push(Row {
            ffn_tokens: config.blocks[0].ffn.hidden(),
            params: config.params(),
            step_ms: 1e3 * time,
            time_ratio: time / first_time,
            flops_ratio: flops / first_flops,
        });
    }
    let output = Output {
        preset: &setup.args.preset,
        computed_on: device.describe(),
        sizes,
    };
    match setup.args.json {
        true => print_json(&output),
        false => print(&output, setup),
    }
    Ok(())
}

fn print(output: &Output<'_>, setup: &Setup<'_>) {
    outln!(
        "growth of {}, batch {} x {}, {}",
        output.preset,
        setup.batch,
        setup.context,
        output.computed_on
    );
    let headers = [
        "ffn tokens",
        "parameters",
        "step, ms",
        "time",
        "FLOPs",
        "time over FLOPs",
    ];
    let mut table = Table::new(headers);
    for row in &output.sizes {
        table.row([
            row.ffn_tokens.to_string(),
            human_count(row.params),
            format!("{:.1}", row.step_ms),
            format!("{:.2}x", row.time_ratio),
            format!("{:.2}x", row.flops_ratio),
            format!("{:.2}", row.time_ratio / row.flops_ratio),
        ]);
    }
    out!("{table}");
}
