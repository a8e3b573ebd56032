//! A run that is stopped while it evaluates, writes a sample or computes an update goes on to the bytes of an
//! uninterrupted one.

mod common;

use common::{GROWTH, Lab, Remains};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokenformer_core::device::Collective;
use tokenformer_core::growth::{Birth, Growth, GrowthReport};
use tokenformer_core::{Device, Graph, Model, ModelConfig};
use tokenformer_cpu::Cpu;
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::task::{Language, Nats, Sample};
use tokenformer_train::{Evaluation, Outcome, Result, Resume, Silent, Task, Trainer};

/// Where a stop comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Evaluation,
    Sample,
    MicroBatch,
}

/// A task during whose `nth` piece of work (from 0) of one kind the run is asked to stop.
struct Stopping {
    inner: Language,
    at: Work,
    nth: u64,
    done: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Stopping {
    fn work(&self, kind: Work) {
        if kind == self.at && self.done.fetch_add(1, Ordering::Relaxed) == self.nth {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Task for Stopping {
    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn measured_on(&self) -> String {
        self.inner.measured_on()
    }

    fn describe(&self) -> Vec<(String, String)> {
        self.inner.describe()
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }

    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn files(&self) -> &[(&'static str, Vec<u8>)] {
        self.inner.files()
    }

    fn batch(&self) -> u64 {
        self.inner.batch()
    }

    fn targets_per_window(&self) -> u64 {
        self.inner.targets_per_window()
    }

    fn fill(&mut self, first: u64) -> Result<()> {
        self.work(Work::MicroBatch);
        self.inner.fill(first)
    }

    fn loss<'m>(&mut self, model: &'m Model, g: &mut Graph<'m>, weight: f32) -> Result<Nats> {
        self.inner.loss(model, g, weight)
    }

    fn evaluate(
        &self,
        model: &Model,
        stop: &AtomicBool,
        ranks: &dyn Collective,
    ) -> Result<Option<Evaluation>> {
        self.work(Work::Evaluation);
        self.inner.evaluate(model, stop, ranks)
    }

    fn sample(&self, model: &Model, stop: &AtomicBool) -> Result<Option<Vec<Sample>>> {
        self.work(Work::Sample);
        self.inner.sample(model, stop)
    }

    fn grow(&self, model: &mut Model, growth: &Growth, birth: Birth) -> Result<GrowthReport> {
        self.inner.grow(model, growth, birth)
    }
}

fn device() -> Arc<dyn Device> {
    Cpu::new(Some(1))
}

/// Trains on what is in `out`; returns how it ended, and the updates done.
fn train(recipe: &Resolved, out: &Path) -> (Outcome, u64) {
    let mut silent = Silent;
    let trainer = Trainer::new(recipe, out, &Resume::Auto, &device(), &mut silent);
    let mut trainer = trainer.expect("a run");
    let outcome = trainer.run(&AtomicBool::new(false)).expect("a run");
    (outcome, trainer.state().step)
}

/// As [`train`], with a stop in the `nth` piece of work.
fn train_until(recipe: &Resolved, out: &Path, at: Work, nth: u64) -> (Outcome, u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let task = Box::new(Stopping {
        inner: Language::open(&recipe.recipe).expect("a dataset"),
        at,
        nth,
        done: AtomicU64::new(0),
        stop: Arc::clone(&stop),
    });
    let mut silent = Silent;
    let trainer = Trainer::with_task(task, recipe, out, &Resume::Auto, &device(), &mut silent);
    let mut trainer = trainer.expect("a run");
    let outcome = trainer.run(&stop).expect("a run");
    (outcome, trainer.state().step)
}

#[test]
fn a_stop_in_any_work_changes_no_byte() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", GROWTH);
    let recipe = resolve(Some(Path::new(&recipe)), &[]).expect("a recipe");
    let whole = lab.path("whole");
    assert_eq!(train(&recipe, &whole), (Outcome::Finished, 30));
    let whole = Remains::of(&whole);

    // Steps at which the run then stands: evaluations are those of `run_determinism.rs`, two of them at step 13, before
    // and after the growth. An update has two micro-batches, and is given up between them.
    let evaluations = [0, 6, 12, 13, 13, 18, 24, 30].map(|step| (Work::Evaluation, step));
    let samples = [10, 13, 20, 30].map(|step| (Work::Sample, step));
    let micro_batches = [0, 1, 1, 2].map(|step| (Work::MicroBatch, step));
    let micro_batches = micro_batches.into_iter().zip(0..);
    let cases = (evaluations.into_iter().zip(0..)).chain(samples.into_iter().zip(0..));
    // Those of the update after the growth.
    let after_growth = [((Work::MicroBatch, 13), 26), ((Work::MicroBatch, 14), 27)];
    for ((at, step), nth) in cases.chain(micro_batches).chain(after_growth) {
        let what = format!("a stop in {at:?} {nth}");
        let out = lab.path(&format!("{at:?}-{nth}"));
        let stopped = train_until(&recipe, &out, at, nth);
        assert_eq!(stopped, (Outcome::Interrupted, step), "{what}");
        assert_eq!(train(&recipe, &out), (Outcome::Finished, 30), "{what}");
        Remains::of(&out)
            .shared_with(&whole)
            .assert_equal(&whole, &what);
    }
}

#[test]
fn a_stop_in_a_control_or_soon_after_changes_no_byte() {
    let lab = Lab::new();
    let growth = GROWTH.replace("at_step = 13", "at_step = 13\ncontrol = 10");
    let recipe = lab.recipe("recipe.toml", &growth);
    let recipe = resolve(Some(Path::new(&recipe)), &[]).expect("a recipe");
    let whole = lab.path("whole");
    train(&recipe, &whole);
    let whole = Remains::of(&whole);

    // The run has 26 micro-batches before the growth, and its control 20. A run that is stopped after the growth goes on
    // with a control that it does not make again: steps 14 to 23.
    let stops = [
        ((Work::MicroBatch, 13), 26),
        ((Work::MicroBatch, 13), 31),
        ((Work::MicroBatch, 13), 45),
        ((Work::MicroBatch, 13), 46),
        ((Work::MicroBatch, 14), 47),
        ((Work::Evaluation, 13), 4),
        ((Work::Evaluation, 18), 5),
    ];
    for ((at, step), nth) in stops {
        let what = format!("a stop in {at:?} {nth}");
        let out = lab.path(&format!("{at:?}-{nth}"));
        let stopped = train_until(&recipe, &out, at, nth);
        assert_eq!(stopped, (Outcome::Interrupted, step), "{what}");
        assert_eq!(train(&recipe, &out), (Outcome::Finished, 30), "{what}");
        Remains::of(&out)
            .shared_with(&whole)
            .assert_equal(&whole, &what);
    }
}

#[test]
fn stops_in_the_same_evaluation_again_and_again_change_no_byte() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", "");
    let recipe = resolve(Some(Path::new(&recipe)), &[]).expect("a recipe");
    let [whole, out] = ["whole", "run"].map(|name| lab.path(name));
    train(&recipe, &whole);
    let whole = Remains::of(&whole);
    assert_eq!(train_until(&recipe, &out, Work::Evaluation, 1).1, 6);
    // From here on the evaluation of step 6 is the first one.
    for _ in 0..2 {
        assert_eq!(train_until(&recipe, &out, Work::Evaluation, 0).1, 6);
    }
    // This one gets past it, and is stopped in the sample that follows at step 10.
    assert_eq!(train_until(&recipe, &out, Work::Sample, 0).1, 10);
    train(&recipe, &out);
    Remains::of(&out)
        .shared_with(&whole)
        .assert_equal(&whole, "stops");
}
