//! After its first steps a training run allocates nothing: all lists and buffers are used again.

mod common;

use common::Lab;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokenformer_core::{Device, Recompute};
use tokenformer_cpu::Cpu;
use tokenformer_testing::{Watching, allocations};
use tokenformer_train::recipe::resolve;
use tokenformer_train::{Observer, Progress, Resume, Trainer};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Notes the count after each step, and what the device has mapped by then, past the allocator.
struct Counts {
    device: Arc<dyn Device>,
    allocations: Vec<u64>,
    mapped: Vec<[usize; 2]>,
}

impl Observer for Counts {
    fn step(&mut self, _: &Progress) {
        let usage = self.device.usage();
        self.allocations.push(allocations());
        (self.mapped).push([usage.persistent, usage.temporary_reserved]);
    }
}

#[test]
fn a_step_allocates_nothing() {
    const STEPS: usize = 12;
    const GROWTH_AT: usize = 6;
    let lab = Lab::new();
    let growth = |more: &str| format!("\n[[grow]]\nat_step = {GROWTH_AT}\n{more}\n");
    let recipes = [
        lab.recipe("sites.toml", &growth("ffn = \"+16\"\nqkv = \"+8\"")),
        lab.plain_recipe("plain.toml", &growth("layers = 1")),
    ];
    for (recipe, recompute) in
        (recipes.iter()).flat_map(|recipe| Recompute::ALL.map(|recompute| (recipe, recompute)))
    {
        for threads in [1, 2] {
            let sets = [
                format!("train.steps={STEPS}"),
                format!("train.recompute={recompute}"),
                "log.every=1000".into(),
                "log.around_growth=false".into(),
                "eval.every=0".into(),
                "sample.tokens=0".into(),
                "checkpoint.every=0".into(),
            ];
            let resolved = resolve(Some(Path::new(recipe)), &sets).expect("a recipe");
            let out = format!("{recipe}-{recompute}-{threads}");
            let out = lab.path(&out);
            let device: Arc<dyn Device> = Cpu::new(Some(threads));
            let mut counts = Counts {
                device: Arc::clone(&device),
                allocations: Vec::with_capacity(STEPS),
                mapped: Vec::with_capacity(STEPS),
            };
            Trainer::new(&resolved, &out, &Resume::Never, &device, &mut counts)
                .and_then(|mut trainer| trainer.run(&AtomicBool::new(false)))
                .expect("a run");
            let allocated: Vec<u64> = (counts.allocations.windows(2))
                .map(|w| w[1] - w[0])
                .collect();
            // Between the counts of a step and the one before; the first step of a stage takes its memory,
            // and so does what ends a stage.
            let quiet = [
                &allocated[1..GROWTH_AT - 1],
                &allocated[GROWTH_AT + 1..STEPS - 1],
            ];
            // A recomputed block has a separate tape, whose lists are small and not kept.
            let most = if recompute == Recompute::Blocks {
                12
            } else {
                0
            };
            assert!(
                quiet.iter().all(|part| part.iter().all(|&n| n <= most)),
                "{recipe}, {recompute}, {threads} threads: {allocated:?}"
            );
            assert!(allocated[GROWTH_AT - 1] > 0, "the counter counts");
            let mapped = &counts.mapped;
            for steps in [1..GROWTH_AT, GROWTH_AT + 1..STEPS] {
                let first = mapped[steps.start];
                assert!(
                    mapped[steps].iter().all(|&m| m == first),
                    "{recipe}, {recompute}, {threads} threads: {mapped:?}"
                );
            }
            assert_ne!(
                mapped[GROWTH_AT - 1],
                mapped[STEPS - 1],
                "a growth needs memory"
            );
        }
    }
}
