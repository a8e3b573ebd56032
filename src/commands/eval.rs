//! `eval`: loss, perplexity and bits per byte on a dataset.

use super::{dataset, device, load_model, print_json, tasks};
use crate::args::{EvalArgs, Split};
use crate::{Failure, shell, ui, usage};
use std::path::Path;
use tokenformer_data::Dataset;
use tokenformer_store::Which;
use tokenformer_train::{Error, EvalOptions, Protocol, Result, evaluate, files, memory};

/// Tokens of a forward pass: enough for the products of matrices to run at full speed.
const PASS_TOKENS: usize = 2048;

#[derive(serde::Serialize)]
struct Output {
    model: String,
    data: String,
    protocol: String,
    context: usize,
    tokens: u64,
    loss: f64,
    perplexity: f64,
    bits_per_byte: Option<f64>,
}

/// Runs the verb.
pub fn run(args: &EvalArgs) -> std::result::Result<(), Failure> {
    match (&args.tasks, &args.data) {
        (Some(list), _) => tasks::eval(args, list),
        (None, Some(data)) => Ok(on_dataset(args, data)?),
        (None, None) => Err(usage(
            "--data",
            "a dataset folder, or --tasks",
            "neither",
            "see --help",
        )
        .into()),
    }
}

fn on_dataset(args: &EvalArgs, data: &Path) -> Result<()> {
    dataset::ensure("--data", data)?;
    let device = device(&args.compute)?;
    if let Some(batch) = args.batch.filter(|&n| n == 0 || n > 1 << 16) {
        return Err(usage(
            "--batch",
            "between 1 and 65536",
            batch,
            "leave it out for as many windows as have 2048 tokens",
        ));
    }
    let dataset = Dataset::open(data)?;
    let (found, model) = load_model(&args.model, Which::Best, &device, args.precision)?;
    if found.dir.join(files::TOKENIZER).exists() {
        let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
        if tokenizer.fingerprint() != dataset.tokenizer.fingerprint() {
            return Err(Error::Damaged {
                path: data.into(),
                problem: format!(
                    "another tokenizer than the model's\n  expected: {}\n  got:      {}",
                    tokenizer.describe(),
                    dataset.tokenizer.describe()
                ),
                help: format!(
                    "prepare the data with --tokenizer {}",
                    shell::path(&found.dir.join(files::TOKENIZER))
                ),
            });
        }
    }
    let context = args.context.unwrap_or(model.context());
    if context == 0 || context > model.context() {
        let expected = format!("between 1 and the model's context {}", model.context());
        return Err(usage(
            "--context",
            &expected,
            context,
            "leave it out for the model's context",
        ));
    }
    let text = match args.split {
        Split::Valid => &dataset.valid,
        Split::Train => &dataset.train,
    };
    let protocol = match args.stride {
        Some(stride) if stride == 0 || stride > context => {
            let expected = format!("between 1 and the context {context}");
            return Err(usage(
                "--stride",
                &expected,
                stride,
                "leave it out for windows side by side",
            ));
        }
        Some(stride) => Protocol::Sliding { stride },
        None => Protocol::Chunked,
    };
    let batch = args.batch.unwrap_or((PASS_TOKENS / context).max(1));
    let windows = text.len().div_ceil(args.stride.unwrap_or(context));
    let rows = (batch.min(windows) * context) as u64;
    memory::ensure(
        "the evaluation",
        memory::inference_bytes(&model.config(), rows),
        "choose a smaller --batch",
    )?;
    let options = EvalOptions {
        protocol,
        context,
        batch,
        max_tokens: args.tokens,
    };
    let total = text.len().saturating_sub(1).min(match args.tokens {
        0 => usize::MAX,
        n => n,
    });
    let bar = ui::bar(total as u64, "scoring");
    let result = evaluate(&model, text, options, |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let output = Output {
        model: found.dir.display().to_string(),
        data: text.path().display().to_string(),
        protocol: match protocol {
            Protocol::Chunked => "windows side by side".into(),
            Protocol::Sliding { stride } => format!("windows sliding by {stride}"),
        },
        context,
        tokens: result.tokens,
        loss: result.loss,
        perplexity: result.perplexity(),
        bits_per_byte: result.bits_per_byte,
    };
    if args.json {
        print_json(&output);
        return Ok(());
    }
    outln!("model          {}", output.model);
    outln!("data           {}", output.data);
    outln!(
        "protocol       {} of {} tokens",
        output.protocol,
        output.context
    );
    outln!("tokens         {}", output.tokens);
    outln!("loss           {:.4} nats per token", output.loss);
    outln!("perplexity     {:.3} per token", output.perplexity);
    if let Some(bpb) = output.bits_per_byte {
        outln!("bits per byte  {bpb:.4}");
    }
    Ok(())
}
