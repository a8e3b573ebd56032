//! `serve`: answer requests over the network.

use super::{device, load_model, stop_flag};
use crate::args::ServeArgs;
use crate::{Failure, usage};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokenformer_core::Device;
use tokenformer_report::table::human_count;
use tokenformer_serve::scheduler::Limits;
use tokenformer_serve::{NetLimits, Served, Server, Settings};
use tokenformer_store::Which;
use tokenformer_train::{Result, files};

/// Largest file of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;
/// Tokens of prompts that a step processes in addition to the next tokens of the texts.
const PROMPT_TOKENS: usize = 128;
/// Logits of a step for which one more thread helps to choose tokens.
const LOGITS_PER_THREAD: usize = 1 << 16;
/// How long a text may wait for its turn.
const WAIT: Duration = Duration::from_secs(120);

/// Runs the verb.
pub fn run(args: &ServeArgs) -> std::result::Result<(), Failure> {
    let keys = match &args.api_key_file {
        Some(path) => read_keys(path)?,
        None => Vec::new(),
    };
    if let Some(run) = &args.run
        && !run.is_dir()
    {
        let help = "the directory need not hold records yet, but it must exist";
        return Err(usage("--run", "a directory", run.display(), help).into());
    }
    let device = device(&args.compute)?;
    let models = (args.model.iter())
        .map(|model| load(model, args, &device))
        .collect::<std::result::Result<Vec<_>, Failure>>()?;
    let to_usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let settings = Settings {
        bind: args.bind,
        keys,
        allow_no_key: args.allow_no_key,
        limits: Limits {
            batch: to_usize(args.batch),
            prompt_tokens: PROMPT_TOKENS,
            cache_bytes: to_usize(args.cache_mib).saturating_mul(1 << 20),
            threads: args.compute.threads.unwrap_or_else(cores),
            logits_per_thread: LOGITS_PER_THREAD,
            wait: WAIT,
        },
        net: NetLimits {
            requests: to_usize(args.requests.min(1 << 16)),
            ..NetLimits::default()
        },
        run: args.run.clone(),
    };
    let stop = stop_flag();
    let server = Server::bind(models, settings)?;
    outln!("http://{}", server.address()?);
    server.run(stop)?;
    errln!("every request that had begun is answered");
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The model that `[NAME=]DIR` asks for.
fn load(
    model: &str,
    args: &ServeArgs,
    device: &Arc<dyn Device>,
) -> std::result::Result<Served, Failure> {
    // A directory may have `=` in its name.
    let (name, dir) = match model.split_once('=') {
        Some((name, dir)) if !Path::new(model).exists() => (Some(name), Path::new(dir)),
        _ => (None, Path::new(model)),
    };
    let last = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let last = last.file_name().unwrap_or_default().to_string_lossy();
    let name = name.map_or_else(|| last.into_owned(), Into::into);
    let (found, model) = load_model(dir, Which::Latest, device, args.precision)?;
    super::ensure_text(&model)?;
    let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
    let served = Served::new(&name, model, tokenizer)?;
    errln!(
        "{name}: {} parameters, context {}, {}",
        human_count(served.config.params()),
        served.config.context,
        match served.stages.len() {
            1 => "one stage".into(),
            n => format!("{n} stages"),
        }
    );
    Ok(served)
}

/// The keys of a file, one a line.
fn read_keys(path: &Path) -> Result<Vec<String>> {
    let bytes = tokenformer_store::read_small(path, MAX_KEY_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<String> = lines.map(Into::into).collect();
    match keys.is_empty() {
        true => Err(usage(
            "--api-key-file",
            "a file with a key in every line",
            format!("{}, which has none", path.display()),
            "write a long random text into it",
        )),
        false => Ok(keys),
    }
}
