//! Runs the nodes of the plan that have no result, one after the other: claim, resume, train, evaluate, store the result,
//! clean up. Several processes may share one folder: each takes nodes that no other process is running. The
//! whole life of a node is here, so that it can be read from top to bottom.

use crate::context_cost::context_costs;
use crate::corpus::Corpus;
use crate::graph::{Graph, Node, OnText};
use crate::plan::{Plan, Settings, ended};
use crate::recipe;
use crate::result::{self, EvalPoint, FORMAT, GrowthFacts, HeldOut, NodeResult, Results};
use crate::shapes::Shapes;
use crate::speed::Speeds;
use crate::turn::{WAIT, claims, turn};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokenformer_core::{Device, Model};
use tokenformer_report::Record;
use tokenformer_store::{Checkpoints, RunLock, Warning};
use tokenformer_train::{
    Error, EvalOptions, HeldOut as Text, Observer, Outcome, Progress, Protocol, Result, Resume,
    ScoredBytes, Trainer,
};

/// The progress of a study.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The run that is being done.
    pub node: &'a Node,
    /// Number of finished runs, and of all runs that are known so far.
    pub runs: (usize, usize),
    /// Share of the work that is done.
    pub share: f64,
    /// Seconds to the end of this run.
    pub node_eta_s: f64,
    /// Seconds to the end of the study.
    pub eta_s: f64,
}

/// Receives the progress of the study.
pub trait Watcher {
    /// An update was done.
    fn step(&mut self, standing: &Standing<'_>, progress: &Progress);
    /// A run has ended.
    fn ended(&mut self, result: &NodeResult);
    /// A message for the user.
    fn note(&mut self, text: &str);
}

/// What a process found to do.
enum Claimed {
    /// This node, while the lock lives.
    Node(usize, RunLock),
    /// Other processes are running everything that is left; the label of the first such node.
    Elsewhere(String),
    /// Nothing is left.
    Finished,
}

/// A study in a folder.
pub struct Runner {
    settings: Settings,
    /// As `settings`, but with all arms: which checkpoints are kept must not depend on the arms of this call.
    whole: Settings,
    corpus: Corpus,
    /// A text of another kind, with the same tokenizer.
    second: Option<Corpus>,
    device: Arc<dyn Device>,
    shapes: Shapes,
    results: Results,
    speeds: Speeds,
    work: PathBuf,
    /// Folder of the locks of those who run nodes.
    claims: PathBuf,
    machine: String,
}

impl Runner {
    /// A study of `settings` in the folder `out`, with the results there and in `more`. A `second` text has the tokenizer
    /// of `corpus`.
    ///
    /// # Errors
    /// If the results cannot be read.
    pub fn new(
        settings: Settings,
        corpus: Corpus,
        second: Option<Corpus>,
        device: &Arc<dyn Device>,
        out: &Path,
        more: Option<&Path>,
    ) -> Result<Self> {
        let work = out.join("work");
        std::fs::create_dir_all(&work).map_err(|source| Error::Io {
            action: "make the folder",
            path: work.clone(),
            source,
            help: "check the permissions, or choose another --out",
        })?;
        Ok(Self {
            whole: Settings {
                arms: crate::arms::named(&[])?,
                ..settings.clone()
            },
            settings,
            corpus,
            second,
            device: Arc::clone(device),
            shapes: Shapes::new(device),
            results: Results::open(&out.join("results"), more)?,
            speeds: Speeds::open(&work.join("speed.json"), device),
            machine: device.describe(),
            claims: claims(out),
            work,
        })
    }

    /// The plan with the results so far.
    ///
    /// # Errors
    /// If a model or growth is impossible.
    pub fn plan(&mut self) -> Result<Plan> {
        Plan::new(&self.settings, &self.results, &mut self.shapes)
    }

    /// The results so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// The corpus.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Writes the report of the results so far into `out`; returns its path. Waits while another process writes it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn report(&mut self, out: &Path) -> Result<PathBuf> {
        let _turn = turn(out, "report")?;
        self.results.refresh()?;
        let plan = self.plan()?;
        let notes = self.corpus.notes();
        let costs = context_costs(&plan, &self.device)?;
        crate::report::write(out, &self.settings, &plan, &self.results, &costs, &notes)
    }

    /// Seconds that a node takes.
    ///
    /// # Errors
    /// If the device fails.
    pub fn seconds(&mut self, graph: &Graph, node: &Node) -> Result<f64> {
        let per_step = self.speeds.of(node, graph.common(), &self.device)?;
        Ok(per_step * node.steps() as f64)
    }

    /// Indices of the nodes that must be run, as far as they are known.
    ///
    /// # Errors
    /// None at present; a checkpoint that cannot be read counts as missing.
    pub fn missing(&self, plan: &Plan) -> Vec<usize> {
        plan.missing(&self.results, &mut |node| self.has_checkpoint(node))
    }

    /// Runs everything that is missing; stops after the update in which `stop` is set. Waits for what other processes
    /// are running.
    ///
    /// # Errors
    /// If a run fails for another reason than that it diverged.
    pub fn run(&mut self, watcher: &mut dyn Watcher, stop: &AtomicBool) -> Result<Outcome> {
        let mut is_waiting = false;
        loop {
            self.results.refresh()?;
            let plan = self.plan()?;
            self.tidy()?;
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            let (next, claim) = match self.claim(&plan, watcher)? {
                Claimed::Node(next, claim) => (next, claim),
                Claimed::Finished => return Ok(Outcome::Finished),
                Claimed::Elsewhere(label) => {
                    if !is_waiting {
                        watcher.note(&format!(
                            "Waiting for other processes, which run what is left: {label} first."
                        ));
                    }
                    is_waiting = true;
                    std::thread::sleep(WAIT);
                    continue;
                }
            };
            is_waiting = false;
            let ahead = self.ahead(&plan, next)?;
            let Some(result) = self.node(&plan.graph, next, ahead, watcher, stop)? else {
                return Ok(Outcome::Interrupted);
            };
            watcher.ended(&result);
            self.results.add(result)?;
            drop(claim);
            // A process that still waits for this lock finds the result already stored.
            remove(&self.claim_of(plan.graph.node(next)))?;
        }
    }

    /// The first node that can be run and that no other process is at, to be run by this process alone.
    fn claim(&mut self, plan: &Plan, watcher: &mut dyn Watcher) -> Result<Claimed> {
        let ready = plan.ready(&self.results, &mut |node| self.has_checkpoint(node));
        let Some(&first) = ready.first() else {
            return Ok(Claimed::Finished);
        };
        for at in ready {
            let node = plan.graph.node(at);
            let warn = &mut |warning: Warning| watcher.note(&warning.to_string());
            let claim = match RunLock::acquire(&self.claim_of(node), warn) {
                Ok(claim) => claim,
                Err(tokenformer_store::Error::RunLocked { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // Another process may have ended it before the lock was taken.
            self.results.refresh()?;
            let again = plan.ready(&self.results, &mut |node| self.has_checkpoint(node));
            if again.contains(&at) {
                return Ok(Claimed::Node(at, claim));
            }
        }
        Ok(Claimed::Elsewhere(plan.graph.node(first).label.clone()))
    }

    /// Folder of the lock of the process that runs a node.
    fn claim_of(&self, node: &Node) -> PathBuf {
        self.claims.join(&node.key)
    }

    /// The finished and the remaining work around a node, for the remaining time.
    fn ahead(&mut self, plan: &Plan, next: usize) -> Result<Ahead> {
        let missing = self.missing(plan);
        let mut later_s = 0.0;
        for &at in missing.iter().filter(|&&at| at != next) {
            later_s += self.seconds(&plan.graph, plan.graph.node(at))?;
        }
        let done = plan
            .graph
            .nodes()
            .iter()
            .filter(|node| self.results.of(node).is_some());
        let (mut done_s, mut ended) = (0.0, 0);
        for node in done {
            done_s +=
                self.speeds.of(node, plan.graph.common(), &self.device)? * node.steps() as f64;
            ended += 1;
        }
        let per_step_s =
            self.speeds
                .of(plan.graph.node(next), plan.graph.common(), &self.device)?;
        Ok(Ahead {
            runs: (ended, ended + missing.len()),
            done_s,
            later_s,
            per_step_s,
        })
    }

    fn folder(&self, node: &Node) -> PathBuf {
        self.work.join(node.folder())
    }

    /// Whether a node has ended and its last checkpoint exists and is complete. A run that was stopped in its very last
    /// evaluation has this checkpoint but no result.
    fn has_checkpoint(&self, node: &Node) -> bool {
        let ignore = &mut |_: Warning| {};
        let newest = Checkpoints::open(&self.folder(node)).latest_good(ignore);
        let is_last = matches!(newest, Ok(Some((step, _))) if step == node.to_step);
        is_last && self.results.of(node).is_some()
    }

    /// Trains a node and measures it; `None` if `stop` was set during that time.
    fn node(
        &mut self,
        graph: &Graph,
        at: usize,
        ahead: Ahead,
        watcher: &mut dyn Watcher,
        stop: &AtomicBool,
    ) -> Result<Option<NodeResult>> {
        let node = graph.node(at);
        let folder = self.folder(node);
        let resolved = recipe::of(node, graph.common(), &self.corpus_of(node).dir)?;
        let resume = self.resume(graph, node, &folder)?;
        let mut view = View {
            node,
            ahead,
            watcher,
        };
        let mut trainer = Trainer::new(&resolved, &folder, &resume, &self.device, &mut view)?;
        let outcome = trainer.run(stop);
        let diverged = match outcome {
            Ok(Outcome::Finished) => None,
            Ok(Outcome::Interrupted) => return Ok(None),
            Err(error @ Error::Diverged { .. }) => Some(
                error
                    .to_string()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_string(),
            ),
            Err(error) => return Err(error),
        };
        let mut held_out = [None, None];
        if node.rate.decays() && diverged.is_none() {
            let second = self.second.as_ref().filter(|_| node.text == OnText::Second);
            for (found, corpus) in held_out.iter_mut().zip([Some(&self.corpus), second]) {
                let Some(corpus) = corpus else { continue };
                match self.measure(trainer.model(), corpus, graph, stop)? {
                    None => return Ok(None),
                    measured => *found = measured,
                }
            }
        }
        let [held_out, second_held_out] = held_out;
        let growth = (trainer.state().growths.last())
            .filter(|_| node.grows)
            .map(|past| GrowthFacts {
                summary: past.report.growth.summary(),
                params_before: past.report.params_before,
                max_logit_diff: past.report.max_logit_diff,
                relative_logit_diff: past.report.relative_logit_diff,
            });
        let counted = trainer.state().flops;
        drop(trainer);
        let records = tokenformer_report::read(folder.join("metrics.jsonl"))?;
        let before = self.losses_before(graph, at);
        let result = self.result(graph, node, &records, &before);
        if diverged.is_none() {
            let per_step = result.seconds / node.steps() as f64;
            self.speeds.learn(node, graph.common(), per_step)?;
        }
        Ok(Some(NodeResult {
            counted_flops: counted,
            growth,
            held_out,
            second_held_out,
            diverged,
            ..result
        }))
    }

    /// The checkpoint from which a node continues: its own newest one, or else its parent's last.
    fn resume(&self, graph: &Graph, node: &Node, folder: &Path) -> Result<Resume> {
        let own = Checkpoints::open(folder).latest_good(&mut |_: Warning| {})?;
        let Some(parent) = node.parent.map(|parent| graph.node(parent)) else {
            return Ok(Resume::Auto);
        };
        if own.is_some() {
            return Ok(Resume::Auto);
        }
        // The run in this folder was killed before its first checkpoint.
        remove(folder)?;
        let from = self.folder(parent);
        Ok(match node.text == parent.text {
            true => Resume::From(from),
            false => Resume::OnOtherData(from),
        })
    }

    /// The text of a node.
    fn corpus_of(&self, node: &Node) -> &Corpus {
        match (node.text, &self.second) {
            (OnText::Second, Some(second)) => second,
            _ => &self.corpus,
        }
    }

    /// The held-out loss of every document.
    fn measure(
        &self,
        model: &Model,
        corpus: &Corpus,
        graph: &Graph,
        stop: &AtomicBool,
    ) -> Result<Option<HeldOut>> {
        let dataset = &corpus.dataset;
        let bytes = ScoredBytes::new(&dataset.tokenizer, &dataset.valid);
        let options = EvalOptions {
            protocol: Protocol::Chunked,
            context: graph.common().context,
            batch: graph.common().batch,
            max_tokens: 0,
        };
        let mut documents = Vec::new();
        for document in 0..dataset.valid.doc_count() {
            let bounds = dataset.valid.doc_bounds(document).unwrap_or_default();
            let mut tokens = vec![0; bounds.len()];
            if tokens.len() < 2 {
                continue;
            }
            dataset.valid.read(bounds.start, &mut tokens)?;
            let text = Text {
                text: &tokens,
                bytes: &bytes,
            };
            let Some(found) = text.evaluate(model, options, stop, |_| {})? else {
                return Ok(None);
            };
            let nats = found.loss * found.tokens as f64;
            documents.push((nats, found.tokens, found.bytes.unwrap_or_default()));
        }
        Ok(Some(HeldOut::of(documents)))
    }

    /// The losses of the updates before a node, as far as they are stored.
    fn losses_before(&self, graph: &Graph, at: usize) -> Vec<f32> {
        let mut before: Vec<f32> = Vec::new();
        for ancestor in graph.path(at).skip(1) {
            let Some(result) = self.results.of(graph.node(ancestor)) else {
                break;
            };
            let mut losses = result.last_losses.clone();
            losses.extend(before);
            before = losses;
            if before.len() >= result::SPIKE_BEFORE {
                break;
            }
        }
        before.split_off(before.len().saturating_sub(result::SPIKE_BEFORE))
    }

    /// Makes the result of a node from its records.
    fn result(&self, graph: &Graph, node: &Node, records: &[Record], before: &[f32]) -> NodeResult {
        let losses = result::losses(records);
        let [first_losses, last_losses, means] = result::kept(&losses);
        let seconds = records.iter().filter_map(|record| match record {
            Record::Train(train) if train.step_ms.is_finite() => Some(train.step_ms / 1e3),
            _ => None,
        });
        let evals = records.iter().filter_map(|record| match record {
            Record::Eval(eval) => Some(EvalPoint {
                step: eval.step,
                loss: eval.loss,
                bits_per_byte: eval.bits_per_byte,
            }),
            _ => None,
        });
        let common = graph.common();
        let tokens = node.to_step * (common.batch * common.context) as u64;
        NodeResult {
            format: FORMAT,
            key: node.key.clone(),
            label: node.label.clone(),
            seed: node.seed,
            params: node.config.params(),
            from_step: node.from_step,
            to_step: node.to_step,
            tokens,
            epochs: tokens as f64 / self.corpus.epoch_tokens as f64,
            flops: node.flops,
            counted_flops: 0.0,
            lr: node.peak_rate(),
            seconds: seconds.sum(),
            machine: self.machine.clone(),
            diverged: None,
            growth: None,
            // Losses on another text are no continuation.
            spike: result::spike(before, &first_losses).filter(|_| node.text == OnText::First),
            evals: evals.filter(|eval| eval.loss.is_finite()).collect(),
            held_out: None,
            second_held_out: None,
            first_losses,
            last_losses,
            losses: means,
        }
    }

    /// Removes the folders of runs whose checkpoints no remaining run needs.
    fn tidy(&mut self) -> Result<()> {
        let plan = Plan::new(&self.whole, &self.results, &mut self.shapes)?;
        let nodes = plan.graph.nodes();
        let mut needed = vec![false; nodes.len()];
        for target in plan.targets() {
            if ended(&plan.graph, &self.results, target).is_some() {
                continue;
            }
            for at in plan.graph.path(target) {
                needed[at] = true;
                // A node that has its checkpoint needs no earlier checkpoints.
                if at != target && self.has_checkpoint(&nodes[at]) {
                    break;
                }
            }
        }
        for (node, _) in nodes.iter().zip(needed).filter(|(_, needed)| !needed) {
            if self.results.of(node).is_some() {
                remove(&self.folder(node))?;
            }
        }
        Ok(())
    }
}

/// Removes the folder of a run, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove the folder of a run",
            path: folder.into(),
            source,
            help: "check its permissions",
        }),
        _ => Ok(()),
    }
}

/// The finished and the remaining work around a run.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    runs: (usize, usize),
    done_s: f64,
    later_s: f64,
    per_step_s: f64,
}

/// Passes on the events of a run.
struct View<'a> {
    node: &'a Node,
    ahead: Ahead,
    watcher: &'a mut dyn Watcher,
}

impl Observer for View<'_> {
    fn step(&mut self, progress: &Progress) {
        let left = self.node.to_step.saturating_sub(progress.step) as f64;
        let done = progress.step.saturating_sub(self.node.from_step) as f64;
        // The measured time of this run, once it is known, and the noted one until then.
        let per_step_s = 0.5 * (self.ahead.per_step_s + progress.step_ms / 1e3);
        let node_eta_s = left * per_step_s;
        let eta_s = node_eta_s + self.ahead.later_s;
        let done_s = self.ahead.done_s + done * self.ahead.per_step_s;
        self.watcher.step(
            &Standing {
                node: self.node,
                runs: self.ahead.runs,
                share: done_s / (done_s + eta_s).max(f64::MIN_POSITIVE),
                node_eta_s,
                eta_s,
            },
            progress,
        );
    }

    fn warning(&mut self, text: &str) {
        self.watcher.note(&format!("warning: {text}"));
    }
}
