//! Predicting the next token of a text.

use super::{Nats, Sample, Task};
use crate::continuation::encode_prompt;
use crate::error::{Error, Result};
use crate::evaluate::{EvalOptions, Evaluation, HeldOut, Protocol, ensure_held_out};
use crate::files::{self, TOKENIZER};
use crate::recipe::{Recipe, SampleTable};
use crate::sample::continue_text;
use crate::scored::ScoredBytes;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tokenformer_core::device::Collective;
use tokenformer_core::generate::Sampling;
use tokenformer_core::growth::{Birth, Growth, GrowthReport, Probe, grow};
use tokenformer_core::{Graph, Model, ModelConfig};
use tokenformer_data::{Batch, Dataset, Tokenizer, WindowSampler};

/// A dataset of tokens, and the settings of a recipe for it.
pub struct Language {
    dir: String,
    dataset: Dataset,
    config: ModelConfig,
    seed: u64,
    /// The tokenizer, as it is kept next to a model.
    files: [(&'static str, Vec<u8>); 1],
    train_bytes: ScoredBytes,
    held_out_bytes: ScoredBytes,
    eval: EvalOptions,
    samples: SampleTable,
    sampling: Sampling,
    batch: Batch,
    /// Losses of a micro-batch.
    nll: Vec<f32>,
}

impl Language {
    /// Opens the dataset of a recipe, and checks that both fit together.
    ///
    /// # Errors
    /// If there is no dataset, it is damaged, shorter than a window, or has more tokens than the model's vocabulary.
    pub fn open(recipe: &Recipe) -> Result<Self> {
        if recipe.data.dir.is_empty() {
            return Err(Error::Recipe {
                place: "data.dir".into(),
                problem: "no data".into(),
                expected: "a dataset folder".into(),
                got: "nothing".into(),
                help: "make one with `data prepare`, then set data.dir in the recipe or with --set"
                    .into(),
            });
        }
        if !recipe.model.input.is_tokens() {
            return Err(Error::Recipe {
                place: "data.dir".into(),
                problem: "the data are text, and the model reads images".into(),
                expected: "a dataset of pictures".into(),
                got: recipe.data.dir.clone(),
                help: "make one with `data prepare --images`, `data fetch` or `data make`, or choose a model of text".into(),
            });
        }
        let dir = Path::new(&recipe.data.dir);
        let dataset = Dataset::open(dir)?;
        ensure_held_out(&recipe.data.dir, dataset.valid.len())?;
        let config = recipe.model.build(dataset.tokenizer.vocab_size())?;
        let context = config.context;
        // A text that is too short is refused before anything is allocated or written.
        WindowSampler::new(&dataset.train, context, recipe.seed)?;
        check_prompt(&recipe.sample, &dataset.tokenizer, context)?;
        Ok(Self {
            dir: recipe.data.dir.clone(),
            seed: recipe.seed,
            files: [(TOKENIZER, files::load_tokenizer(dir)?.0)],
            train_bytes: ScoredBytes::new(&dataset.tokenizer, &dataset.train),
            held_out_bytes: ScoredBytes::new(&dataset.tokenizer, &dataset.valid),
            eval: EvalOptions {
                protocol: Protocol::Chunked,
                context: context.min(dataset.valid.len().saturating_sub(1)),
                batch: recipe.train.batch,
                max_tokens: recipe.eval.tokens,
            },
            samples: recipe.sample.clone(),
            sampling: recipe.sampling(),
            batch: Batch::new(recipe.train.batch, context),
            nll: Vec::new(),
            dataset,
            config,
        })
    }

    /// Tokens on which a growth is verified: the beginning of the held-out text.
    fn probe(&self, context: usize) -> Result<Vec<u32>> {
        let mut probe = vec![0; self.dataset.valid.len().min(context)];
        self.dataset.valid.read(0, &mut probe)?;
        Ok(probe)
    }
}

/// Returns an error for a prompt of the samples that does not fit, before the first step instead of after it.
fn check_prompt(sample: &SampleTable, tokenizer: &Tokenizer, context: usize) -> Result<()> {
    let (prompt, _) = encode_prompt(tokenizer, &sample.prompt)?;
    if sample.tokens == 0 || prompt.len() <= context {
        return Ok(());
    }
    Err(Error::Recipe {
        place: "sample.prompt".into(),
        problem: "the prompt is longer than the context".into(),
        expected: format!("at most {context} tokens"),
        got: prompt.len().to_string(),
        help: "shorten it, or set sample.tokens = 0 for no samples".into(),
    })
}

impl Task for Language {
    fn identity(&self) -> String {
        self.dataset.train.hash()
    }

    fn measured_on(&self) -> String {
        let most = self.eval.max_tokens;
        format!("{most} of {}", self.dataset.valid.hash())
    }

    fn describe(&self) -> Vec<(String, String)> {
        vec![
            ("data".into(), self.dir.clone()),
            ("tokenizer".into(), self.dataset.tokenizer.describe()),
        ]
    }

    fn notes(&self) -> &[String] {
        &self.dataset.summary.notes
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn files(&self) -> &[(&'static str, Vec<u8>)] {
        &self.files
    }

    fn batch(&self) -> u64 {
        self.batch.batch as u64
    }

    fn targets_per_window(&self) -> u64 {
        self.batch.context as u64
    }

    fn fill(&mut self, first: u64) -> Result<()> {
        let sampler = WindowSampler::new(&self.dataset.train, self.batch.context, self.seed)?;
        Ok(sampler.fill(first, &mut self.batch)?)
    }

    fn loss<'m>(&mut self, model: &'m Model, g: &mut Graph<'m>, weight: f32) -> Result<Nats> {
        let Batch {
            inputs,
            targets,
            batch,
            ..
        } = &self.batch;
        model.loss_into(g, inputs, targets, *batch, weight, &mut self.nll)?;
        Ok(Nats {
            sum: self.nll.iter().map(|&x| f64::from(x)).sum(),
            bytes: self.train_bytes.of(inputs, targets),
        })
    }

    fn evaluate(
        &self,
        model: &Model,
        stop: &AtomicBool,
        ranks: &dyn Collective,
    ) -> Result<Option<Evaluation>> {
        let held_out = HeldOut {
            text: &self.dataset.valid,
            bytes: &self.held_out_bytes,
        };
        held_out.evaluate_on_ranks(model, self.eval, stop, |_| {}, ranks)
    }

    fn sample(&self, model: &Model, stop: &AtomicBool) -> Result<Option<Vec<Sample>>> {
        let SampleTable { prompt, tokens, .. } = &self.samples;
        if *tokens == 0 {
            return Ok(Some(Vec::new()));
        }
        let (tokenizer, sampling) = (&self.dataset.tokenizer, self.sampling.clone());
        let text = continue_text(model, tokenizer, prompt, *tokens, sampling, stop)?;
        Ok(text.map(|text| {
            vec![Sample {
                prompt: prompt.clone(),
                text,
            }]
        }))
    }

    fn grow(&self, model: &mut Model, growth: &Growth, birth: Birth) -> Result<GrowthReport> {
        let probe = self.probe(model.context())?;
        Ok(grow(model, growth, birth, Probe::text(&probe))?)
    }
}
