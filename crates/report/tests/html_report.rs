//! The report page and the files next to it.

mod common;

use common::{eval, every_kind, grow, input, note, of_images, sample, start, train};
use tokenformer_report::{Record, ReportInput, render, write_report};

use tokenformer_report::pictures::{
    Calibration, ClassRow, ClassTokens, ConfidenceBin, PictureGroup, PictureReport, Shown, SiteRow,
    Temperature, TokenRow,
};

const HOSTILE: &str =
    "</pre></title></style><script>alert('1')</script>\"onload='x' & \u{1b}[31m\u{202e}\u{0}";

/// A report that has its text from outside in every place, with more classes than a matrix shows if `many`.
fn pictures(text: &str, many: bool) -> PictureReport {
    let shown = Shown {
        png: b"png".to_vec(),
        lines: vec![text.to_owned()],
        title: text.to_owned(),
    };
    let classes = if many { 51 } else { 2 };
    let score = ClassRow {
        images: 4,
        told: 3,
        precision: 1.0,
        recall: 0.75,
        f1: 0.857,
    };
    PictureReport {
        classes: vec![text.to_owned(); classes],
        what: text.to_owned(),
        scores: vec![score; classes],
        confusions: vec![(0, 0, 3), (0, 1, 1), (1, 1, 4)],
        calibration: Calibration {
            bins: vec![ConfidenceBin {
                images: 8,
                confidence: 0.9,
                right: 0.875,
            }],
            error: 0.025,
            temperature: Some(Temperature {
                divisor: 1.25,
                pictures: 8,
                errors: [0.025, 0.0125],
            }),
        },
        groups: vec![PictureGroup {
            heading: text.to_owned(),
            pictures: vec![shown.clone()],
        }],
        rollout: vec![[shown.clone(), shown.clone()]],
        sites: vec![SiteRow {
            name: text.to_owned(),
            tokens: 96,
            dead: 12,
            energy: vec![0.75, 0.25],
            by_stage: vec![64, 32],
        }],
        tokens: vec![ClassTokens {
            class: 1,
            tokens: vec![TokenRow {
                token: 17,
                stage: 1,
                selectivity: 1.75,
                pictures: vec![shown; 9],
            }],
        }],
        watched: 8,
    }
}

fn hostile_pictures() -> PictureReport {
    pictures(HOSTILE, false)
}

#[test]
fn pictures_are_shown_with_what_was_said_of_them() {
    let report = pictures("cat", false);
    let page = render(&ReportInput {
        pictures: Some(&report),
        ..input("run", &of_images())
    });
    // "png" in base 64: 1 picture, 2 of the rollout, 9 of the token.
    assert_eq!(page.matches("data:image/png;base64,cG5n\"").count(), 12);
    for part in [
        "img-src data:",
        "75.00 %",
        "1.250",
        "1.25 %",
        "token 17, stage 2: <b>1.75×</b>",
        "12 <small>12.50 %</small>",
        "25.00 % <small>of 32</small>",
        "cat taken for cat: 1 of 4",
        "8 pictures said with 90.0 %: 87.5 % right",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    let mut few = pictures("cat", false);
    for (temperature, part) in [
        (
            Some(Temperature {
                divisor: 1.25,
                pictures: 4,
                errors: [0.03, 0.02],
            }),
            "4 of these pictures, spread evenly, would change theirs from <b>3.00 %</b> to <b>2.00 %</b>",
        ),
        (None, "none was fitted"),
    ] {
        few.calibration.temperature = temperature;
        let page = render(&ReportInput {
            pictures: Some(&few),
            ..input("run", &of_images())
        });
        assert!(page.contains(part), "no {part}");
    }
    let many = pictures("cat", true);
    let page = render(&ReportInput {
        pictures: Some(&many),
        ..input("run", &of_images())
    });
    assert!(!page.contains("taken for cat: "), "a matrix of 51 classes");
    assert!(page.contains("<td>cat</td><td>cat</td><td>1</td>"));
    assert!(page.contains("50 further classes are left out"));
}

#[test]
fn hostile_text_is_escaped_wherever_it_appears() {
    let Record::Grow(mut growth) = grow(2, 1) else {
        unreachable!();
    };
    growth.summary = HOSTILE.to_owned();
    growth.sites[0].name = HOSTILE.to_owned();
    let records = [
        train(1, 2.0),
        Record::Grow(growth),
        sample(2, HOSTILE, HOSTILE),
        note(2, HOSTILE),
        eval(1000, 1, 1.0),
    ];
    let page = render(&ReportInput {
        title: HOSTILE,
        records: &records,
        config_toml: HOSTILE,
        environment: &[(HOSTILE.to_owned(), HOSTILE.to_owned())],
        notes: &[HOSTILE.to_owned()],
        pictures: Some(&hostile_pictures()),
    });
    assert!(!page.contains("<script"), "a script got in");
    assert!(!page.contains("onload='"), "an attribute got in");
    assert!(
        page.chars()
            .all(|c| c == '\n' || c == '\t' || !(c.is_control() || c == '\u{202e}')),
        "a control character got in"
    );
    let escaped = "&lt;/pre&gt;&lt;/title&gt;&lt;/style&gt;&lt;script&gt;alert(&#39;1&#39;)";
    // Title twice, prompt, sample, growth (stages, growth, bar twice, plots), site, log, configuration, environment, note.
    assert!(page.matches(escaped).count() >= 14);
    assert!(page.contains("\\u{1b}[31m\\u{202e}\\u{0}"));
}

#[test]
fn page_needs_nothing_from_outside() {
    let page = render(&input("run", &every_kind()));
    assert!(page.contains("default-src 'none'"));
    let links = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "href=", "@import", "url(h"] {
        assert!(!links.contains(outside), "{outside}");
    }
}

#[test]
fn a_run_on_pictures_is_told_in_images_and_accuracies() {
    let page = render(&input("run", &of_images()));
    for part in [
        "trained on <b>128 images</b>",
        "12.50 %<i>→</i>50.00 %",
        "median 1.5k images/s",
        "Waiting for data",
        "top 1, averaged weights",
        "training images",
        " after 128 images</title>",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    for part in [
        "perplexity",
        "Bits per byte",
        "128 tokens",
        "per token",
        "tokens/s",
    ] {
        assert!(!page.contains(part), "{part:?} in a report of pictures");
    }
}

#[test]
fn headline_names_first_and_last_values() {
    let records = [
        eval(0, 0, 5.5),
        train(1, 5.0),
        train(3, 4.0),
        eval(3, 0, 4.25),
        grow(3, 1),
        eval(3, 1, 4.25),
        train(4, 3.0),
        eval(4, 1, 1.5),
    ];
    let page = render(&input("run", &records));
    assert!(page.contains("<b>12.8k to 25.6k parameters</b> in 2 stages"));
    assert!(page.contains("held-out loss fell from <b>5.500 to 1.500</b>"));
    assert!(page.contains("<b>5.500<i>→</i>1.500</b>"));
    assert!(page.contains("4 steps"));
    // Four steps of 20 ms, the third record of the mean of two.
    assert!(page.contains("<b>80ms</b>"));
    assert!(page.contains("median 3.2k tokens/s"));
    assert!(page.contains("0 (exact)"));
}

#[test]
fn a_run_that_began_from_a_checkpoint_is_told_from_there() {
    let page = |records: &[Record]| render(&input("run", records));
    let own = [train(120, 4.0), train(140, 3.0)];
    let told = page(&[&[start(100, 0)], &own[..]].concat());
    // Forty steps of 20 ms, and their tokens.
    assert!(told.contains("<b>800ms</b>"), "{told}");
    assert!(told.contains("<td>2.56k</td><td>40</td>"), "{told}");
    // Without the record nothing says that the steps before were another run's.
    assert!(page(&own).contains("<b>2.8s</b>"));
}

#[test]
fn stages_table_has_the_losses_of_each_stage() {
    let records = [
        eval(0, 0, 5.5),
        eval(2, 0, 4.25),
        grow(2, 1),
        eval(2, 1, 4.125),
        eval(3, 1, 3.5),
    ];
    let page = render(&input("run", &records));
    let row = |first: &str, last: &str| format!("<td>{first}</td><td>{last}</td>");
    assert!(page.contains(&row("5.500", "4.250")));
    assert!(page.contains(&row("4.125", "3.500")));
    assert!(!page.contains("Bits per byte"));
}

#[test]
fn a_growth_of_single_blocks_shows_the_fewest_tokens_and_the_most() {
    let of = |most_after| {
        let Record::Grow(mut growth) = grow(2, 1) else {
            unreachable!();
        };
        growth.sites[0].most_after = most_after;
        render(&input("run", &[train(1, 2.0), Record::Grow(growth)]))
    };
    assert!(of(None).contains("<td>512 → 1024</td><td>+512</td>"));
    assert!(of(Some(2048)).contains("<td>512 → 1024..2048</td><td>differs by block</td>"));
}

#[test]
fn small_and_empty_runs_have_a_page() {
    assert!(render(&input("", &[])).contains("Nothing has been recorded yet."));
    let page = render(&input("one", &[train(1, 2.0)]));
    assert!(page.contains("its training loss is <b>2.000</b>"));
    assert!(!page.contains("<h2>Growth</h2>") && !page.contains("<h2>Samples</h2>"));
}

#[test]
fn every_sample_is_on_the_page_with_its_prompt_told_apart() {
    let records: Vec<Record> = (1..=5)
        .map(|step| sample(step, "Once", &format!(" number {step}")))
        .collect();
    let page = render(&input("run", &records));
    for step in 1..=5 {
        assert!(page.contains(&format!(
            "<span class=\"prompt\">Once</span> number {step}<"
        )));
    }
    assert!(page.contains("3 more in between"));
}

#[test]
fn report_is_written_beside_its_parts_and_can_be_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let records = every_kind();
    for _ in 0..2 {
        let path = write_report(dir.path(), &input("run", &records)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            render(&input("run", &records))
        );
    }
    let names = |dir: &std::path::Path| {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(dir.path()), ["metrics.csv", "plots", "report.html"]);
    assert_eq!(
        names(&dir.path().join("plots")),
        [
            "bits_per_byte.svg",
            "gradient_norm.svg",
            "learning_rate.svg",
            "loss.svg",
            "parameters.svg",
            "throughput.svg"
        ]
    );
}

#[test]
fn unwritable_folder_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = write_report(&file, &input("run", &[])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("plots: cannot create the folder")
    );
}
