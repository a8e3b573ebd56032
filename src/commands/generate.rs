//! `generate`: continue a text, streaming it to the terminal.

use super::{device, ensure_text, load_model, stop_flag};
use crate::args::GenerateArgs;
use crate::ui::printable;
use crate::usage;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokenformer_core::Model;
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_store::Which;
use tokenformer_train::continuation::{Continuation, End, encode_prompt};
use tokenformer_train::{Error, Result, files};

/// Most text that is read from standard input.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// Runs the verb.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let sampling = Sampling {
        repetition_penalty: args.repetition_penalty,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        seed: args.seed,
    };
    let sampler = Sampler::new(sampling)?;
    let prompt = match args.prompt.as_str() {
        "-" => read_stdin()?,
        text => text.to_string(),
    };
    let device = device(&args.compute)?;
    let (found, model) = load_model(&args.model, Which::Latest, &device, args.precision)?;
    ensure_text(&model)?;
    let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
    let (tokens, losses) = encode_prompt(&tokenizer, &prompt)?;
    for note in losses.notes("the prompt") {
        errln!("note: {note}");
    }
    // The cache is no larger than this text needs, because keys and values of a whole context can take a gigabyte.
    let room = tokens.len().saturating_add(args.tokens);
    let newest_stage = newest_stage(&model, args.stage)?;
    let mut session = Session::new(&model, room.min(model.context()))?.until_stage(newest_stage);
    let started = Instant::now();
    session.feed(&tokens)?;
    let prefill_s = started.elapsed().as_secs_f64();

    let stop = stop_flag();
    print(&prompt);
    let mut continuation = Continuation::new(&tokenizer, &tokens, sampler, args.tokens, &args.stop);
    let (mut new, mut fed) = (0, 0);
    let started = Instant::now();
    let end = loop {
        if stop.load(Ordering::Relaxed) {
            break Ok(None);
        }
        let piece = match continuation.next(session.logits(), session.tokens(), session.room()) {
            Ok(piece) => piece,
            Err(error) => break Err(error),
        };
        print(&piece.text);
        new += usize::from(piece.token.is_some() && piece.end != Some(End::Document));
        match (piece.token, piece.end) {
            (Some(token), None) => {
                session.feed(&[token])?;
                fed += 1;
            }
            (_, end) => break Ok(end),
        }
    };
    let decode_s = started.elapsed().as_secs_f64();
    print(&continuation.finish());
    print("\n");
    // The text so far is printed first, then the reason why it ends.
    if end? == Some(End::Context) {
        errln!(
            "note: the context of {} tokens is full; the text ends here",
            model.context()
        );
    }
    // The first new token comes from the pass over the prompt, and the last one is not read any more.
    let speed = match fed {
        0 => String::new(),
        _ => format!(" at {:.1} tokens/s", fed as f64 / decode_s.max(1e-9)),
    };
    errln!(
        "{} prompt tokens in {prefill_s:.2} s, {new} new tokens{speed}",
        tokens.len()
    );
    Ok(())
}

/// The newest stage of birth of parameter tokens among the first `count` stages; `None` for the whole model.
fn newest_stage(model: &Model, count: Option<usize>) -> Result<Option<u32>> {
    let Some(count) = count else { return Ok(None) };
    let config = model.config();
    let stages = config.stages();
    let newest = count.checked_sub(1).and_then(|at| stages.get(at)).copied();
    let help = "`tokenformer inspect` shows the segments of each site; --stage counts stages from 1, config.json from 0";
    match newest {
        Some(newest) if config.until_stage(newest).is_some() => Ok(Some(newest)),
        Some(_) => {
            let expected = "the last stage, or a model with norms per segment to which no later stage added blocks or width";
            Err(usage("--stage", expected, count, help))
        }
        None => {
            let expected = format!("1 to {}, the stages of this model", stages.len());
            Err(usage("--stage", &expected, count, help))
        }
    }
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    let failed = |source| Error::Io {
        action: "read",
        path: Path::new("standard input").into(),
        source,
        help: "the prompt must be text in UTF-8",
    };
    std::io::stdin()
        .take(MAX_PROMPT_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    String::from_utf8(bytes).map_err(|e| failed(std::io::Error::other(e)))
}

/// Prints text, on a terminal without what would steer it.
fn print(text: &str) {
    match std::io::stdout().is_terminal() {
        true => out!("{}", printable(text)),
        false => out!("{text}"),
    }
}
