//! The page and the table of an evaluation on pictures.

use super::eval_images::{Summary, quoted};
use super::stop_flag;
use crate::args::EvalArgs;
use crate::usage;
use std::path::Path;
use std::sync::Arc;
use tokenformer_core::{Device, WeightFormat};
use tokenformer_images::Split;
use tokenformer_images::dataset::Pictures;
use tokenformer_report::Page;
use tokenformer_train::insight::{Insight, TokenUse, Verdicts};
use tokenformer_train::{Classifier, Error, Result, files};

/// Tokens of each class in the table.
const LISTED: usize = 20;

/// An evaluation that is reported.
pub struct About<'a> {
    pub model_dir: &'a Path,
    pub device: &'a Arc<dyn Device>,
    pub classifier: &'a Classifier,
    pub pictures: &'a Pictures,
    pub part: Split,
    pub(super) summary: &'a Summary,
}

/// The files of the report.
pub struct Told {
    /// `report.html`
    pub page: String,
    /// `tokens.csv`
    pub tokens: String,
}

impl About<'_> {
    /// Makes the report.
    pub(super) fn report(&self, args: &EvalArgs, verdicts: &Verdicts) -> Result<Told> {
        if args.precision != WeightFormat::F32 {
            let help = "the report looks at single weights; leave --precision or --report out";
            return Err(usage(
                "--precision",
                "f32 with --report",
                "another one",
                help,
            ));
        }
        let weights = args.weights.into();
        let (dir, device) = (self.model_dir, self.device);
        // The weights that scored the pictures are packed, and cannot be looked at one by one.
        let model = match args.image_size {
            Some(size) => files::load_at_image_size(dir, device, weights, None, size)?,
            None => files::load_weights(dir, device, weights)?,
        };
        let labels = self.classifier.labels();
        let insight = Insight {
            model: &model,
            pictures: self.pictures,
            preprocess: &labels.preparation.input,
            classes: &labels.classes,
            what: format!(
                "What the {} weights say of the pictures of the {} split",
                args.weights.name(),
                self.part.name()
            ),
        };
        let told = insight.report_of(verdicts, stop_flag())?;
        let (report, used) = told.ok_or_else(|| Error::Stopped {
            what: "the report",
            expected: "pictures on which parameter tokens are watched".into(),
            got: "a signal to stop".into(),
            help: "run the command again for a result",
        })?;
        let lead = format!(
            "Top-1 {:.2} %, top-5 {:.2} %, loss {:.4} nats per image, on {} pictures.",
            self.summary.top1, self.summary.top5, self.summary.loss, self.summary.evaluated
        );
        let mut page = Page::new("TokenFormer evaluation", &dir.display().to_string(), &lead);
        page.pictures(&report);
        Ok(Told {
            page: page.finish("Made by tokenformer eval."),
            tokens: tokens_csv(&used, &labels.classes),
        })
    }
}

/// The most selective tokens of the last feed-forward network, class by class.
fn tokens_csv(used: &TokenUse, classes: &[String]) -> String {
    let mut rows = String::from("class,place,token,stage,selectivity,effect\n");
    for (class, name) in (0..).zip(classes) {
        for (place, found) in (1..).zip(used.selective(class, LISTED)) {
            rows += &format!(
                "{},{place},{},{},{:.6},{:.6e}\n",
                quoted(name),
                found.token,
                found.stage + 1,
                found.selectivity,
                found.effect
            );
        }
    }
    rows
}
