//! `plan cluster`: an update on many processors, on paper.

use super::print_json;
use crate::args::PlanClusterArgs;
use crate::usage;
use tokenformer_report::table::{Table, human_bytes, human_count};
use tokenformer_study::cluster::{
    A100, CPU, Estimate, H100, H200, Hardware, Job, LINK_10G, LINK_400G, LINK_NVLINK, Link,
    PUBLISHED_STEP_S, Way, model,
};
use tokenformer_train::Result;

/// Most ranks that make sense to plan.
const MAX_RANKS: usize = 1 << 20;

/// Runs the verb.
pub fn run(args: &PlanClusterArgs) -> Result<()> {
    let config = model(&args.preset)?;
    if !config.input.is_tokens() {
        let help = "choose one of text: `config presets` lists them";
        return Err(usage("--preset", "a model of text", &args.preset, help));
    }
    if let Some(&ranks) = args
        .ranks
        .iter()
        .find(|&&ranks| ranks == 0 || ranks > MAX_RANKS)
    {
        let help = "10000 is the largest of the default";
        return Err(usage("--ranks", "between 1 and 1048576", ranks, help));
    }
    let hardware = hardware(args)?;
    let link = match args.link.as_str() {
        "nvlink" => Link {
            rate: hardware.inside_rate,
            ..LINK_NVLINK
        },
        "10g" => LINK_10G,
        _ => LINK_400G,
    };
    let job = Job {
        config: &config,
        windows: args.windows,
        context: config.context,
        way: Way {
            is_ordered: args.reduce == "ordered",
            is_sharded: args.moments == "owner",
        },
    };
    let found: Vec<Estimate> = (args.ranks.iter())
        .map(|&ranks| job.on(ranks, &hardware, &link))
        .collect();
    if args.json {
        print_json(&found);
        return Ok(());
    }
    assumptions(args, &job, &hardware, &link);
    show(&found);
    breaks(&found);
    compare(args, &link);
    Ok(())
}

fn hardware(args: &PlanClusterArgs) -> Result<Hardware> {
    let known = match args.node.as_str() {
        "h200" => H200,
        "a100" => A100,
        "cpu" => CPU,
        _ => H100,
    };
    if args.node == "cpu" && args.flop_rate.is_none() {
        let help = "`bench train --preset NAME` measures it: FLOP/s of one rank with its threads";
        return Err(usage(
            "--flop-rate",
            "the speed of a CPU rank",
            "none",
            help,
        ));
    }
    if args.per_node == Some(0) {
        return Err(usage("--per-node", "at least 1", 0, "8 GPUs are usual"));
    }
    Ok(Hardware {
        flop_rate: args.flop_rate.unwrap_or(known.flop_rate),
        memory_bytes: args.memory.unwrap_or(known.memory_bytes),
        inside_rate: args.inside_rate.unwrap_or(known.inside_rate),
        per_node: args.per_node.unwrap_or(known.per_node),
        ..known
    })
}

fn assumptions(args: &PlanClusterArgs, job: &Job<'_>, hardware: &Hardware, link: &Link) {
    let Hardware {
        flop_rate,
        memory_bytes,
        per_node,
        inside_rate,
        ..
    } = *hardware;
    let origin = match args.flop_rate {
        Some(_) => "as given",
        None => "0.42 of the peak, as published runs of such models reach",
    };
    outln!(
        "{}: {} parameters, {} sequences of {} tokens in an update, {:.3e} FLOP",
        args.preset,
        human_count(job.config.params()),
        job.windows,
        job.context,
        job.flops()
    );
    outln!(
        "assumed: {} at {flop_rate:.3e} FLOP/s ({origin}), {} of memory, {per_node} ranks a node with {}/s between them,",
        hardware.name,
        human_bytes(memory_bytes as u64),
        human_bytes(inside_rate as u64)
    );
    outln!(
        "  {} between nodes ({}/s a node, {} µs); gradients in f32 on the wire, reduced during the last backward pass",
        link.name,
        human_bytes(link.rate as u64),
        link.latency_s * 1e6
    );
    outln!(
        "  moments on {}, sums {}; data, evaluation and checkpoints cost nothing\n",
        match job.way.is_sharded {
            true => "one rank each",
            false => "every rank",
        },
        args.reduce
    );
}

fn show(found: &[Estimate]) {
    let mut table = Table::new([
        "ranks",
        "step ms",
        "computing",
        "not hidden",
        "optimizer",
        "efficiency",
        "micro-batches",
        "sent",
        "memory",
        "first limit",
    ]);
    let ms = |s: f64| format!("{:.1}", s * 1e3);
    for of in found {
        table.row([
            of.ranks.to_string(),
            ms(of.step_s),
            ms(of.compute_s),
            ms(of.exposed_s),
            ms(of.update_s),
            format!("{:.0} %", 100.0 * of.efficiency),
            format!("{} x {}", of.accumulate, of.micro_batch),
            human_bytes(of.sent_bytes as u64),
            human_bytes(of.memory_bytes as u64),
            of.limits.first().cloned().unwrap_or_default(),
        ]);
    }
    out!("{table}");
}

/// Says what breaks first.
fn breaks(found: &[Estimate]) {
    let first = found.iter().find(|of| !of.limits.is_empty());
    match first {
        Some(of) => outln!(
            "\nbreaks first, at {} ranks: {}",
            of.ranks,
            of.limits.join("; ")
        ),
        None => outln!("\nnothing of this breaks"),
    }
}

/// Compares the published time of the 150M model with what this arithmetic says for it.
fn compare(args: &PlanClusterArgs, link: &Link) {
    if args.preset != "150m" {
        return;
    }
    // A preset of the library.
    let Ok(config) = model("150m") else {
        return;
    };
    let job = Job {
        config: &config,
        windows: 1024,
        context: 2048,
        way: Way {
            is_sharded: true,
            is_ordered: false,
        },
    };
    outln!(
        "\npublished: {:.0} ms for an iteration of 150M on 64 GPUs of a kind that is not stated (1024 x 2048 tokens, ZeRO 1)",
        PUBLISHED_STEP_S * 1e3
    );
    for hardware in [A100, H100] {
        let of = job.on(64, &hardware, link);
        outln!(
            "  64 x {} by this arithmetic: {:.0} ms, {:.2} of the published time, which is {:.0} % of {:.0} TFLOP/s",
            hardware.name,
            of.step_s * 1e3,
            of.step_s / PUBLISHED_STEP_S,
            100.0 * job.flops()
                / 64.0
                / PUBLISHED_STEP_S
                / (hardware.flop_rate / tokenformer_study::cluster::SUSTAINED),
            hardware.flop_rate / tokenformer_study::cluster::SUSTAINED / 1e12
        );
    }
}
