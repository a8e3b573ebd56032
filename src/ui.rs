//! Progress output for the user. Progress goes to standard error, results to standard output.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokenformer_core::growth::GrowthReport;
use tokenformer_report::table::{human_count, human_duration};
use tokenformer_report::{EvalRecord, Record, Unit};
use tokenformer_study::runner::Standing;
use tokenformer_study::vision::{VisionResult, VisionWatcher};
use tokenformer_study::{NodeResult, Watcher};
use tokenformer_train::{Observer, Progress};

/// Time between two progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A live bar on a terminal; nothing elsewhere.
pub fn bar(total: u64, what: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/blue} {percent}% eta {eta}");
    let bar = ProgressBar::with_draw_target(Some(total), target).with_prefix(what.to_string());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Watches a training run from a terminal or a log.
pub struct TrainingView {
    bar: Option<ProgressBar>,
    started: Option<(Instant, u64)>,
    last_line: Option<Instant>,
    stage_note: String,
}

impl TrainingView {
    /// A view for a run of `steps` steps.
    pub fn new(steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            match ProgressStyle::with_template("{bar:24.cyan/blue} {msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            started: None,
            last_line: None,
            stage_note: String::new(),
        }
    }

    /// Prints a line above the bar.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => errln!("{line}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `step 120/2000 | loss 4.3124 | bpb 1.92 | ...`
fn progress_line(p: &Progress, stage_note: &str, eta_s: f64) -> String {
    let bpb = p
        .bits_per_byte
        .map_or(String::new(), |b| format!(" | bpb {b:.3}"));
    let unit = match p.unit {
        Unit::Token => "tok/s",
        Unit::Image => "img/s",
    };
    let waiting = p.waiting.map_or(String::new(), |share| {
        format!(", {:.0} % waiting", 100.0 * share)
    });
    format!(
        "step {}/{} | loss {:.4}{bpb} | grad {:.2} | lr {:.1e} | {:.0} ms | {} {unit}{waiting} | stage {}{stage_note} | eta {}",
        p.step,
        p.steps,
        p.loss,
        p.grad_norm,
        p.lr,
        p.step_ms,
        human_count(p.per_s as u64),
        p.stage + 1,
        human_duration(eta_s),
    )
}

/// Measures of an evaluation other than the loss.
fn eval_details(e: &EvalRecord) -> String {
    let percent = |share: f64| 100.0 * share;
    let parts = [
        e.bits_per_byte.map(|b| format!("{b:.3} bits per byte")),
        e.perplexity.map(|p| format!("perplexity {p:.1}")),
        e.top1.map(|top1| format!("top-1 {:.2} %", percent(top1))),
        e.top5.map(|top5| format!("top-5 {:.2} %", percent(top5))),
        e.ema_loss.map(|loss| format!("average: loss {loss:.4}")),
        e.ema_top1
            .map(|top1| format!("average: top-1 {:.2} %", percent(top1))),
    ];
    let there = parts.into_iter().flatten();
    there.map(|part| format!(" | {part}")).collect()
}

impl Observer for TrainingView {
    fn step(&mut self, p: &Progress) {
        let now = Instant::now();
        let (start, first) = *self.started.get_or_insert((now, p.step));
        let done = p.step - first;
        let per_step_s = match done {
            0 => p.step_ms / 1e3,
            _ => start.elapsed().as_secs_f64() / done as f64,
        };
        let line = progress_line(p, &self.stage_note, (p.steps - p.step) as f64 * per_step_s);
        match &self.bar {
            Some(bar) => {
                bar.set_position(p.step);
                bar.set_message(line);
            }
            None => {
                if self.last_line.is_none_or(|t| now - t >= LINE_INTERVAL) || p.step == p.steps {
                    self.last_line = Some(now);
                    errln!("{line}");
                }
            }
        }
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Eval(e) => {
                self.print(&format!(
                    "held out at step {}: loss {:.4}{} | {} parameters",
                    e.step,
                    e.loss,
                    eval_details(e),
                    human_count(e.params),
                ));
            }
            Record::Sample(s) => {
                self.print(&format!("--- the model at step {} writes ---", s.step));
                self.print(&format!("{}{}", s.prompt, printable(&s.text)));
                self.print("---");
            }
            Record::Start(_)
            | Record::Train(_)
            | Record::Grow(_)
            | Record::Control(_)
            | Record::Note(_) => {}
        }
    }

    fn grown(&mut self, report: &GrowthReport) {
        self.stage_note = format!(" ({})", report.growth.summary());
        self.print(&growth_text(report));
    }

    fn note(&mut self, text: &str) {
        self.print(&format!("note: {text}"));
    }

    fn warning(&mut self, text: &str) {
        self.print(&format!("warning: {text}"));
    }
}

/// Watches a study of many runs.
pub struct StudyView {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl StudyView {
    /// A view before the first update.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            match ProgressStyle::with_template("{bar:24.cyan/blue} {msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            last_line: None,
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => errln!("{line}"),
        }
    }
}

impl Watcher for StudyView {
    fn step(&mut self, standing: &Standing<'_>, p: &Progress) {
        const INTERVAL: Duration = Duration::from_secs(10);
        let now = Instant::now();
        if self.bar.is_none() && self.last_line.is_some_and(|t| now - t < INTERVAL) {
            return;
        }
        self.last_line = Some(now);
        let (ended, runs) = standing.runs;
        let line = format!(
            "{:.1} % | run {}/{runs} {} | step {}/{} | loss {:.3} | {:.0} ms | eta {}, of the study {}",
            100.0 * standing.share,
            ended + 1,
            standing.node.label,
            p.step,
            p.steps,
            p.loss,
            p.step_ms,
            human_duration(standing.node_eta_s),
            human_duration(standing.eta_s),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((1000.0 * standing.share) as u64);
                bar.set_message(line);
            }
            None => errln!("{line}"),
        }
    }

    fn ended(&mut self, result: &NodeResult) {
        let loss = match (&result.held_out, &result.diverged) {
            (_, Some(problem)) => format!("diverged: {problem}"),
            (Some(held_out), None) => format!(
                "held out {:.4} nats per token, {:.4} bits per byte",
                held_out.loss, held_out.bits_per_byte
            ),
            (None, None) => format!("{} updates", result.to_step),
        };
        let growth = result.growth.as_ref().map_or(String::new(), |growth| {
            let moved = growth.max_logit_diff;
            format!(" | grown by {}, logits moved {moved:.1e}", growth.summary)
        });
        let seconds = human_duration(result.seconds);
        self.print(&format!("{} | {loss}{growth} | {seconds}", result.label));
    }

    fn note(&mut self, text: &str) {
        self.print(text);
    }
}

impl VisionWatcher for StudyView {
    fn step(&mut self, run: &str, (ended, runs): (usize, usize), p: &Progress) {
        const INTERVAL: Duration = Duration::from_secs(10);
        let now = Instant::now();
        if self.bar.is_none() && self.last_line.is_some_and(|t| now - t < INTERVAL) {
            return;
        }
        self.last_line = Some(now);
        let share = p.step as f64 / p.steps.max(1) as f64;
        let line = format!(
            "run {}/{runs} {run} | step {}/{} | loss {:.3} | {:.0} ms",
            ended + 1,
            p.step,
            p.steps,
            p.loss,
            p.step_ms,
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position((1000.0 * (ended as f64 + share) / runs.max(1) as f64) as u64);
                bar.set_message(line);
            }
            None => errln!("{line}"),
        }
    }

    fn ended(&mut self, result: &VisionResult) {
        let found = match (&result.test, &result.diverged) {
            (_, Some(problem)) => format!("diverged: {problem}"),
            (Some([weights, average]), None) => format!(
                "test top-1 {:.2} %, average {:.2} %",
                100.0 * weights.top1,
                100.0 * average.top1
            ),
            (None, None) => "not measured".into(),
        };
        self.print(&format!(
            "{} rate {:.1e} seed {} | {found} | {:.2e} FLOP | {}",
            result.arm,
            result.rate,
            result.seed,
            result.flops,
            human_duration(result.seconds)
        ));
    }

    fn note(&mut self, text: &str) {
        self.print(text);
    }
}

/// A growth as a table: tokens per block and parameters of all blocks, per kind of site, before and after, and how much the function changed.
pub fn growth_text(report: &GrowthReport) -> String {
    use tokenformer_report::table::{Table, range};
    let tokens = |fewest: usize, most: Option<usize>| range(fewest as u64, most.map(|m| m as u64));
    let mut table = Table::new(["site", "tokens", "->", "parameters", "->"]);
    for site in &report.sites {
        table.row([
            site.site.name().to_string(),
            tokens(site.tokens_before, site.most_before),
            tokens(site.tokens_after, site.most_after),
            human_count(site.params_before),
            human_count(site.params_after),
        ]);
    }
    let layers = match report.layers_after - report.layers_before {
        0 => String::new(),
        n => format!(", {n} more layers"),
    };
    let is_exact = report.preserving && report.tolerance == 0.0;
    let moved = match report.max_logit_diff {
        0.0 if is_exact => {
            "largest logit difference 0: the grown model computes exactly what it did".into()
        }
        0.0 => "largest logit difference 0 on the probe tokens; others may differ".into(),
        diff => format!(
            "largest logit difference {diff:.3e} ({:.1} % of the logits' size)",
            100.0 * report.relative_logit_diff
        ),
    };
    format!(
        "=== grown at step {} by {}: {} -> {} parameters{layers}\n{table}{moved}",
        report.step,
        report.growth.summary(),
        human_count(report.params_before),
        human_count(report.params_after),
    )
}

/// Text from a model, safe to print: control characters other than line breaks and tabs are shown.
pub fn printable(text: &str) -> String {
    let show = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(show).collect()
}
