//! `generate`: continue a text, streaming it to the terminal.

use super::{device, ensure_text, load_model, stop_flag};
use crate::args::GenerateArgs;
use crate::ui::printable;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokenformer_core::generate::{Sampler, Sampling, Session, StopFilter};
use tokenformer_store::Which;
use tokenformer_train::{Error, Result, ensure_finite, files};

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
    let mut sampler = Sampler::new(sampling)?;
    let prompt = match args.prompt.as_str() {
        "-" => read_stdin()?,
        text => text.to_string(),
    };
    let device = device(&args.compute)?;
    let (found, model) = load_model(&args.model, Which::Latest, &device, args.precision)?;
    ensure_text(&model)?;
    let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
    let eod = tokenizer.eod();
    let (mut tokens, losses) = tokenizer.encode_counted(&prompt)?;
    for note in losses.notes("the prompt") {
        errln!("note: {note}");
    }
    if tokens.is_empty() {
        tokens.push(eod.unwrap_or(0));
    }
    // The cache is no larger than this text needs, because keys and values of a whole context can take a gigabyte.
    let room = tokens.len().saturating_add(args.tokens);
    let mut session = Session::new(&model, room.min(model.context()))?;
    let started = Instant::now();
    session.feed(&tokens)?;
    let prefill_s = started.elapsed().as_secs_f64();

    let stop = stop_flag();
    let mut out = Output {
        filter: StopFilter::new(&args.stop),
        raw: !std::io::stdout().is_terminal(),
    };
    out.print(&prompt);
    let mut decoder = tokenizer.decode_stream_after(&tokens);
    let (mut new, mut full) = (0, false);
    let started = Instant::now();
    let mut failed = Ok(());
    while new < args.tokens && !stop.load(Ordering::Relaxed) {
        failed = ensure_finite(session.logits(), |token| {
            let position = session.tokens().len();
            format!("the logit of token {token} after {position} tokens")
        });
        if failed.is_err() {
            break;
        }
        let token = sampler.choose(session.logits(), session.tokens());
        if Some(token) == eod {
            break;
        }
        new += 1;
        if out.push(&decoder.push(token)) {
            break;
        }
        if new == args.tokens {
            break;
        }
        if session.room() == 0 {
            full = true;
            break;
        }
        session.feed(&[token])?;
    }
    let decode_s = started.elapsed().as_secs_f64();
    out.push(&decoder.finish());
    out.finish();
    // The text so far is printed first, then the reason why it ends.
    failed?;
    if full {
        errln!(
            "note: the context of {} tokens is full; the text ends here",
            model.context()
        );
    }
    errln!(
        "{} prompt tokens in {:.2} s, {new} new tokens at {:.1} tokens/s",
        tokens.len(),
        prefill_s,
        new as f64 / decode_s.max(1e-9)
    );
    Ok(())
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

struct Output {
    filter: StopFilter,
    raw: bool,
}

impl Output {
    fn print(&self, text: &str) {
        if self.raw {
            out!("{text}");
        } else {
            out!("{}", printable(text));
        }
    }

    /// Prints what is certain; true when a stop text was found.
    fn push(&mut self, text: &str) -> bool {
        let (ready, found) = self.filter.push(text);
        self.print(&ready);
        found
    }

    fn finish(&mut self) {
        let rest = self.filter.finish();
        self.print(&rest);
        self.print("\n");
    }
}
