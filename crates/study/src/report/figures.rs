//! The figures.

use crate::analysis::{Analysis, Cell, Ends, GROWN, Row, STAY, Shifted};
use crate::arms::{ARMS, Arm, Group, is_scratch};
use crate::context_cost::{ContextCost, Point};
use crate::plan::{Endpoint, Plan};
use crate::planner::{Coverage, Estimate};
use crate::stats::{error_of_mean, mean, quantile};
use std::collections::{BTreeMap, BTreeSet};
use tokenformer_report::figure::{Dot, Figure, Forest, Interval, Mark};
use tokenformer_report::table::human_count;

const HUES: usize = 6;

/// Bits per byte of a row, the mean of its seeds, with the interval that their scatter gives.
fn dot(row: &Row, x: f64) -> Dot {
    let value = mean(&row.bits_per_byte);
    let reach =
        error_of_mean(&row.bits_per_byte).map(|(error, freedom)| quantile(0.975, freedom) * error);
    Dot {
        at: (x, value),
        interval: reach.map(|reach| [value - reach, value + reach]),
        title: format!("{} {}", row.arm, row.size),
    }
}

fn ended(analysis: &Analysis) -> impl Iterator<Item = &Row> {
    analysis.rows.iter().filter(|row| !row.losses.is_empty())
}

/// The main figure: loss over cost, scratch in grey, the grown model in colour.
pub(super) fn cost_figure(analysis: &Analysis) -> Figure {
    let mut figure = over(analysis, |row| row.flops);
    figure.name = "cost".into();
    figure.title = "What a loss costs".into();
    figure.x_label =
        "floating-point operations from the first token of the base, logarithmic".into();
    let rows: Vec<&Row> = ended(analysis).filter(|row| row.arm == GROWN).collect();
    if let Some(base) = analysis.row("base", "x1") {
        let sunk = rows.iter().map(|row| {
            let cost = row.flops - base.flops;
            (cost, mean(&row.bits_per_byte))
        });
        figure.marks.push(Mark::Line {
            label: "the same, the base not charged".into(),
            hue: Some(0),
            dashed: true,
            points: sunk.filter(|(cost, _)| *cost > 0.0).collect(),
        });
    }
    let name = rows
        .last()
        .map(|row| format!("{GROWN} {}, same loss", row.size));
    if let (Some(row), Some(found)) = (
        rows.last(),
        name.and_then(|name| analysis.speed_ups.get(&name)),
    ) {
        let end = (row.flops, mean(&row.bits_per_byte));
        let reach = found.reach();
        let text = match found.factor > 1.0 {
            true => format!(
                "same loss, S = {:.2}x ({reach}) fewer FLOPs, base included",
                found.factor
            ),
            false => format!(
                "no saving: S = {:.2}x ({reach}), base included",
                found.factor
            ),
        };
        figure.marks.push(Mark::Arrow {
            from: end,
            to: (end.0 * found.factor, end.1),
            text,
        });
    }
    figure
}

/// The same over the tokens seen.
pub(super) fn over_tokens(analysis: &Analysis) -> Figure {
    Figure {
        name: "tokens".into(),
        title: "What a loss takes in text".into(),
        x_label: "tokens seen, logarithmic".into(),
        ..over(analysis, |row| row.tokens as f64)
    }
}

/// Decayed ends: scratch with its frontier, the grown TokenFormer, the grown MLPs, the base trained on.
fn over(analysis: &Analysis, x: impl Fn(&Row) -> f64) -> Figure {
    let mut scratch: Vec<&Row> = ended(analysis).filter(|row| is_scratch(&row.arm)).collect();
    scratch.sort_by(|a, b| x(a).total_cmp(&x(b)));
    let mut best = f64::INFINITY;
    let corners = scratch.iter().filter_map(|row| {
        let loss = mean(&row.bits_per_byte);
        let is_better = loss < best;
        best = best.min(loss);
        is_better.then(|| (x(row), loss))
    });
    let mut marks = vec![
        Mark::Staircase {
            label: "best scratch Transformer".into(),
            points: corners.collect(),
        },
        Mark::Dots {
            label: String::new(),
            hue: None,
            hollow: false,
            points: scratch.iter().map(|row| dot(row, x(row))).collect(),
        },
    ];
    for (arm, label, hue) in [
        (STAY, "base trained on", 5),
        ("g-ffn", "Transformer with grown MLPs", 2),
        (GROWN, "grown TokenFormer", 0),
    ] {
        let mut rows: Vec<&Row> = ended(analysis)
            .filter(|row| row.arm == arm || (arm == GROWN && row.arm == "base"))
            .collect();
        rows.sort_by(|a, b| x(a).total_cmp(&x(b)));
        if rows.is_empty() {
            continue;
        }
        marks.push(Mark::Line {
            label: label.into(),
            hue: Some(hue),
            dashed: false,
            points: rows
                .iter()
                .map(|row| (x(row), mean(&row.bits_per_byte)))
                .collect(),
        });
        marks.push(Mark::Dots {
            label: String::new(),
            hue: Some(hue),
            hollow: false,
            points: rows.iter().map(|row| dot(row, x(row))).collect(),
        });
    }
    Figure {
        y_label: "held-out bits per byte of models that have decayed, lower is better".into(),
        log_x: true,
        height: 480.0,
        marks,
        ..Figure::default()
    }
}

/// Every arm against the grown TokenFormer, a figure per size.
pub(super) fn forests(analysis: &Analysis) -> Vec<Forest> {
    let mut sizes: Vec<&String> = analysis.forest.iter().map(|(size, _)| size).collect();
    sizes.dedup();
    let percent = |nats: f64| 100.0 * nats.exp_m1();
    sizes
        .into_iter()
        .map(|size| {
            let mut rows: Vec<Interval> = (analysis.forest.iter())
                .filter(|(of, _)| of == size)
                .map(|(_, contrast)| Interval {
                    label: contrast.name.clone(),
                    value: percent(contrast.difference),
                    interval: contrast.interval.map(percent),
                    hue: match contrast.name.chars().next() {
                        Some('t') => Some(0),
                        Some('g') => Some(2),
                        Some('a') => Some(1),
                        _ => None,
                    },
                })
                .collect();
            rows.sort_by(|a, b| a.value.total_cmp(&b.value));
            Forest {
                name: format!("forest-{size}"),
                title: format!("Every arm against {GROWN}, {size}"),
                unit: "difference of perplexity in percent, paired by seed, 95 % intervals; right of 0 is worse".into(),
                rows,
            }
        })
        .filter(|forest| !forest.rows.is_empty())
        .collect()
}

/// The map: how much less than scratch a growth costs, by its moment, a line for each factor.
pub(super) fn map(analysis: &Analysis) -> Figure {
    let mut factors: Vec<usize> = analysis.map.iter().map(|cell| cell.factor).collect();
    factors.sort_unstable();
    factors.dedup();
    let mut marks = Vec::new();
    let moments = analysis.map.iter().map(|cell| cell.base_tokens as f64);
    let ends = [
        moments.clone().fold(f64::INFINITY, f64::min),
        moments.fold(0.0, f64::max),
    ];
    marks.push(Mark::Line {
        label: "no saving".into(),
        hue: None,
        dashed: true,
        points: ends.map(|x| (x, 1.0)).into(),
    });
    for (hue, factor) in factors.into_iter().enumerate() {
        // The best length after each moment.
        let mut best: BTreeMap<u64, &Cell> = BTreeMap::new();
        for cell in analysis.map.iter().filter(|cell| cell.factor == factor) {
            let known = best.entry(cell.base_tokens).or_insert(cell);
            // An upper bound must not displace a measured value.
            let rank = |cell: &Cell| (cell.bound != "<=", cell.speed_up);
            if rank(cell) > rank(known) {
                *known = cell;
            }
        }
        let points: Vec<(f64, f64, &Cell)> = (best.into_iter())
            .filter_map(|(tokens, cell)| Some((tokens as f64, cell.speed_up?, cell)))
            .collect();
        for is_bound in [false, true] {
            let points = points
                .iter()
                .filter(|point| (point.2.bound != "=") == is_bound);
            let dot = |&(x, y, cell): &(f64, f64, &Cell)| Dot {
                at: (x, y),
                interval: None,
                title: format!(
                    "x{factor}, {} tokens after it: S {} {y:.2}",
                    human_count(cell.tokens),
                    cell.bound
                ),
            };
            marks.push(Mark::Dots {
                label: String::new(),
                hue: Some(hue % HUES),
                hollow: is_bound,
                points: points.map(dot).collect(),
            });
        }
        marks.push(Mark::Line {
            label: format!("grown x{factor}"),
            hue: Some(hue % HUES),
            dashed: false,
            points: points.into_iter().map(|(x, y, _)| (x, y)).collect(),
        });
    }
    Figure {
        name: "map".into(),
        title:
            "Where growth pays: cost from scratch of the same loss, over the cost with the growth"
                .into(),
        y_label: "S of the best length after the growth; above 1, growth costs less than scratch; hollow: a bound"
            .into(),
        x_label: "tokens before the growth, logarithmic".into(),
        log_x: true,
        height: 360.0,
        marks,
    }
}

/// Losses that the planner predicts from all other trainings, over the measured ones.
pub(super) fn planned(coverage: &Coverage) -> Figure {
    let measured = coverage.predictions.iter().map(|(_, loss, _)| *loss);
    let ends = [
        measured.clone().fold(f64::INFINITY, f64::min),
        measured.fold(0.0, f64::max),
    ];
    let dot = |(name, loss, interval): &(String, f64, Estimate)| Dot {
        at: (*loss, interval.middle),
        interval: Some([interval.low, interval.high]),
        title: name.clone(),
    };
    Figure {
        name: "planned".into(),
        title: format!(
            "What the planner says of trainings it has not seen: {:.0} % of {} intervals of 80 % hold the loss",
            100.0 * coverage.share(),
            coverage.predictions.len()
        ),
        y_label: "planned held-out loss in nats per token, from the other trainings, and its 80 % interval".into(),
        x_label: "measured".into(),
        log_x: false,
        height: 420.0,
        marks: vec![
            Mark::Line {
                label: "planned as measured".into(),
                hue: None,
                dashed: true,
                points: ends.map(|loss| (loss, loss)).into(),
            },
            Mark::Dots {
                label: String::new(),
                hue: Some(0),
                hollow: false,
                points: coverage.predictions.iter().map(dot).collect(),
            },
        ],
    }
}

/// What a token costs over the length of the context: all of it, and attention between tokens alone.
pub(super) fn context(costs: &[ContextCost]) -> Figure {
    let mut marks = Vec::new();
    for cost in costs {
        let hue = Some(if cost.grown { 0 } else { 2 });
        let line = |label: String, dashed: bool, of: &dyn Fn(&Point) -> f64| Mark::Line {
            label,
            hue,
            dashed,
            points: (cost.points.iter())
                .map(|point| (point.context as f64, of(point)))
                .collect(),
        };
        let name = format!("{}, {} parameters", cost.model, human_count(cost.params));
        marks.push(line(name, false, &|point| {
            point.token_token + point.token_parameter
        }));
        marks.push(line(String::new(), true, &|point| point.token_token));
        let counted = cost.points.iter().map(|point| Dot {
            at: (point.context as f64, point.counted),
            interval: None,
            title: format!("{}, {} tokens, counted", cost.model, point.context),
        });
        marks.push(Mark::Dots {
            label: String::new(),
            hue,
            hollow: true,
            points: counted.collect(),
        });
    }
    Figure {
        name: "context".into(),
        title: "What a token costs to train on, over the length of the context".into(),
        y_label: "floating-point operations of a token by the formula, dashed those between tokens alone; dots were counted one by one"
            .into(),
        x_label: "tokens of context, logarithmic".into(),
        log_x: true,
        height: 400.0,
        marks,
    }
}

/// What was forgotten against what was learnt.
pub(super) fn shift(analysis: &Analysis) -> Figure {
    let mark = |(hue, arm): (usize, &Shifted)| Mark::Dots {
        label: arm.arm.into(),
        hue: Some(hue % HUES),
        hollow: !arm.grown,
        points: vec![Dot {
            at: (arm.bits_per_byte[0], arm.bits_per_byte[1]),
            interval: None,
            title: format!("{}, {} seeds", arm.arm, arm.old.len()),
        }],
    };
    Figure {
        name: "shift".into(),
        title: "A second text: what is forgotten and what is learnt".into(),
        y_label: "second text, held-out bits per byte after learning it".into(),
        x_label: "first text, held-out bits per byte at the same time; low and left is best".into(),
        log_x: false,
        height: 360.0,
        marks: analysis.shift.iter().enumerate().map(mark).collect(),
    }
}

/// Losses around the growths of every arm, of the first seed and the factor of the learning rate that counts, compared with the
/// base trained on.
pub(super) fn zooms(ends: &Ends<'_>) -> Vec<Figure> {
    let graph = &ends.plan.graph;
    let mut starts: Vec<u64> = Vec::new();
    let is_shown = |end: &&Endpoint| {
        let groups = [Group::Main, Group::Rival];
        let has_figure = |arm: &Arm| arm.name == end.arm && groups.contains(&arm.group);
        end.seed == 1 && end.counts && end.settled && ARMS.iter().any(has_figure)
    };
    let shown = ends.plan.endpoints.iter().filter(is_shown);
    let growth = |end: &Endpoint| graph.path(end.node).find(|&at| graph.node(at).grows);
    let growths: BTreeSet<usize> = shown.filter_map(growth).collect();
    let grown = growths.iter().map(|&at| graph.node(at));
    for node in grown.clone() {
        if !starts.contains(&node.from_step) && !node.label.contains("g-one") {
            starts.push(node.from_step);
        }
    }
    starts.sort_unstable();
    let mut figures = Vec::new();
    for start in starts {
        let mut marks = Vec::new();
        let control = graph.nodes().iter().filter(|node| {
            node.from_step == start && node.label.starts_with(&format!("s1/{STAY}/"))
        });
        let nodes = control.chain(grown.clone().filter(|node| node.from_step == start));
        let mut hue = 0;
        for node in nodes {
            let Some(result) = ends.results.of(node) else {
                continue;
            };
            // Means of five: the lines of many arms stay apart.
            let points = result
                .first_losses
                .chunks(5)
                .enumerate()
                .map(|(i, losses)| {
                    let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
                    (5.0 * i as f64 + 2.5, sum / losses.len() as f64)
                });
            let name = node
                .label
                .trim_start_matches("s1/")
                .split('/')
                .next()
                .unwrap_or_default();
            let is_control = name == STAY;
            marks.push(Mark::Line {
                label: name.into(),
                hue: (!is_control).then_some(hue % HUES),
                dashed: !is_control && hue >= HUES,
                points: points.collect(),
            });
            hue += usize::from(!is_control);
        }
        let is_empty = marks.is_empty();
        let figure = Figure {
            name: format!("zoom-{start}"),
            title: format!("After the growths at update {start}"),
            y_label: "training loss in nats per token, means of five updates, the same batches in every line".into(),
            x_label: "updates since the growth".into(),
            height: 400.0,
            marks,
            ..Figure::default()
        };
        if !is_empty {
            figures.push(figure);
        }
    }
    figures
}

/// Loss over learning rate: the search at the base, then the checks.
pub(super) fn learning_rates(plan: &Plan) -> Vec<Figure> {
    let of = |name: &str, title: &str, x_label: &str, is_search: bool| {
        let curves = plan.curves.iter().filter(|tried| {
            tried
                .curve
                .tries
                .iter()
                .all(|(rate, _)| (*rate < 0.1) == is_search)
        });
        let marks = curves.enumerate().flat_map(|(number, tried)| {
            let points: Vec<(f64, f64)> = (tried.curve.tries.iter())
                .filter_map(|(rate, loss)| Some((*rate, (*loss)?)))
                .filter(|point| point.1.is_finite())
                .collect();
            let dots = points.iter().map(|&at| Dot {
                at,
                interval: None,
                title: tried.label.clone(),
            });
            [
                Mark::Dots {
                    label: String::new(),
                    hue: Some(number % HUES),
                    hollow: true,
                    points: dots.collect(),
                },
                Mark::Line {
                    label: tried.label.clone(),
                    hue: Some(number % HUES),
                    dashed: number >= HUES,
                    points,
                },
            ]
        });
        Figure {
            name: name.into(),
            title: title.into(),
            y_label: "held-out bits per byte after decay".into(),
            x_label: x_label.into(),
            log_x: true,
            height: 360.0,
            marks: marks.collect(),
        }
    };
    let figures = [
        of(
            "rates",
            "Learning rates tried at the bases",
            "learning rate, logarithmic",
            true,
        ),
        of(
            "checks",
            "Learning rates checked at the largest stages",
            "factor of the learning rate, logarithmic",
            false,
        ),
    ];
    let has_points = |figure: &Figure| {
        figure
            .marks
            .iter()
            .any(|mark| matches!(mark, Mark::Line { points, .. } if !points.is_empty()))
    };
    figures.into_iter().filter(has_points).collect()
}
