//! Small records for tests.
#![allow(dead_code)] // each test file uses its part

use tokenformer_report::{
    ControlRecord, EvalRecord, GrowRecord, NoteRecord, Record, ReportInput, SampleRecord,
    SiteGrowth, StartRecord, TrainRecord,
};

pub fn train(step: u64, loss: f64) -> Record {
    Record::Train(TrainRecord {
        step,
        tokens: step * 64,
        loss,
        bits_per_byte: Some(loss / std::f64::consts::LN_2),
        grad_norm: 0.5,
        lr: 1e-3,
        stage: 0,
        params: 12_800,
        flops: None,
        step_ms: 20.0,
        tokens_per_s: Some(3200.0),
        images_per_s: None,
        waiting: None,
        skipped: false,
    })
}

pub fn eval(step: u64, stage: usize, loss: f64) -> Record {
    Record::Eval(EvalRecord {
        step,
        tokens: step * 64,
        stage,
        params: 12_800,
        flops: None,
        loss,
        bits_per_byte: None,
        perplexity: Some(loss.exp()),
        eval_tokens: 1024,
        top1: None,
        top5: None,
        ema_loss: None,
        ema_top1: None,
        ema_top5: None,
    })
}

pub fn grow(step: u64, stage: usize) -> Record {
    Record::Grow(GrowRecord {
        step,
        tokens: step * 64,
        stage,
        params_before: 12_800,
        params_after: 25_600,
        summary: "+512 ffn".to_owned(),
        max_logit_diff: 0.0,
        sites: vec![SiteGrowth {
            name: "ffn".to_owned(),
            tokens_before: 512,
            tokens_after: 1024,
            most_before: None,
            most_after: None,
            params_before: 4096,
            params_after: 8192,
        }],
        layers_before: 2,
        layers_after: 2,
    })
}

pub fn control(step: u64, stage: usize, loss: f64) -> Record {
    Record::Control(ControlRecord { step, loss, stage })
}

pub fn sample(step: u64, prompt: &str, text: &str) -> Record {
    Record::Sample(SampleRecord {
        step,
        tokens: step * 64,
        stage: 0,
        prompt: prompt.to_owned(),
        text: text.to_owned(),
    })
}

pub fn start(step: u64, stage: usize) -> Record {
    Record::Start(StartRecord {
        step,
        tokens: step * 64,
        stage,
        params: 12_800,
        flops: 1e9,
    })
}

pub fn note(step: u64, text: &str) -> Record {
    Record::Note(NoteRecord {
        step,
        text: text.to_owned(),
    })
}

pub fn every_kind() -> Vec<Record> {
    vec![
        start(0, 0),
        eval(0, 0, 5.5),
        train(1, 5.25),
        train(2, 0.1 + 0.2),
        sample(2, "a\n\"b\"", "c\u{2028}\u{0}é"),
        control(3, 1, 5.125),
        grow(2, 1),
        eval(2, 1, 5.0),
        note(3, "interrupted"),
    ]
}

pub fn input<'a>(title: &'a str, records: &'a [Record]) -> ReportInput<'a> {
    ReportInput {
        title,
        records,
        config_toml: "",
        environment: &[],
        notes: &[],
        pictures: None,
    }
}

/// The records of a short run on pictures that keeps an average of its weights.
pub fn of_images() -> Vec<Record> {
    let train = |step| match train(step, 2.0) {
        Record::Train(r) => Record::Train(TrainRecord {
            bits_per_byte: None,
            tokens_per_s: None,
            images_per_s: Some(1500.0),
            waiting: Some(0.25),
            ..r
        }),
        other => other,
    };
    let eval = |step, top1| match eval(step, 0, 1.5) {
        Record::Eval(r) => Record::Eval(EvalRecord {
            perplexity: None,
            top1: Some(top1),
            top5: Some(0.875),
            ema_loss: Some(1.25),
            ema_top1: Some(0.625),
            ema_top5: Some(0.9375),
            ..r
        }),
        other => other,
    };
    vec![eval(0, 0.125), train(1), train(2), eval(2, 0.5)]
}
