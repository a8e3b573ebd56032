//! Several ranks train as one process does, to the byte. The ranks are threads here; `bench/ranks/run.sh` does the same with
//! processes that MPI connects.

mod common;

use common::{Lab, Remains};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::device::{Collective, Device, Precision};
use tokenformer_cpu::Cpu;
use tokenformer_cuda::{Cuda, Planned};
use tokenformer_testing::Threads;
use tokenformer_train::memory;
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::{Observer, Outcome, Progress, Result, Resume, Trainer, task};

/// A growth in width and depth whose new tokens make τ follow the scores, and the updates without it for comparison.
const GROWTH: &str =
    "\n[[grow]]\nat_step = 7\nffn = \"+16\"\nqkv = \"+8\"\nlayers = 1\ncontrol = 2\n";

/// Asks to stop after a step.
struct StopAfter<'a> {
    step: u64,
    stop: &'a AtomicBool,
    losses: Vec<f64>,
    warnings: Vec<String>,
}

impl Observer for StopAfter<'_> {
    fn step(&mut self, progress: &Progress) {
        self.losses.push(progress.loss);
        if progress.step == self.step {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(text.into());
    }
}

fn resolved(recipe: &str, sets: &[&str]) -> Resolved {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    resolve(Some(Path::new(recipe)), &sets).expect("a recipe")
}

/// Trains as one rank; `stop_after` a step if it is not 0.
fn train(
    resolved: &Resolved,
    out: &Path,
    ranks: Arc<dyn Collective>,
    stop_after: u64,
) -> Result<(Outcome, Vec<f64>)> {
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        step: stop_after,
        stop: &stop,
        losses: Vec::new(),
        warnings: Vec::new(),
    };
    let task = task::open(&resolved.recipe)?;
    let trainer = Trainer::together(
        task,
        resolved,
        out,
        &Resume::Auto,
        &device,
        ranks,
        &mut observer,
    );
    let outcome = trainer?.run(&stop)?;
    Ok((outcome, observer.losses))
}

/// Trains on `world` ranks with the recipe and these settings.
fn train_on(world: usize, recipe: &str, sets: &[&str], out: &Path) -> Vec<Vec<f64>> {
    let resolved = resolved(recipe, sets);
    Threads::run(world, |ranks| {
        let (outcome, losses) = train(&resolved, out, ranks, 0).expect("a run");
        assert_eq!(outcome, Outcome::Finished);
        losses
    })
}

fn assert_same(lab: &Lab, run: &str, as_in: &str) {
    let [got, expected] = [run, as_in].map(|name| Remains::of(&lab.path(name)));
    got.shared_with(&expected).assert_equal(&expected, run);
}

const SETS: [&str; 2] = ["train.steps=14", "train.accumulate=4"];

#[test]
fn any_number_of_ranks_leaves_the_bytes_of_one_process() {
    let lab = Lab::new();
    for (name, recipe) in [
        ("sites", lab.recipe("recipe.toml", GROWTH)),
        ("plain", lab.plain_recipe("plain.toml", "")),
    ] {
        let sets = [&SETS[..], &["ema.decay=0.9", "optimizer.clip=0.5"]].concat();
        let of = |world: usize, kind: &str| format!("{name}-{world}-{kind}");
        let one = of(1, "every");
        train_on(1, &recipe, &sets, &lab.path(&one));
        // With 3 ranks one of them has two micro-batches, and the others wait for it.
        for (world, moments) in [
            (2, "every"),
            (2, "owner"),
            (3, "owner"),
            (4, "every"),
            (4, "owner"),
        ] {
            let run = of(world, moments);
            let moments = format!("ranks.moments={moments}");
            let losses = train_on(
                world,
                &recipe,
                &[&sets[..], &[&moments]].concat(),
                &lab.path(&run),
            );
            assert!(
                losses.iter().all(|of_rank| *of_rank == losses[0]),
                "the same losses everywhere"
            );
            assert_same(&lab, &run, &one);
            let times = std::fs::read_to_string(lab.path(&run).join("ranks.csv")).expect("times");
            assert!(times.lines().count() > world, "{times}");
        }
    }
}

#[test]
fn recomputed_blocks_and_half_moments_are_the_same_on_ranks() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let more = [
        "train.recompute=blocks",
        "optimizer.moments=bf16",
        "train.drop_path=0.2",
    ];
    let sets = [&SETS[..], &more, &["ranks.moments=owner"]].concat();
    for world in [1, 2] {
        train_on(world, &recipe, &sets, &lab.path(&format!("run-{world}")));
    }
    assert_same(&lab, "run-2", "run-1");
}

/// What a stop leaves under one number of ranks goes on under another.
#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    train_on(1, &recipe, &SETS, &lab.path("whole"));
    for moments in ["every", "owner"] {
        let moments = format!("ranks.moments={moments}");
        let resolved = resolved(&recipe, &[&SETS[..], &[&moments]].concat());
        let out = lab.path(&moments);
        // One of the ranks is asked to stop, and all of them do after the same update.
        for (world, who, step) in [(2, 1, 3), (4, 0, 9), (3, 2, 11)] {
            let ended = Threads::run(world, |ranks| {
                let stop_after = if ranks.rank() == who { step } else { 0 };
                train(&resolved, &out, ranks, stop_after).expect("a run")
            });
            for (outcome, losses) in &ended {
                assert_eq!(*outcome, Outcome::Interrupted);
                assert_eq!(losses, &ended[0].1);
            }
        }
        train_on(1, &recipe, &[&SETS[..], &[&moments]].concat(), &out);
        assert_same(&lab, &moments, "whole");
    }
}

#[test]
fn the_fast_way_is_close_and_equal_on_all_ranks() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let one = train_on(1, &recipe, &SETS, &lab.path("one"));
    for moments in ["every", "owner"] {
        let moments = format!("ranks.moments={moments}");
        let fast = [&SETS[..], &["ranks.reduce=fast", &moments]].concat();
        let two = train_on(2, &recipe, &fast, &lab.path(&moments));
        assert_eq!(two[0], two[1]);
        for (a, b) in one[0].iter().zip(&two[0]) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }
    assert_same(&lab, "ranks.moments=owner", "ranks.moments=every");
}

/// A record of times is of the updates that count, without those of a comparison, which are taken back.
#[test]
fn times_are_of_the_updates_since_the_last_record() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", &GROWTH.replace("control = 2", "control = 6"));
    train_on(2, &recipe, &SETS, &lab.path("run"));
    let times = std::fs::read_to_string(lab.path("run").join("ranks.csv")).expect("times");
    for line in times.lines().skip(1) {
        let cells: Vec<&str> = line.rsplit(',').collect();
        let [per_s, waiting, computing] =
            [0, 1, 2].map(|i| cells[i].parse::<f64>().expect("a number"));
        // Around the growth every update is recorded: two micro-batches of this rank, of 4 windows each.
        let expected = (2 * 4 * common::CONTEXT) as f64;
        let targets = per_s * (computing + waiting) / 1e3;
        assert!(
            (targets / expected - 1.0).abs() < 0.1,
            "{targets} in {line}"
        );
    }
}

/// Parameter tokens divided between ranks, with an average, a growth, its comparison and samples: the losses of one process, a stop
/// and another start that change no byte, and checkpoints that any number of ranks goes on from.
#[test]
fn divided_tokens_train_as_whole_ones_do() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let sets = [&SETS[..], &["ema.decay=0.9", "optimizer.clip=0.5"]].concat();
    let divided = [&sets[..], &["ranks.tokens=divided"]].concat();
    let one = train_on(1, &recipe, &sets, &lab.path("one"));
    for world in [2, 3] {
        let name = format!("divided-{world}");
        let losses = train_on(world, &recipe, &divided, &lab.path(&name));
        assert!(losses.iter().all(|of_rank| *of_rank == losses[0]));
        assert_eq!(losses[0].len(), one[0].len());
        for (a, b) in one[0].iter().zip(&losses[0]) {
            assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
        }
        assert!(!lab.path(&name).join("ranks.csv").exists());
    }
    let grown =
        std::fs::read_to_string(lab.path("divided-2").join("metrics.jsonl")).expect("records");
    assert!(grown.contains("\"max_logit_diff\":0.0"), "{grown}");

    let resolved = resolved(&recipe, &divided);
    let out = lab.path("stopped");
    for (who, step) in [(1, 3), (0, 9)] {
        let ended = Threads::run(2, |ranks| {
            let stop_after = if ranks.rank() == who { step } else { 0 };
            train(&resolved, &out, ranks, stop_after).expect("a run").0
        });
        assert_eq!(ended, [Outcome::Interrupted, Outcome::Interrupted]);
    }
    train_on(2, &recipe, &divided, &out);
    assert_same(&lab, "stopped", "divided-2");

    let out = lab.path("others");
    let ended = Threads::run(3, |ranks| {
        train(&resolved, &out, ranks, 5).expect("a run").1
    });
    let mut losses = ended[0].clone();
    losses.extend(&train_on(1, &recipe, &divided, &out)[0]);
    assert_eq!(losses.len(), one[0].len());
    for (a, b) in one[0].iter().zip(&losses) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} and {b}");
    }
}

fn refused(lab: &Lab, world: usize, recipe: &str, sets: &[&str]) -> String {
    let resolved = resolved(recipe, sets);
    let ended = Threads::run(world, |ranks| {
        train(&resolved, &lab.path("refused"), ranks, 0)
            .err()
            .map(|error| error.to_string())
    });
    assert!(!lab.path("refused").exists(), "nothing is written");
    ended.into_iter().next().flatten().expect("an error")
}

#[test]
fn every_rank_must_have_something_to_do() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let text = refused(&lab, 3, &recipe, &["train.accumulate=2", "train.batch=6"]);
    for part in [
        "train.accumulate: fewer micro-batches than ranks",
        "got:      2",
        "--set train.accumulate=3 --set train.batch=4",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let text = refused(
        &lab,
        2,
        &recipe,
        &["train.accumulate=3", "ranks.reduce=fast"],
    );
    assert!(text.contains("a multiple of 2"), "{text}");
}

#[test]
fn divided_tokens_exclude_other_ways_to_divide() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    for (set, key) in [
        ("ranks.moments=owner", "ranks.moments"),
        ("ranks.reduce=fast", "ranks.reduce"),
    ] {
        let sets = ["ranks.tokens=divided", set].map(ToString::to_string);
        let error = resolve(Some(Path::new(&recipe)), &sets).expect_err("a conflict");
        let text = error.to_string();
        assert!(text.contains(key) && text.contains("divided"), "{text}");
    }
}

#[test]
fn a_rank_with_other_data_or_another_recipe_is_named() {
    let lab = Lab::new();
    lab.prepare("other", 2);
    let recipe = lab.recipe("recipe.toml", "");
    let other = format!("data.dir={}", common::text_of(&lab.path("other")));
    for (name, set) in [("data", other.as_str()), ("rate", "schedule.lr=0.01")] {
        let recipes = [
            resolved(&recipe, &SETS),
            resolved(&recipe, &[&SETS[..], &[set]].concat()),
        ];
        let ended = Threads::run(2, |ranks| {
            let rank = ranks.rank();
            train(&recipes[rank], &lab.path(name), ranks, 0)
                .err()
                .map(|error| error.to_string())
        });
        for text in ended {
            let text = text.expect("an error on every rank");
            assert!(
                text.contains("rank 1 has another one than rank 0"),
                "{text}"
            );
        }
    }
}

/// Panics in an update.
struct Dies;

impl Observer for Dies {
    fn step(&mut self, progress: &Progress) {
        assert!(progress.step < 6, "this rank dies");
    }
}

#[test]
fn a_rank_that_dies_ends_the_others_and_leaves_good_checkpoints() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    train_on(1, &recipe, &SETS, &lab.path("whole"));
    let resolved = resolved(&recipe, &[&SETS[..], &["ranks.moments=owner"]].concat());
    let survivors = AtomicBool::new(false);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Threads::run(2, |ranks| match ranks.rank() {
            0 => {
                let ended = train(&resolved, &lab.path("run"), ranks, 0);
                let text = ended.expect_err("the other rank is lost").to_string();
                survivors.store(text.contains("rank 1 has panicked"), Ordering::Relaxed);
            }
            _ => {
                let device: Arc<dyn Device> = Cpu::new(Some(1));
                let task = task::open(&resolved.recipe).expect("a task");
                let (out, mut dies) = (lab.path("run"), Dies);
                let trainer = Trainer::together(
                    task,
                    &resolved,
                    &out,
                    &Resume::Auto,
                    &device,
                    ranks,
                    &mut dies,
                );
                let _ = trainer.expect("a trainer").run(&AtomicBool::new(false));
            }
        })
    }));
    assert!(panicked.is_err());
    assert!(survivors.load(Ordering::Relaxed), "rank 0 says who is lost");
    train_on(4, &recipe, &SETS, &lab.path("run"));
    assert_same(&lab, "run", "whole");
}

/// Each rank would find another precision; that of rank 0 counts, and the others do not even measure.
#[test]
fn the_precision_of_the_first_rank_is_that_of_all() {
    for first in Precision::ALL {
        let found = Threads::run(3, |ranks| {
            let rank = ranks.rank();
            let find = || match rank {
                0 => first,
                _ => panic!("rank {rank} measures"),
            };
            tokenformer_train::precision_of_first(&*ranks, find).expect("a precision")
        });
        assert_eq!(found, [first; 3]);
    }
}

/// What one rank has room for is too much for two that share the memory of a machine; GPUs they do not share.
#[test]
fn ranks_share_the_memory_of_their_machine() {
    let ensured = |device: &Arc<dyn Device>, world: usize, bytes: u64| {
        let check = |ranks: Arc<dyn Collective>| {
            memory::ensure_on_ranks(&**device, "this run", bytes, "try less", &*ranks)
        };
        Threads::run(world, check)
    };
    let Some(free) = memory::available_bytes() else {
        return;
    };
    let cpu: Arc<dyn Device> = Cpu::new(Some(1));
    let most = free / 4 * 3;
    assert!(ensured(&cpu, 1, most).iter().all(Result::is_ok));
    for found in ensured(&cpu, 2, most) {
        let text = found.unwrap_err().to_string();
        let what = "this run on the 2 ranks of a machine";
        assert!(text.contains(what), "{text}");
    }

    const SCRATCH: usize = 32 << 20;
    let gpu: Arc<dyn Device> = Cuda::new(
        Arc::new(Planned::new("a GPU", SCRATCH + (3 << 20))),
        Precision::F32,
    );
    for (bytes, fits) in [(2 << 20, true), (4 << 20, false)] {
        for found in ensured(&gpu, 2, bytes) {
            assert_eq!(found.is_ok(), fits, "{found:?}");
        }
    }
}
