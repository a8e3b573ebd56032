//! Writes the report of an invented run with three stages, to look at: `cargo run --example synthetic_run -- FOLDER`.

use tokenformer_report::{
    EvalRecord, GrowRecord, NoteRecord, Record, ReportInput, SampleRecord, SiteGrowth, TrainRecord,
    write_events, write_report,
};

const STEPS: u64 = 2000;
const TOKENS_PER_STEP: u64 = 4096;
const PARAMS: [u64; 3] = [932_864, 2_111_488, 4_470_784];
const FFN_TOKENS: [u64; 3] = [512, 1024, 2048];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("missing argument: FOLDER")?;
    let records = records();
    write_events(&folder, &records)?;
    let environment = [
        ("Processor", "2 cores, AVX-512"),
        ("Precision", "f32"),
        ("Seed", "1"),
    ];
    let report = write_report(
        &folder,
        &ReportInput {
            title: "Invented run",
            records: &records,
            config_toml: "[model]\nd_model = 128\nlayers = 4\nffn_tokens = 512\n\n[train]\nsteps = 2000\nlr = 6e-4\n\n[[grow]]\nat_step = 700\nffn = 512\n",
            environment: &environment.map(|(key, value)| (key.to_owned(), value.to_owned())),
            notes: &["The numbers are invented.".to_owned()],
            pictures: None,
        },
    )?;
    println!("{}", report.display());
    Ok(())
}

fn records() -> Vec<Record> {
    let mut noise = Noise(1);
    let mut records = vec![eval(0, 0)];
    let mut stage = 0;
    for step in 1..=STEPS {
        records.push(train(step, stage, &mut noise));
        if step % 100 == 0 {
            records.push(eval(step, stage));
        }
        if step % 200 == 0 {
            records.push(sample(step, stage));
        }
        if step == 1000 {
            records.push(Record::Note(NoteRecord {
                step,
                text: "resumed from checkpoints/step-001000".to_owned(),
            }));
        }
        if GROWTHS.contains(&step) {
            stage += 1;
            records.push(grow(step, stage));
            records.push(eval(step, stage));
        }
    }
    records
}

const GROWTHS: [u64; 2] = [700, 1300];

/// Falls as a power of the steps; each growth opens room for a little more, and changes nothing when it happens.
fn loss(step: u64) -> f64 {
    let gained: f64 = GROWTHS
        .iter()
        .map(|&at| 0.16 * (1.0 - (-(step.saturating_sub(at) as f64) / 180.0).exp()))
        .sum();
    1.1 + 4.45 * (1.0 + step as f64 / 12.0).powf(-0.62) - gained
}

fn train(step: u64, stage: usize, noise: &mut Noise) -> Record {
    let loss = loss(step) - 0.03 + 0.05 * noise.normal();
    let skipped = step == 420;
    let warm = (step as f64 / 100.0).min(1.0);
    let lr =
        6e-4 * warm * (0.55 + 0.45 * (step as f64 / STEPS as f64 * std::f64::consts::PI).cos());
    let tokens_per_s = [21_500.0, 15_800.0, 9_900.0][stage] * (1.0 + 0.04 * noise.normal());
    Record::Train(TrainRecord {
        step,
        tokens: step * TOKENS_PER_STEP,
        loss: if skipped { f64::NAN } else { loss },
        bits_per_byte: (!skipped).then_some(loss / std::f64::consts::LN_2),
        grad_norm: (0.4 + 3.0 * (-(step as f64) / 50.0).exp()) * (0.25 * noise.normal()).exp(),
        lr,
        stage,
        params: PARAMS[stage],
        flops: None,
        step_ms: TOKENS_PER_STEP as f64 / tokens_per_s * 1e3,
        tokens_per_s: Some(tokens_per_s),
        images_per_s: None,
        waiting: None,
        skipped,
    })
}

fn eval(step: u64, stage: usize) -> Record {
    let loss = loss(step);
    Record::Eval(EvalRecord {
        step,
        tokens: step * TOKENS_PER_STEP,
        stage,
        params: PARAMS[stage],
        flops: None,
        loss,
        bits_per_byte: Some(loss / std::f64::consts::LN_2),
        perplexity: Some(loss.exp()),
        eval_tokens: 65_536,
        top1: None,
        top5: None,
        ema_loss: None,
        ema_top1: None,
        ema_top5: None,
    })
}

fn grow(step: u64, stage: usize) -> Record {
    let [before, after] = [FFN_TOKENS[stage - 1], FFN_TOKENS[stage]];
    Record::Grow(GrowRecord {
        step,
        tokens: step * TOKENS_PER_STEP,
        stage,
        params_before: PARAMS[stage - 1],
        params_after: PARAMS[stage],
        summary: format!("+{} ffn", after - before),
        max_logit_diff: if stage == 1 { 0.0 } else { 4.8e-7 },
        sites: ["query", "key", "value", "output", "ffn"]
            .map(|name| SiteGrowth {
                name: name.to_owned(),
                tokens_before: before / if name == "ffn" { 1 } else { 4 },
                tokens_after: after / if name == "ffn" { 1 } else { 4 },
                most_before: None,
                most_after: None,
                params_before: before * 256,
                params_after: after * 256,
            })
            .into(),
        layers_before: 4,
        layers_after: 4,
    })
}

fn sample(step: u64, stage: usize) -> Record {
    let texts = [
        "th e ae oi\u{1b}[31m nt he\nan er t ou s<b>e</b>",
        "the water and the light was on the hill, and the wind",
        "the small boat left the harbour before dawn, and by noon the coast was a thin grey line behind it.\nNobody spoke.",
    ];
    Record::Sample(SampleRecord {
        step,
        tokens: step * TOKENS_PER_STEP,
        stage,
        prompt: "In the morning ".to_owned(),
        text: texts[stage].to_owned(),
    })
}

/// A small generator, so that every run of the example writes the same bytes.
struct Noise(u64);

impl Noise {
    /// About normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
