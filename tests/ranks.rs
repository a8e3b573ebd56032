//! Two ranks train as one process does: the same windows, and the same weights on each up to rounding.

mod common;

use common::Lab;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, Mutex};
use tokenformer_core::device::{Buffer, Collective, Device, Result};
use tokenformer_cpu::Cpu;
use tokenformer_train::recipe::resolve;
use tokenformer_train::{Observer, Outcome, Progress, Resume, Trainer};

const WORLD: usize = 2;

/// Where the ranks meet, which are threads here.
struct Meeting {
    barrier: Barrier,
    /// What each rank brought.
    table: Mutex<[Vec<f64>; WORLD]>,
}

struct Rank {
    number: usize,
    meeting: Arc<Meeting>,
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rank({})", self.number)
    }
}

impl Rank {
    fn gather(&self, numbers: &[f64]) -> [Vec<f64>; WORLD] {
        self.meeting.table.lock().expect("unpoisoned")[self.number] = numbers.to_vec();
        self.meeting.barrier.wait();
        let all = self.meeting.table.lock().expect("unpoisoned").clone();
        // Nobody brings the next numbers before all have these.
        self.meeting.barrier.wait();
        all
    }
}

fn host(device: &dyn Device, buffer: &Buffer) -> Result<Vec<f32>> {
    let mut numbers = vec![0.0; buffer.len()];
    device.read(buffer, &mut numbers)?;
    Ok(numbers)
}

impl Collective for Rank {
    fn rank(&self) -> usize {
        self.number
    }

    fn world(&self) -> usize {
        WORLD
    }

    fn all_reduce(
        &self,
        device: &dyn Device,
        buffers: &mut dyn Iterator<Item = &mut Buffer>,
    ) -> Result<()> {
        for buffer in buffers {
            let numbers = host(device, buffer)?;
            let mut numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            self.sum(&mut numbers)?;
            let sums: Vec<f32> = numbers.into_iter().map(|sum| sum as f32).collect();
            device.write(&sums, buffer)?;
        }
        Ok(())
    }

    fn reduce_scatter(&self, _: &dyn Device, _: &Buffer, _: &mut Buffer) -> Result<()> {
        unreachable!("not used by the trainer")
    }

    fn all_gather(&self, _: &dyn Device, _: &Buffer, _: &mut Buffer) -> Result<()> {
        unreachable!("not used by the trainer")
    }

    fn broadcast(&self, _: &dyn Device, _: usize, _: &mut Buffer) -> Result<()> {
        unreachable!("not used by the trainer")
    }

    fn sum(&self, numbers: &mut [f64]) -> Result<()> {
        let [a, b] = self.gather(numbers);
        let sums = numbers.iter_mut().zip(a.iter().zip(&b));
        sums.for_each(|(sum, (a, b))| *sum = a + b);
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.meeting.barrier.wait();
        Ok(())
    }
}

/// Notes losses, and asks to stop after a step.
struct Losses<'a> {
    losses: Vec<f64>,
    stop_after: u64,
    stop: &'a AtomicBool,
}

impl Observer for Losses<'_> {
    fn step(&mut self, progress: &Progress) {
        self.losses.push(progress.loss);
        if progress.step == self.stop_after {
            self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

struct Trained {
    outcome: Outcome,
    losses: Vec<f64>,
    weights: Vec<f32>,
    windows: u64,
}

/// Trains in the folder `out`; `accumulate` micro-batches a rank, `stop_after` a step if it is not 0.
fn train(
    lab: &Lab,
    recipe: &str,
    out: &str,
    accumulate: usize,
    collective: Option<Rank>,
    stop_after: u64,
) -> Trained {
    let sets = [
        "train.steps=12".to_owned(),
        format!("train.accumulate={accumulate}"),
        "eval.every=0".into(),
        "sample.tokens=0".into(),
    ];
    let resolved = resolve(Some(Path::new(recipe)), &sets).expect("a recipe");
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let stop = AtomicBool::new(false);
    let mut losses = Losses {
        losses: Vec::new(),
        stop_after,
        stop: &stop,
    };
    let trainer = Trainer::new(
        &resolved,
        &lab.path(out),
        &Resume::Never,
        &device,
        &mut losses,
    );
    let mut trainer = trainer.expect("a trainer");
    if let Some(rank) = collective {
        trainer = trainer.together(Arc::new(rank));
    }
    let outcome = trainer.run(&stop).expect("a run");
    let params = trainer.model().each_param();
    let weights = params.flat_map(|param| host(&*device, param.value()).expect("weights"));
    let (weights, windows) = (weights.collect(), trainer.state().windows);
    drop(trainer);
    Trained {
        outcome,
        losses: losses.losses,
        weights,
        windows,
    }
}

fn train_on_ranks(lab: &Lab, recipe: &str, name: &str, stop_after: [u64; WORLD]) -> Vec<Trained> {
    let meeting = Arc::new(Meeting {
        barrier: Barrier::new(WORLD),
        table: Mutex::default(),
    });
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (stop_after.into_iter().enumerate())
            .map(|(number, stop_after)| {
                let meeting = Arc::clone(&meeting);
                let rank = Rank { number, meeting };
                let out = format!("{name}-{number}");
                scope.spawn(move || train(lab, recipe, &out, 2, Some(rank), stop_after))
            })
            .collect();
        ranks
            .into_iter()
            .map(|rank| rank.join().expect("a rank"))
            .collect()
    })
}

#[test]
fn two_ranks_train_as_one_process_with_twice_the_micro_batches() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "\n[[grow]]\nat_step = 6\nffn = \"+16\"\n");
    let alone = train(&lab, &recipe, "alone", 4, None, 0);
    let ranks = train_on_ranks(&lab, &recipe, "rank", [0, 0]);
    assert_eq!(ranks[0].losses, ranks[1].losses);
    assert_eq!(
        ranks[0].weights, ranks[1].weights,
        "every rank has the same"
    );
    assert_eq!(alone.losses.len(), 12);
    for trained in &ranks {
        assert_eq!(trained.windows, alone.windows);
        for (step, (a, b)) in alone.losses.iter().zip(&trained.losses).enumerate() {
            assert!((a - b).abs() < 1e-5, "step {step}: {a} and {b}");
        }
    }
    // Other windows, or a gradient of one rank alone, would be far from that.
    let half = train(&lab, &recipe, "half", 2, None, 0);
    assert!((half.losses[11] - alone.losses[11]).abs() > 1e-3);
}

#[test]
fn all_ranks_stop_after_the_same_update_when_one_is_asked_to() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let ranks = train_on_ranks(&lab, &recipe, "stopped", [0, 3]);
    for trained in &ranks {
        assert_eq!(trained.outcome, Outcome::Interrupted);
        assert_eq!(trained.losses.len(), 3);
    }
    assert_eq!(ranks[0].weights, ranks[1].weights);
}
