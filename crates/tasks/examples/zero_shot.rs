//! Evaluates a trained model: `zero_shot MODEL_DIR TASK_DATA_DIR OUT_DIR [TASKS]`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokenformer_core::{Cpu, Device};
use tokenformer_tasks::{ModelScorer, Options, Outcome, Task, evaluate, locate, results};
use tokenformer_train::files;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, out, tasks @ ..] = args.as_slice() else {
        return Err("usage: zero_shot MODEL_DIR TASK_DATA_DIR OUT_DIR [TASKS]".into());
    };
    let (model, out) = (Path::new(model), Path::new(out));
    std::fs::create_dir_all(out)?;
    let device: Arc<dyn Device> = Cpu::new(None);
    let (_, tokenizer) = files::load_tokenizer(model)?;
    let options = Options {
        tasks: locate::locate_all(
            Path::new(data),
            &Task::parse_list(tasks.first().map_or("all", String::as_str))?,
        )?,
        limit: None,
        model_hash: model.display().to_string(),
        partial: None,
    };
    let model = files::load_model(model, &device)?;

    let start = Instant::now();
    let outcome = evaluate(
        &options,
        &tokenizer,
        &mut ModelScorer::new(&model),
        &mut |progress| eprint!("\r{}/{} ", progress.done, progress.total),
        &AtomicBool::new(false),
    )?;
    if let Outcome::Finished { results, samples } = outcome {
        println!("\n{results}{:.1} s", start.elapsed().as_secs_f64());
        results::write_samples(&out.join("samples.jsonl"), &samples)?;
        std::fs::write(
            out.join("results.json"),
            serde_json::to_string_pretty(&results)?,
        )?;
    }
    Ok(())
}
