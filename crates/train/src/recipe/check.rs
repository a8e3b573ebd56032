//! What the types of the tables do not rule out.

use super::{ImagesTable, MAX_NEW_LAYERS, MomentsOn, Recipe, TokensOn};
use crate::error::{Error, Result};
use crate::schedule::Shape;
use tokenformer_core::config::Family;
use tokenformer_core::growth::Amount;
use tokenformer_core::optim::MomentFormat;

/// Most threads that decode images.
const MAX_WORKERS: usize = 256;

/// The further condition on numbers that the optimizer rounds to single precision.
const SINGLE: &str = "that single precision has: from about 1e-45 to 3e38";

/// Whether a number is above 0, and still is when the optimizer has rounded it to single precision.
fn is_positive(value: f64) -> bool {
    let rounded = value as f32;
    rounded > 0.0 && rounded.is_finite()
}

fn bad(key: &str, expected: &str, got: impl ToString, help: &str) -> Result<()> {
    Err(Error::Recipe {
        place: key.into(),
        problem: "not a possible value".into(),
        expected: expected.into(),
        got: got.to_string(),
        help: help.into(),
    })
}

impl Recipe {
    /// Checks what the types of the tables do not rule out.
    ///
    /// # Errors
    /// [`Error::Recipe`] for the first impossible value.
    pub fn validate(&self) -> Result<()> {
        self.check_train()?;
        self.check_ranks()?;
        self.check_records()?;
        self.check_optimizer()?;
        self.check_images()?;
        self.check_schedules()?;
        self.check_growths()?;
        self.check_planner()?;
        self.sampling().validate().map_err(Error::Core)
    }

    fn check_train(&self) -> Result<()> {
        let t = &self.train;
        let sizes = format!(
            "steps {}, batch {}, accumulate {}",
            t.steps, t.batch, t.accumulate
        );
        if t.steps == 0 || t.batch == 0 || t.accumulate == 0 {
            let expected = "steps, batch and accumulate of at least 1";
            return bad("train", expected, sizes, "see `config show`");
        }
        if t.steps > 1 << 40 || t.batch > 1 << 24 || t.accumulate > 1 << 24 {
            let expected = "sizes that a run can have";
            return bad("train", expected, sizes, "is this what you meant?");
        }
        if t.max_skipped == 0 {
            let help = "20 is the default; a large number lets a run go on for longer";
            return bad("train.max_skipped", "at least 1", 0, help);
        }
        if !(0.0..1.0).contains(&t.drop_path) {
            let help = "0.1 is usual for a large vision Transformer";
            return bad("train.drop_path", "from 0 to below 1", t.drop_path, help);
        }
        Ok(())
    }

    fn check_ranks(&self) -> Result<()> {
        let ranks = &self.ranks;
        if ranks.tokens == TokensOn::Every {
            return Ok(());
        }
        let help = "with ranks.tokens = \"divided\" the ranks share no micro-batches, and moments lie with their tokens";
        if ranks.moments == MomentsOn::Owner {
            return bad("ranks.moments", "every", "owner", help);
        }
        if ranks.reduce.is_fast() {
            return bad("ranks.reduce", "ordered", "fast", help);
        }
        Ok(())
    }

    fn check_records(&self) -> Result<()> {
        if self.log.every == 0 {
            return bad("log.every", "at least 1", 0, "10 is the default");
        }
        if self.checkpoint.keep == 0 {
            let help = "a run must be able to go on";
            return bad("checkpoint.keep", "at least 1", 0, help);
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<()> {
        let o = &self.optimizer;
        for (key, beta) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
            if !(0.0..1.0).contains(&(beta as f32)) {
                let expected = "from 0 to below 1 in single precision";
                return bad(key, expected, beta, "0.9 and 0.95 are usual");
            }
        }
        for (key, value) in [
            ("optimizer.eps", o.eps),
            ("optimizer.weight_decay", o.weight_decay),
            ("optimizer.clip", o.clip),
        ] {
            if value != 0.0 && !is_positive(value) {
                let expected = format!("a number from 0 on {SINGLE}");
                return bad(key, &expected, value, "see `config show`");
            }
        }
        let largest = MomentFormat::LARGEST_BETA2;
        if o.moments == MomentFormat::Bf16 && o.beta2 > largest {
            let expected = format!("at most {largest} with moments = \"bf16\"");
            let help = "its changes would be rounded away: use a smaller one, or moments = \"f32\"";
            return bad("optimizer.beta2", &expected, o.beta2, help);
        }
        if !(is_positive(o.layer_decay) && o.layer_decay <= 1.0) {
            let help = "0.65 is usual to fine-tune a vision Transformer; 1 is no decay";
            let expected = "above 0 and at most 1";
            return bad("optimizer.layer_decay", expected, o.layer_decay, help);
        }
        if !(0.0..1.0).contains(&self.ema.decay) {
            let expected = "from 0, which is no average, to below 1";
            let help = "0.9998 is usual for long runs, 0.99 for short ones";
            return bad("ema.decay", expected, self.ema.decay, help);
        }
        Ok(())
    }

    fn check_images(&self) -> Result<()> {
        if self.images.workers > MAX_WORKERS {
            let expected = format!("from 0 to {MAX_WORKERS}");
            let help = "one or two keep a small model busy";
            return bad("images.workers", &expected, self.images.workers, help);
        }
        if self.images != ImagesTable::default() {
            self.images.augment.check()?;
        }
        Ok(())
    }

    fn check_schedules(&self) -> Result<()> {
        let grown = self.grow.iter().enumerate().filter_map(|(i, event)| {
            let place = format!("grow[{i}].schedule");
            Some((place, event.schedule.as_ref()?))
        });
        let first = ("schedule".to_string(), &self.schedule);
        for (place, schedule) in std::iter::once(first).chain(grown) {
            if !is_positive(schedule.lr) {
                let expected = format!("above 0 {SINGLE}");
                let help = "1e-3 is usual for a small model";
                return bad(&format!("{place}.lr"), &expected, schedule.lr, help);
            }
            for (key, share) in [
                ("min_ratio", schedule.min_ratio),
                ("decay_share", schedule.decay_share),
            ] {
                if !(0.0..=1.0).contains(&share) {
                    let help = "see `config show`";
                    return bad(&format!("{place}.{key}"), "between 0 and 1", share, help);
                }
            }
        }
        Ok(())
    }

    fn check_planner(&self) -> Result<()> {
        let planner = &self.planner;
        if !(planner.confidence > 0.0 && planner.confidence < 1.0) {
            let help = "0.8 is the default";
            let expected = "a probability between 0 and 1";
            return bad("planner.confidence", expected, planner.confidence, help);
        }
        if planner.grow.is_empty() {
            return Ok(());
        }
        let steps = "give the steps of all growths in [[grow]] tables";
        if !self.model.input.is_tokens() || self.model.family != Family::Tokenformer {
            let got = match self.model.input.is_tokens() {
                true => "a plain Transformer",
                false => "a model of pictures",
            };
            return bad("planner.grow", "a TokenFormer for language", got, steps);
        }
        if !self.grow.is_empty() {
            let got = format!("{} [[grow]] beside it", self.grow.len());
            return bad("planner.grow", "all growths, or none", got, steps);
        }
        for growth in &planner.grow {
            if growth.freeze_old || growth.width != Amount::default() {
                let expected = "growths that the law knows: all of the model learns, at its width";
                return bad("planner.grow", expected, growth.summary(), steps);
            }
            if !growth.only_adds() {
                let help =
                    "write amounts as \"+N\": the model may have other sizes when the growth comes";
                return bad(
                    "planner.grow",
                    "growths that add something",
                    growth.summary(),
                    help,
                );
            }
        }
        if self.schedule.shape == Shape::Cosine {
            let expected = "\"wsd\" or \"constant\" beside [planner]";
            let help = "a law of losses needs a rate that stays as it is until the end is near";
            return bad("schedule.shape", expected, "\"cosine\"", help);
        }
        if self.eval.every == 0 || !self.eval.every.is_multiple_of(self.log.every) {
            let expected = format!("a multiple of log.every = {}", self.log.every);
            let help = "[planner] decides after each evaluation";
            return bad("eval.every", &expected, self.eval.every, help);
        }
        Ok(())
    }

    fn check_growths(&self) -> Result<()> {
        for pair in self.grow.windows(2) {
            let [first, second] = [pair[0].at_step, pair[1].at_step];
            if first >= second {
                let got = format!("at_step {first} then {second}");
                let help = "order the [[grow]] tables";
                return bad("grow.at_step", "growing step numbers", got, help);
            }
        }
        let last = self.train.steps - 1;
        for event in &self.grow {
            if event.at_step == 0 || event.at_step > last {
                let expected = format!("between 1 and train.steps - 1 = {last}");
                let help = "grow before the last step, so that the new tokens learn";
                return bad("grow.at_step", &expected, event.at_step, help);
            }
            if event.growth.layers > MAX_NEW_LAYERS {
                let expected = format!("at most {MAX_NEW_LAYERS}");
                let help = "is this the number you meant?";
                return bad("grow.layers", &expected, event.growth.layers, help);
            }
        }
        Ok(())
    }
}
