//! `reproduce`: studies of many runs.

use super::data::prepare_with_progress;
use super::{device, stop_flag};
use crate::args::{GrowthArgs, ReproduceArgs, ReproduceCommand};
use crate::ui::StudyView;
use crate::{shell, usage};
use std::path::{Path, PathBuf};
use tokenformer_report::table::{Table, human_count, human_duration};
use tokenformer_study::corpus::{Source, second_source, source};
use tokenformer_study::{Corpus, Profile, Runner, Settings, arms, turn};
use tokenformer_train::{Outcome, Result};

/// Runs the verb.
pub fn run(args: &ReproduceArgs) -> Result<()> {
    match &args.command {
        ReproduceCommand::Growth(args) => growth(args),
        ReproduceCommand::Vision(args) => super::reproduce_vision::run(args),
    }
}

fn growth(args: &GrowthArgs) -> Result<()> {
    const MAX_SEEDS: u64 = 100;
    let profile = Profile::named(&args.profile)?;
    let arms = arms::named(&args.arms)?;
    let seeds = args.seeds.unwrap_or(profile.seeds);
    if seeds > MAX_SEEDS {
        let expected = format!("at most {MAX_SEEDS}");
        return Err(usage("--seeds", &expected, seeds, "3 are usual"));
    }
    let out = (args.out.clone())
        .unwrap_or_else(|| Path::new("runs").join(format!("growth-{}", profile.name)));
    let device = device(&args.compute)?;
    let corpus = corpus(args, &profile, &out)?;
    for note in corpus.notes() {
        errln!("note: {note}");
    }
    let second = second(args, &profile, &corpus, &out)?;
    if second.is_none() {
        errln!("note: Without a second text (--second), what models forget is not measured.");
    }
    let settings = Settings {
        corpus: corpus.id.clone(),
        second: second.as_ref().map(|second| second.id.clone()),
        vocab: corpus.dataset.tokenizer.vocab_size(),
        profile,
        seeds,
        arms,
    };
    let results = args.results.as_deref();
    let mut runner = Runner::new(settings, corpus, second, &device, &out, results)?;
    if args.list {
        return list(&mut runner);
    }
    let mut view = StudyView::new();
    let outcome = runner.run(&mut view, stop_flag())?;
    view.finish();
    let report = runner.report(&out)?;
    match outcome {
        Outcome::Finished => outln!(
            "done: {} runs have results; report: {}",
            runner.results().len(),
            report.display()
        ),
        Outcome::Interrupted => outln!(
            "stopped; nothing is lost. The same command goes on:\n  {} reproduce growth --profile {} --out {} ...",
            shell::program(),
            args.profile,
            shell::path(&out)
        ),
    }
    Ok(())
}

/// The text of the study, prepared if need be.
fn corpus(args: &GrowthArgs, profile: &Profile, out: &Path) -> Result<Corpus> {
    let data: PathBuf = out.join("data");
    let find = || source(profile, args.corpus.as_deref(), &data);
    let dir = ready(find()?, find, &data, out)?;
    Corpus::open(&dir, profile.context)
}

/// The text of another kind, if there is one.
fn second(
    args: &GrowthArgs,
    profile: &Profile,
    first: &Corpus,
    out: &Path,
) -> Result<Option<Corpus>> {
    let data = out.join("second");
    let first = (first, args.corpus.as_deref());
    let find = || second_source(profile, first, args.second.as_deref(), &data);
    let Some(found) = find()? else {
        return Ok(None);
    };
    let again = || Ok(find()?.unwrap_or(Source::Ready(data.clone())));
    let dir = ready(found, again, &data, out)?;
    Corpus::open(&dir, profile.context).map(Some)
}

/// The folder of a text, which is prepared unless another process has done so meanwhile.
fn ready(
    found: Source,
    again: impl Fn() -> Result<Source>,
    data: &Path,
    out: &Path,
) -> Result<PathBuf> {
    if let Source::Ready(dir) = found {
        return Ok(dir);
    }
    let _turn = turn(out, "texts")?;
    match again()? {
        Source::Ready(dir) => Ok(dir),
        Source::Prepare(options) => {
            prepare_with_progress(&options)?;
            Ok(data.into())
        }
    }
}

/// Prints every run of the study as far as it is known.
fn list(runner: &mut Runner) -> Result<()> {
    let plan = runner.plan()?;
    let missing = runner.missing(&plan);
    let mut table = Table::new([
        "run",
        "updates",
        "parameters",
        "FLOP",
        "rate",
        "time",
        "state",
    ]);
    let (mut left_s, mut flop, mut left_flop) = (0.0, 0.0, 0.0);
    for (at, node) in plan.graph.nodes().iter().enumerate() {
        let seconds = runner.seconds(&plan.graph, node)?;
        let own = node.flops_per_step * node.steps() as f64;
        let result = runner.results().of(node);
        let state = match result {
            Some(result) if result.diverged.is_some() => "diverged",
            Some(_) => "done",
            None if missing.contains(&at) => "to do",
            None => "not needed",
        };
        flop += own;
        if missing.contains(&at) {
            left_s += seconds;
            left_flop += own;
        }
        table.row([
            node.label.clone(),
            format!("{}..{}", node.from_step, node.to_step),
            human_count(node.config.params()),
            format!("{own:.2e}"),
            format!("{:.2e}", node.peak_rate()),
            human_duration(seconds),
            state.into(),
        ]);
    }
    out!("{table}");
    if !plan.tuned {
        outln!("\nLearning rates are provisional: those of the base are to be found first.");
    }
    outln!(
        "\n{} runs of {flop:.2e} FLOP; to do: {} runs, {left_flop:.2e} FLOP, about {}",
        plan.graph.nodes().len(),
        missing.len(),
        human_duration(left_s)
    );
    Ok(())
}
