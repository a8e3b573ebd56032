//! `inspect`: describe a model, checkpoint, run or dataset; the plan of a run is in [`super::memory_plan`].

use super::{find_model, images, print_json};
use crate::Failure;
use crate::args::InspectArgs;
use std::path::Path;
use tokenformer_core::ModelConfig;
use tokenformer_core::config::{
    BlockConfig, Input, LayerConfig, NormSpan, SegmentConfig, SiteKind,
};
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_report::table::{Table, human_bytes, human_count};
use tokenformer_store::Which;
use tokenformer_train::Result;
use tokenformer_train::files::{self, TrainState};

#[derive(serde::Serialize)]
struct Output {
    dir: String,
    params: u64,
    body_params: u64,
    weight_bytes: u64,
    forward_flops_per_token: f64,
    /// Of an image, or of a whole context.
    forward_flops: f64,
    verified: bool,
    config: ModelConfig,
    state: Option<TrainState>,
}

/// Runs the verb.
pub fn run(args: &InspectArgs) -> std::result::Result<(), Failure> {
    let dir = match (&args.dir, &args.plan) {
        (Some(dir), _) => dir,
        (None, plan) => return Ok(super::memory_plan::run(args, plan.as_deref())?),
    };
    match is_image_dataset(dir) {
        true => images::inspect(dir, args.json),
        false => Ok(inspect(dir, args.json)?),
    }
}

fn inspect(dir: &Path, json: bool) -> Result<()> {
    if dir.join("dataset.json").exists() {
        let summary = tokenformer_data::inspect(dir)?;
        match json {
            true => print_json(&summary),
            false => out!("{summary}"),
        }
        return Ok(());
    }
    let found = find_model(dir, Which::Latest)?;
    let config = files::read_config(&found.dir)?;
    let state = match found.dir.join(files::STATE).exists() {
        true => Some(files::read_state(&found.dir)?),
        false => None,
    };
    let output = Output {
        dir: found.dir.display().to_string(),
        params: config.params(),
        body_params: config.body_params(),
        weight_bytes: config.params() * 4,
        forward_flops_per_token: config.forward_flops_per_token(config.context),
        forward_flops: config.forward_flops(),
        verified: found.manifest.is_some(),
        config,
        state,
    };
    match json {
        true => print_json(&output),
        false => print(&output),
    }
    Ok(())
}

fn print(output: &Output) {
    let c = &output.config;
    outln!("{}", output.dir);
    let flops = match c.input {
        Input::Tokens => format!(
            "{:.3} GFLOP per token forward at {} tokens",
            output.forward_flops_per_token / 1e9,
            c.context
        ),
        Input::Image(_) => format!("{:.3} GFLOP per image forward", output.forward_flops / 1e9),
    };
    let mut layers = c.blocks.iter().flat_map(BlockConfig::layers);
    let body = match layers.all(|layer| layer.site().is_some()) {
        true => "parameter tokens",
        false => "blocks",
    };
    outln!(
        "{} parameters ({} in {body}), {} in f32, {flops}",
        output.params,
        output.body_params,
        human_bytes(output.weight_bytes),
    );
    let reads = match c.input {
        Input::Tokens => format!("vocabulary {}, context {}", c.vocab, c.context),
        Input::Image(image) => format!(
            "images of {}x{} pixels and {} channels in patches of {}x{}, {} classes, pooled by {:?}, {} positions",
            image.height,
            image.width,
            image.channels,
            image.patch[0],
            image.patch[1],
            c.classes(),
            image.pool,
            c.context
        ),
    };
    outln!(
        "{} layers, width {}, {} heads, {reads}, {:?}, block norm {:?}, final norm {:?}, {}, {:?} residual, head {:?}{}, logits x {:.4}",
        c.layers(),
        c.width,
        c.heads,
        c.positions,
        c.block_norm,
        c.final_norm,
        if c.causal { "causal" } else { "bidirectional" },
        c.residual,
        c.head,
        if c.head_bias { " with bias" } else { "" },
        c.logit_factor()
    );
    if let Some(state) = &output.state {
        outln!(
            "trained for {} steps on {} tokens, stage {}, {} growths, {} updates skipped",
            state.step,
            human_count(state.tokens),
            state.stage + 1,
            state.growths.len(),
            state.skipped
        );
    }
    let mut table = Table::new([
        "layer",
        "blocks",
        "kind",
        "segments",
        "tokens",
        "tau",
        "norm",
        "parameters",
    ]);
    for kind in SiteKind::ALL {
        // Blocks with the same layer share a row.
        let mut from = 0;
        while from < c.layers() {
            let layer = c.blocks[from].layer(kind);
            let same = (c.blocks[from..].iter())
                .take_while(|b| b.layer(kind) == layer)
                .count();
            let blocks = match same {
                1 => from.to_string(),
                _ => format!("{from}-{}", from + same - 1),
            };
            let [what, segments, tokens, tau, norm] = layer_row(layer);
            let params = human_count(layer.params(c.width) * same as u64);
            let name = kind.name().to_string();
            table.row([name, blocks, what, segments, tokens, tau, norm, params]);
            from += same;
        }
    }
    out!("{table}");
    outln!(
        "{}",
        if output.verified {
            "every file matches the manifest"
        } else {
            "no manifest: files are not verified"
        }
    );
}

/// Kind, segments, tokens, τ and norm of a layer.
fn layer_row(layer: &LayerConfig) -> [String; 5] {
    let none = String::new;
    match layer {
        LayerConfig::Pattention(site) => {
            let list = |of: fn(&SegmentConfig) -> String, between: &str| {
                let parts: Vec<String> = site.segments.iter().map(of).collect();
                parts.join(between)
            };
            let tau = match site.norm {
                NormSpan::Joint => format!("{:.3}", site.tau),
                NormSpan::Segment => list(|s| format!("{:.3}", s.tau), " + "),
            };
            [
                format!("pattention, {}", site.theta),
                list(|s| s.tokens.to_string(), " + "),
                site.tokens().to_string(),
                tau,
                format!("{:?}", site.norm).to_lowercase(),
            ]
        }
        LayerConfig::Linear { bias } => {
            [with_bias("linear", *bias), none(), none(), none(), none()]
        }
        LayerConfig::Mlp {
            hidden,
            bias,
            parts,
        } => {
            let what = with_bias("mlp", *bias);
            let all = std::iter::once(*hidden).chain(parts.iter().map(|part| part.hidden));
            let all: Vec<String> = all.map(|units| units.to_string()).collect();
            let grown = if parts.is_empty() {
                none()
            } else {
                all.join(" + ")
            };
            [what, grown, layer.hidden().to_string(), none(), none()]
        }
    }
}

fn with_bias(name: &str, bias: bool) -> String {
    match bias {
        true => format!("{name}, bias"),
        false => name.into(),
    }
}
