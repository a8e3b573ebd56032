//! The report of the study: one page, and the same numbers for programs.

mod figures;
mod tables;

use crate::analysis::{Analysis, Ends};
use crate::context_cost::ContextCost;
use crate::graph::OnText;
use crate::plan::{Endpoint, Plan, Settings};
use crate::planner::{Coverage, Evidence, StudyEnd, coverage};
use crate::result::Results;
use crate::verdicts::{Verdict, verdicts};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tokenformer_report::Page;
use tokenformer_train::{Error, Result};

/// The page.
const HTML: &str = "report.html";
/// The numbers.
const JSON: &str = "study.json";

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    profile: &'a str,
    corpus: &'a str,
    seeds: u64,
    notes: &'a [String],
    verdicts: &'a [Verdict],
    ends: &'a [StudyEnd],
    context_costs: &'a [ContextCost],
    planned: &'a Coverage,
    #[serde(flatten)]
    analysis: &'a Analysis,
}

/// Writes the report into `out`; returns the page's path.
///
/// # Errors
/// If a file cannot be written.
pub fn write(
    out: &Path,
    settings: &Settings,
    plan: &Plan,
    results: &Results,
    costs: &[ContextCost],
    notes: &[String],
) -> Result<PathBuf> {
    let analysis = Analysis::new(plan, results);
    let verdicts = verdicts(&analysis);
    let ends = ends(plan, results);
    let mut evidence = Evidence::default();
    evidence.add_ends(&out.join(JSON), &ends)?;
    let planned = coverage(&evidence.observations);
    let document = Document {
        version: 1,
        profile: settings.profile.name,
        corpus: &settings.corpus,
        seeds: settings.seeds,
        notes,
        verdicts: &verdicts,
        ends: &ends,
        context_costs: costs,
        planned: &planned,
        analysis: &analysis,
    };
    let json = serde_json::to_vec_pretty(&document).map_err(|e| Error::Damaged {
        path: out.join(JSON),
        problem: format!("cannot be written: {e}"),
        help: "a result holds a number that JSON has not".into(),
    })?;
    tokenformer_store::write_atomic(&out.join(JSON), &json)?;
    let page = page(settings, plan, results, &document);
    tokenformer_store::write_atomic(&out.join(HTML), page.as_bytes())?;
    Ok(out.join(HTML))
}

/// The decayed ends with their stages, from which the planner learns.
fn ends(plan: &Plan, results: &Results) -> Vec<StudyEnd> {
    let (graph, common) = (&plan.graph, plan.graph.common());
    let tokens = (common.batch * common.context) as f64;
    let end = |end: &Endpoint| {
        let node = graph.node(end.node);
        // Ends that were trained on the second text are left out: the law describes one text.
        if node.text == OnText::Second {
            return None;
        }
        let held_out = results.of(node)?.held_out.as_ref()?;
        let path: Vec<usize> = graph.path(end.node).collect();
        let mut stages: Vec<[f64; 2]> = Vec::new();
        for node in path.into_iter().rev().map(|at| graph.node(at)) {
            let (size, seen) = (
                node.flops_per_step / tokens / 6.0,
                node.steps() as f64 * tokens,
            );
            match stages.last_mut().filter(|_| !node.grows) {
                Some(stage) => stage[1] += seen,
                None => stages.push([size, seen]),
            }
        }
        let layers = &mut graph
            .node(end.node)
            .config
            .blocks
            .iter()
            .flat_map(|b| b.layers());
        Some(StudyEnd {
            arm: end.arm.to_string(),
            size: end.size.clone(),
            seed: end.seed,
            tokenformer: layers.any(|layer| layer.site().is_some()),
            stages,
            loss: held_out.loss,
        })
    };
    let counting = plan.endpoints.iter().filter(|end| end.counts);
    counting.filter_map(end).collect()
}

fn page(settings: &Settings, plan: &Plan, results: &Results, document: &Document<'_>) -> String {
    let (analysis, ends) = (document.analysis, Ends { plan, results });
    let lead = "Is it worth while to grow a TokenFormer? All costs begin with the first token of the base; only models \
                whose learning rate has decayed are compared.";
    let mut page = Page::new(
        "TokenFormer study",
        "Growth against training from scratch",
        lead,
    );
    page.figure(&figures::cost_figure(analysis).draw());
    page.notes(&remarks(settings, plan, results, document.notes, analysis));
    tables::verdicts(&mut page, document.verdicts);
    page.heading("All arms");
    for forest in figures::forests(analysis) {
        page.figure(&forest.draw());
    }
    tables::arms(&mut page, analysis);
    tables::speed_ups(&mut page, analysis);
    if !analysis.map.is_empty() {
        page.heading("Where growth pays");
        page.figure(&figures::map(analysis).draw());
        tables::map(&mut page, analysis);
    }
    if !analysis.shift.is_empty() {
        page.heading("A second text");
        page.figure(&figures::shift(analysis).draw());
        tables::shift(&mut page, analysis);
    }
    if !document.planned.predictions.is_empty() {
        page.heading("Planned and measured");
        page.figure(&figures::planned(document.planned).draw());
    }
    if !document.context_costs.is_empty() {
        page.heading("The cost of context");
        page.figure(&figures::context(document.context_costs).draw());
    }
    page.heading("Around each growth");
    for zoom in figures::zooms(&ends) {
        page.figure(&zoom.draw());
    }
    tables::lag(&mut page, &ends);
    page.heading("Learning rates");
    for curves in figures::learning_rates(plan) {
        page.figure(&curves.draw());
    }
    page.heading("The same over tokens");
    page.figure(&figures::over_tokens(analysis).draw());
    tables::negative(&mut page, analysis);
    page.finish("Made by tokenformer reproduce growth from the results of its runs; study.json has the numbers.")
}

/// Remarks that a reader should know before the numbers.
fn remarks(
    settings: &Settings,
    plan: &Plan,
    results: &Results,
    notes: &[String],
    analysis: &Analysis,
) -> Vec<String> {
    let mut remarks = Vec::new();
    let last = analysis
        .rows
        .iter()
        .rev()
        .find(|row| row.arm == crate::analysis::GROWN);
    if let Some(row) = last {
        let stage = settings
            .profile
            .stages
            .last()
            .map_or(0, |stage| stage.steps);
        let tokens = stage * settings.profile.tokens_per_step();
        remarks.push(format!(
            "Regime: the last stage has {:.1} tokens per parameter, the paper's have 21 to 85; gains of growth are published \
             to fade above 20. These numbers say nothing about longer stages.",
            tokens as f64 / row.params as f64
        ));
    }
    if let Some(most) = analysis.rows.iter().map(|row| row.epochs).reduce(f64::max)
        && most > 1.0
    {
        remarks.push(format!("The longest arm reads the text {most:.1} times."));
    }
    remarks.push(format!(
        "Learning rates were tried with {:.2e} FLOP, which no arm is charged with; as many rates for every arm.",
        analysis.tuning_flops
    ));
    if let Some((low, high)) = analysis.audit {
        remarks.push(format!(
            "Counted operations are {low:.3} to {high:.3} of the formula's; probes of growths are counted."
        ));
    }
    match analysis.pooled {
        Some((error, freedom)) => remarks.push(format!(
            "Standard error of a difference of two arms of one base: {:.3} % of perplexity with {freedom} degrees of freedom, \
             from what arms and seeds do not explain. Every other difference has the error of its own seeds.",
            100.0 * error.exp_m1()
        )),
        None => remarks.push("No errors yet: they need two seeds of two arms.".into()),
    }
    let dear = analysis.rows.iter().filter_map(|row| {
        let more = analysis.costs_more(&row.arm, &row.size)?;
        Some(format!("{} {} (+{:.0} %)", row.arm, row.size, 100.0 * more))
    });
    let dear: Vec<String> = dear.collect();
    if !dear.is_empty() {
        remarks.push(format!(
            "No comparison at equal cost: these cost more than {} of their size: {}.",
            crate::analysis::GROWN,
            dear.join(", ")
        ));
    }
    let ends = Ends { plan, results };
    let missing: usize = (1..=settings.seeds)
        .map(|seed| ends.missing_from_scratch(None, seed))
        .sum();
    if missing > 0 {
        remarks.push(format!(
            "Ends from scratch without a result: {missing}. Comparisons of a seed with scratch wait for all of its ends, because \
             a part of them would be a weaker rival."
        ));
    }
    if !plan.tuned {
        remarks.push("The learning rates of the bases are still being tried.".into());
    }
    remarks.extend(notes.iter().cloned());
    remarks
}
