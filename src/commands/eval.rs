//! `eval`: loss, perplexity and bits per byte on a dataset.

use super::{
    dataset, device, ensure_text, eval_images, load_weights, print_json, ranks, stop_flag, tasks,
};
use crate::args::{EvalArgs, Split};
use crate::{Failure, shell, ui, usage};
use std::path::Path;
use tokenformer_core::device::Collective;
use tokenformer_data::Dataset;
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_train::files::Weights;
use tokenformer_train::{
    Error, EvalOptions, Evaluation, HeldOut, Protocol, Result, ScoredBytes, files, memory,
};

/// Tokens of a forward pass: enough for the products of matrices to run at full speed.
const PASS_TOKENS: usize = 2048;

#[derive(serde::Serialize)]
struct Output {
    model: String,
    /// Which weights were read, `trained` or `ema`.
    weights: &'static str,
    data: String,
    protocol: String,
    context: usize,
    tokens: u64,
    loss: f64,
    perplexity: f64,
    /// Bytes of text of the scored tokens.
    bytes: Option<f64>,
    /// Whether the bytes are those of the mean token instead, because the tokenizer does not say more.
    bytes_are_estimated: bool,
    bits_per_byte: Option<f64>,
}

/// Runs the verb; returns the exit code, which is that of the rank where this process only guards one.
pub fn run(args: &EvalArgs) -> std::result::Result<i32, Failure> {
    let collective = match ranks::join(args.ranks, ranks::ALONE)? {
        ranks::Role::Rank(collective) => collective,
        #[cfg(unix)]
        ranks::Role::Guard(code) => return Ok(code),
    };
    match (&args.tasks, &args.data) {
        (Some(list), _) => tasks::eval(args, list, &collective)?,
        (None, Some(data)) if is_image_dataset(data) => {
            if collective.world() > 1 {
                let help = "pictures are measured by one process; it uses all cores";
                return Err(usage(
                    "--data",
                    "text, or --tasks, on several ranks",
                    "pictures",
                    help,
                )
                .into());
            }
            eval_images::run(args, data)?;
        }
        (None, Some(data)) => on_dataset(args, data, &*collective)?,
        (None, None) => {
            let expected = "a dataset folder, or --tasks";
            return Err(usage("--data", expected, "neither", "see --help").into());
        }
    }
    Ok(0)
}

fn refuse_flags_of_pictures(args: &EvalArgs) -> Result<()> {
    let given = [
        (
            "--image-size",
            args.image_size.is_some(),
            "leave it out: text has a --context",
        ),
        (
            "--max-unreadable",
            args.max_unreadable.is_some(),
            "leave it out: text is read as a whole",
        ),
        ("--out", args.out.is_some(), "leave it out, or use --json"),
    ];
    match given.iter().find(|(_, is_given, _)| *is_given) {
        Some((flag, _, help)) => Err(usage(
            flag,
            "a dataset of pictures",
            "a dataset of text",
            help,
        )),
        None => Ok(()),
    }
}

fn on_dataset(args: &EvalArgs, data: &Path, collective: &dyn Collective) -> Result<()> {
    dataset::ensure_text("--data", data)?;
    refuse_flags_of_pictures(args)?;
    let device = device(&ranks::share(&args.compute))?;
    let dataset = Dataset::open(data)?;
    let weights = Weights::from(args.weights);
    let which = weights.best();
    let (found, model) = load_weights(&args.model, which, &device, weights, args.precision)?;
    ensure_text(&model)?;
    model.ensure_causal()?;
    check_tokenizer(&found.dir, &dataset, data)?;
    let text = match args.split {
        Split::Valid => &dataset.valid,
        Split::Train => &dataset.train,
        Split::Test => {
            let help = "a dataset of text has no test split";
            return Err(usage("--split", "valid or train", "test", help));
        }
    };
    let options = options(args, model.context())?;
    let windows = text.len().div_ceil(args.stride.unwrap_or(options.context));
    let rows = (options.batch.min(windows) * options.context) as u64;
    let bytes = memory::inference_bytes(&model.config(), rows);
    let help = "choose a smaller --batch";
    memory::ensure_on_ranks(&*device, "the evaluation", bytes, help, collective)?;
    let total = text.len().saturating_sub(1).min(match args.tokens {
        0 => usize::MAX,
        n => n,
    });
    let bar = match collective.rank() {
        0 => ui::bar(total as u64, "scoring"),
        _ => indicatif::ProgressBar::hidden(),
    };
    let bytes = &ScoredBytes::new(&dataset.tokenizer, text);
    let held_out = HeldOut { text, bytes };
    let progress = |done| bar.set_position(done);
    let ended = held_out.evaluate_on_ranks(&model, options, stop_flag(), progress, collective)?;
    let done = bar.position();
    bar.finish_and_clear();
    let result = checked(ended, done, total)?;
    let output = Output {
        model: found.dir.display().to_string(),
        weights: args.weights.name(),
        data: text.path().display().to_string(),
        protocol: match options.protocol {
            Protocol::Chunked => "windows side by side".into(),
            Protocol::Sliding { stride } => format!("windows sliding by {stride}"),
        },
        context: options.context,
        tokens: result.tokens,
        loss: result.loss,
        perplexity: result.perplexity(),
        bytes: result.bytes,
        bytes_are_estimated: result.bytes.is_some() && !bytes.is_counted(),
        bits_per_byte: result.bits_per_byte,
    };
    match args.json {
        _ if collective.rank() > 0 => {}
        true => print_json(&output),
        false => print(&output),
    }
    Ok(())
}

/// Refuses data whose tokens mean something else to the model.
fn check_tokenizer(model: &Path, dataset: &Dataset, data: &Path) -> Result<()> {
    if !model.join(files::TOKENIZER).exists() {
        return Ok(());
    }
    let (_, tokenizer) = files::load_tokenizer(model)?;
    if tokenizer.fingerprint() == dataset.tokenizer.fingerprint() {
        return Ok(());
    }
    Err(Error::Damaged {
        path: data.into(),
        problem: format!(
            "another tokenizer than the model's\n  expected: {}\n  got:      {}",
            tokenizer.describe(),
            dataset.tokenizer.describe()
        ),
        help: format!(
            "prepare the data with --tokenizer {}",
            shell::path(&model.join(files::TOKENIZER))
        ),
    })
}

/// The settings that the flags ask for, with a model of `most` positions.
fn options(args: &EvalArgs, most: usize) -> Result<EvalOptions> {
    if let Some(batch) = args.batch.filter(|&n| n == 0 || n > 1 << 16) {
        return Err(usage(
            "--batch",
            "between 1 and 65536",
            batch,
            "leave it out for as many windows as have 2048 tokens",
        ));
    }
    let context = args.context.unwrap_or(most);
    if context == 0 || context > most {
        return Err(usage(
            "--context",
            &format!("between 1 and the model's context {most}"),
            context,
            "leave it out for the model's context",
        ));
    }
    let protocol = match args.stride {
        Some(stride) if stride == 0 || stride > context => {
            return Err(usage(
                "--stride",
                &format!("between 1 and the context {context}"),
                stride,
                "leave it out for windows side by side",
            ));
        }
        Some(stride) => Protocol::Sliding { stride },
        None => Protocol::Chunked,
    };
    Ok(EvalOptions {
        protocol,
        context,
        batch: args.batch.unwrap_or((PASS_TOKENS / context).max(1)),
        max_tokens: args.tokens,
    })
}

fn print(output: &Output) {
    outln!(
        "model          {} ({} weights)",
        output.model,
        output.weights
    );
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
        let bytes = output.bytes.unwrap_or_default();
        match output.bytes_are_estimated {
            false => outln!("bits per byte  {bpb:.4} over the {bytes} bytes of these tokens"),
            true => outln!(
                "bits per byte  {bpb:.4} over about {bytes:.0} bytes, by the mean of the split: the tokenizer does not tell a token's bytes"
            ),
        }
    }
}

/// An evaluation that came to its end, with a loss that is a number.
fn checked(ended: Option<Evaluation>, done: u64, total: usize) -> Result<Evaluation> {
    let found = ended.ok_or_else(|| Error::Stopped {
        what: "the evaluation",
        expected: format!("{total} tokens scored"),
        got: done.to_string(),
        help: "run the command again for a result",
    })?;
    match found.loss.is_finite() {
        true => Ok(found),
        false => Err(Error::NotFinite {
            what: "the loss".into(),
            got: found.loss,
        }),
    }
}
