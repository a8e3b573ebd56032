//! A run's stages and its training time, derived from the records.

use crate::records::{EvalRecord, GrowRecord, Record};

/// Sums up training time over records.
#[derive(Default)]
pub(crate) struct Clock {
    last_step: u64,
    elapsed_ms: f64,
}

impl Clock {
    /// Training milliseconds up to and including `record`; records come in file order.
    pub(crate) fn advance(&mut self, record: &Record) -> f64 {
        match record {
            Record::Start(r) => self.last_step = r.step,
            Record::Train(r) => {
                let steps = r.step.saturating_sub(self.last_step).max(1);
                if r.step_ms.is_finite() && r.step_ms >= 0.0 {
                    self.elapsed_ms += r.step_ms * steps as f64;
                }
                self.last_step = r.step;
            }
            _ => {}
        }
        self.elapsed_ms
    }
}

/// The part of a run between two growths.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// As in the records, counted from 0.
    pub index: usize,
    pub params: u64,
    pub start_step: u64,
    pub end_step: u64,
    pub start_tokens: u64,
    pub end_tokens: u64,
    /// The growth that began the stage.
    pub growth: Option<&'a GrowRecord>,
    pub first_eval: Option<&'a EvalRecord>,
    pub last_eval: Option<&'a EvalRecord>,
}

impl Stage<'_> {
    pub(crate) fn tokens(&self) -> u64 {
        self.end_tokens.saturating_sub(self.start_tokens)
    }
}

/// The stages of a run in the order in which they began.
pub(crate) fn stages(records: &[Record]) -> Vec<Stage<'_>> {
    let mut stages: Vec<Stage<'_>> = Vec::new();
    for record in records {
        match record {
            Record::Start(r) if stages.is_empty() => {
                stages.push(empty_stage(r.stage, r.params, r.step, r.tokens));
            }
            Record::Train(r) => {
                touch(&mut stages, r.stage, r.params, r.step, r.tokens);
            }
            Record::Eval(r) => {
                let stage = touch(&mut stages, r.stage, r.params, r.step, r.tokens);
                stage.first_eval.get_or_insert(r);
                stage.last_eval = Some(r);
            }
            Record::Grow(r) => {
                if stages.is_empty() {
                    let before = r.stage.saturating_sub(1);
                    touch(&mut stages, before, r.params_before, r.step, r.tokens);
                }
                stages.push(Stage {
                    growth: Some(r),
                    ..empty_stage(r.stage, r.params_after, r.step, r.tokens)
                });
            }
            Record::Start(_) | Record::Control(_) | Record::Sample(_) | Record::Note(_) => {}
        }
    }
    stages
}

/// The latest stage with this index, extended to `step` and `tokens`; a new one when there is none.
fn touch<'s, 'a>(
    stages: &'s mut Vec<Stage<'a>>,
    index: usize,
    params: u64,
    step: u64,
    tokens: u64,
) -> &'s mut Stage<'a> {
    let position = match stages.iter().rposition(|stage| stage.index == index) {
        Some(position) => position,
        None => {
            let (start_step, start_tokens) = stages
                .last()
                .map_or((0, 0), |last| (last.end_step, last.end_tokens));
            stages.push(empty_stage(index, params, start_step, start_tokens));
            stages.len() - 1
        }
    };
    let stage = &mut stages[position];
    stage.end_step = stage.end_step.max(step);
    stage.end_tokens = stage.end_tokens.max(tokens);
    stage
}

fn empty_stage<'a>(index: usize, params: u64, step: u64, tokens: u64) -> Stage<'a> {
    Stage {
        index,
        params,
        start_step: step,
        end_step: step,
        start_tokens: tokens,
        end_tokens: tokens,
        growth: None,
        first_eval: None,
        last_eval: None,
    }
}
