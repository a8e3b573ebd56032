//! Plots: well-formed SVG for any records, and what they show.

mod common;

use common::{control, eval, every_kind, grow, train};
use proptest::prelude::*;
use roxmltree::{Document, Node};
use tokenformer_report::{ControlRecord, EvalRecord, Plot, Record, TrainRecord, plots};

fn plot(records: &[Record], name: &str) -> String {
    plots(records)
        .into_iter()
        .find(|plot| plot.name == name)
        .unwrap_or_else(|| panic!("no plot {name}"))
        .standalone()
}

fn by_class<'a>(document: &'a Document<'a>, class: &str) -> Vec<Node<'a, 'a>> {
    document
        .descendants()
        .filter(|node| {
            let classes = node.attribute("class").unwrap_or_default();
            classes.split(' ').any(|other| other == class)
        })
        .collect()
}

fn texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .filter_map(|node| node.text().map(str::to_owned))
        .collect()
}

/// Every number in an attribute that says where something is.
fn coordinates(svg: &str) -> Vec<f64> {
    let document = Document::parse(svg).unwrap();
    let names = [
        "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d", "points",
    ];
    document
        .descendants()
        .flat_map(|node| node.attributes())
        .filter(|attribute| names.contains(&attribute.name()))
        .flat_map(|attribute| {
            attribute
                .value()
                .split(|c: char| c.is_whitespace() || "MLHVl,".contains(c))
                .filter(|part| !part.is_empty())
                .map(|part| part.parse::<f64>().expect("a number"))
                .collect::<Vec<f64>>()
        })
        .collect()
}

#[test]
fn plots_without_data_are_left_out_but_loss_always_is_there() {
    let names = |records: &[Record]| -> Vec<String> {
        plots(records).into_iter().map(|p| p.name).collect()
    };
    assert_eq!(names(&[]), ["loss"]);
    assert!(texts(&plot(&[], "loss")).contains(&"nothing recorded yet".to_owned()));
    assert_eq!(names(&[eval(1, 0, 2.0)]), ["loss", "parameters"]);
    assert_eq!(
        names(&every_kind()),
        [
            "loss",
            "bits_per_byte",
            "parameters",
            "throughput",
            "learning_rate",
            "gradient_norm"
        ]
    );
}

#[test]
fn stages_are_labelled_and_growths_are_lines() {
    let mut records: Vec<Record> = (1..=50).map(|step| train(step, 3.0)).collect();
    records.push(grow(50, 1));
    records.push(eval(100, 1, 2.0));
    let svg = plot(&records, "loss");
    let texts = texts(&svg);
    assert!(texts.contains(&"12.8k params".to_owned()), "{texts:?}");
    assert!(
        texts.contains(&"25.6k params (+512 ffn)".to_owned()),
        "{texts:?}"
    );
    let document = Document::parse(&svg).unwrap();
    assert_eq!(by_class(&document, "growth").len(), 1);
    assert_eq!(by_class(&document, "tint").len(), 2);
}

/// A run with a growth at step 150 and its control; `last` is the last step.
fn grown_run(last: u64) -> Vec<Record> {
    let loss = |step: u64| 3.0 - step as f64 * 1e-3;
    let mut records: Vec<Record> = (1..=150).map(|step| train(step, loss(step))).collect();
    records.extend((151..=250).map(|step| control(step, 1, loss(step) + 0.1)));
    records.push(grow(150, 1));
    records.extend((151..=last).map(|step| match train(step, loss(step)) {
        Record::Train(mut r) => {
            r.stage = 1;
            Record::Train(r)
        }
        other => other,
    }));
    records
}

#[test]
fn a_zoom_shows_the_losses_on_both_sides_of_a_growth() {
    let svg = plot(&grown_run(500), "growth_zoom_1");
    let document = Document::parse(&svg).unwrap();
    let number =
        |node: &Node<'_, '_>, name: &str| -> f64 { node.attribute(name).unwrap().parse().unwrap() };
    let points = |class: &str| -> usize {
        let lines = by_class(&document, class);
        let drawn = lines.iter().find(|node| node.has_attribute("clip-path"));
        drawn
            .unwrap()
            .attribute("d")
            .unwrap()
            .split(['M', 'L'])
            .count()
            - 1
    };
    assert_eq!(points("thin"), 301, "from 100 updates before to 200 after");
    assert_eq!(points("control"), 100);
    let marks = by_class(&document, "growth");
    assert_eq!(marks.len(), 1);
    let axis = &by_class(&document, "axis")[0];
    let (left, right) = (number(axis, "x1"), number(axis, "x2"));
    let third = left + (right - left) / 3.0;
    assert!((number(&marks[0], "x1") - third).abs() < 0.1, "{svg}");
    let texts = texts(&svg);
    for text in [
        "training",
        "without the growth",
        "-100",
        "0",
        "200",
        "updates since the growth",
    ] {
        assert!(texts.contains(&text.to_owned()), "no {text} in {texts:?}");
    }
}

#[test]
fn dense_records_around_a_growth_count_as_one_in_the_other_plots() {
    let sparse: Vec<Record> = (1..=60)
        .map(|i| train(10 * i, 5.0 - i as f64 / 16.0))
        .collect();
    // Ten records in place of one, of the same mean.
    let dense: Vec<Record> = (1..=60)
        .flat_map(|i| {
            let steps = if (20..40).contains(&i) { 9 } else { 0 };
            (0..=steps)
                .rev()
                .map(move |k| train(10 * i - k, 5.0 - i as f64 / 16.0))
        })
        .collect();
    assert_eq!(dense.len(), 240);
    assert_eq!(plot(&sparse, "loss"), plot(&dense, "loss"));
}

#[test]
fn a_growth_with_few_losses_on_a_side_has_no_zoom() {
    let has_zoom = |records: &[Record]| plots(records).iter().any(|p| p.name.contains("zoom"));
    assert!(has_zoom(&grown_run(160)));
    assert!(!has_zoom(&grown_run(159)));
    assert!(!has_zoom(&grown_run(500)[141..]));
}

#[test]
fn labels_that_do_not_fit_are_shortened_or_left_out() {
    let mut records = vec![eval(1, 0, 3.0)];
    for stage in 1..=60 {
        records.push(grow(stage as u64, stage));
    }
    records.push(eval(10_000, 60, 2.0));
    let texts = texts(&plot(&records, "loss"));
    let labels = texts.iter().filter(|text| text.contains("25.6k")).count();
    assert_eq!(labels, 1, "{texts:?}");
}

#[test]
fn one_spike_does_not_flatten_the_rest() {
    let mut records: Vec<Record> = (1..=200)
        .map(|step| train(step, 2.0 + (step % 7) as f64 * 0.1))
        .collect();
    records.push(train(201, 5000.0));
    let texts = texts(&plot(&records, "loss"));
    assert!(
        texts.contains(&"values above the axis reach 5000".to_owned()),
        "{texts:?}"
    );
    assert!(texts.contains(&"2.2".to_owned()), "{texts:?}");
}

#[test]
fn skipped_steps_are_marked() {
    let Record::Train(mut skipped) = train(2, f64::NAN) else {
        unreachable!();
    };
    skipped.skipped = true;
    let svg = plot(&[train(1, 3.0), Record::Train(skipped)], "loss");
    assert!(texts(&svg).contains(&"skipped step".to_owned()));
}

#[test]
fn long_series_are_thinned_and_keep_their_spikes() {
    let mut records: Vec<Record> = (1..=20_000).map(|step| train(step, 2.0)).collect();
    records[12_345] = train(12_346, 2.5);
    let svg = plot(&records, "loss");
    let document = Document::parse(&svg).unwrap();
    let lines = by_class(&document, "raw");
    let path = lines
        .iter()
        .find_map(|node| {
            node.attribute("d")
                .filter(|_| node.has_attribute("clip-path"))
        })
        .unwrap();
    let points: Vec<&str> = path.split(['M', 'L']).filter(|p| !p.is_empty()).collect();
    assert!(
        (100..=1500).contains(&points.len()),
        "{} points",
        points.len()
    );
    let heights: std::collections::BTreeSet<&str> = points
        .iter()
        .map(|point| point.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(heights.len(), 2, "the constant and the spike: {heights:?}");
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(0.0),
        Just(-0.0),
        Just(1e30),
        Just(1e300),
        0.0..10.0f64,
    ]
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), 0u64..100]
}

fn any_record() -> impl Strategy<Value = Record> {
    let counts = (any_count(), any_count(), any_count(), any_count());
    let floats = (any_float(), any_float(), any_float(), any_float());
    (0..4, counts, floats, "\\PC{0,12}", any::<bool>()).prop_map(
        |(kind, (step, tokens, params, more), (a, b, c, d), text, flag)| match kind {
            0 => Record::Train(TrainRecord {
                step,
                tokens,
                loss: a,
                bits_per_byte: flag.then_some(b),
                grad_norm: b,
                lr: c,
                stage: more as usize,
                params,
                flops: None,
                step_ms: d,
                tokens_per_s: Some(d),
                images_per_s: None,
                waiting: None,
                skipped: flag,
            }),
            1 => Record::Eval(EvalRecord {
                step,
                tokens,
                stage: more as usize,
                params,
                flops: None,
                loss: a,
                bits_per_byte: flag.then_some(b),
                perplexity: Some(c),
                eval_tokens: more,
                top1: None,
                top5: None,
                ema_loss: None,
                ema_top1: None,
                ema_top5: None,
            }),
            2 => Record::Control(ControlRecord {
                step,
                loss: a,
                stage: more as usize,
            }),
            _ => {
                let Record::Grow(mut growth) = grow(1, 1) else {
                    unreachable!()
                };
                growth.step = step;
                growth.tokens = tokens;
                growth.stage = more as usize;
                growth.params_after = params;
                growth.summary = text;
                growth.max_logit_diff = a;
                Record::Grow(growth)
            }
        },
    )
}

proptest! {
    #[test]
    fn any_records_make_well_formed_plots(
        records in proptest::collection::vec(any_record(), 0..80),
    ) {
        for svg in plots(&records).iter().map(Plot::standalone) {
            for number in coordinates(&svg) {
                prop_assert!(number.is_finite() && number.abs() < 1e5, "{} in {}", number, svg);
            }
        }
        let page = tokenformer_report::render(&common::input("any", &records));
        prop_assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn constant_series_have_labelled_axes(value in any_float(), count in 1u64..60) {
        prop_assume!(value.is_finite() && value.abs() <= 1e30);
        let records: Vec<Record> = (1..=count).map(|step| train(step, value)).collect();
        let svg = plot(&records, "loss");
        let document = Document::parse(&svg).unwrap();
        prop_assert!(by_class(&document, "grid").len() >= 2, "{}", svg);
    }
}
