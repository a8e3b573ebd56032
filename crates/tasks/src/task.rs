//! The six tasks: from a row to a question.
//!
//! | task | split, rows | context | continuations | reported |
//! |---|---|---|---|---|
//! | `lambada_openai` | test, 5,153 | all but the last space-separated word | `" "` + that word | perplexity of the word, acc (greedy match) |
//! | `hellaswag` | validation, 10,042 | `activity: ctx_a Ctx_b`, cleaned | `" "` + cleaned ending, four | acc_norm |
//! | `piqa` | validation, 1,838 | `Question: goal\nAnswer:` | `" "` + solution, two | acc |
//! | `arc_easy`, `arc_challenge` | test, 2,376 and 1,172 | `Question: question\nAnswer:` | `" "` + choice, three to five | acc, acc_norm |
//! | `winogrande` | xl validation, 1,267 | per option: the sentence up to `_`, then the option | `" "` + the stripped rest, the same for both | acc |
//!
//! Rows come in several shapes, recognized by their keys: those of the data sets' authors, those of the Hugging Face
//! hub, which differ from them for ARC (`question.stem` and a list of `question.choices`), and a normalised one with
//! `gold`, which is cleaned already.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::python::{capitalize, strip};
use crate::rows::Row;

/// A zero-shot task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Task {
    LambadaOpenai,
    Hellaswag,
    Piqa,
    ArcEasy,
    ArcChallenge,
    Winogrande,
}

/// A context and what may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The text before.
    pub context: String,
    /// The text to be scored.
    pub continuation: String,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What to score: one pair per choice, a single one for LAMBADA.
    pub pairs: Vec<Pair>,
    /// The right choice.
    pub gold: usize,
    /// Code points of each choice, by which `acc_norm` divides; without the space put in front.
    pub lengths: Vec<usize>,
}

/// How a task's answers are converted to metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Likeliest choice; with or without `acc_norm`.
    Choice {
        /// Whether `acc_norm` means anything.
        has_norm: bool,
    },
    /// The single continuation is compared with the model's greedy output.
    Word,
}

impl Task {
    /// All tasks, in the order of the published tables.
    pub const ALL: [Self; 6] = [
        Self::LambadaOpenai,
        Self::Hellaswag,
        Self::Piqa,
        Self::ArcEasy,
        Self::ArcChallenge,
        Self::Winogrande,
    ];

    /// The name that lm-eval gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LambadaOpenai => "lambada_openai",
            Self::Hellaswag => "hellaswag",
            Self::Piqa => "piqa",
            Self::ArcEasy => "arc_easy",
            Self::ArcChallenge => "arc_challenge",
            Self::Winogrande => "winogrande",
        }
    }

    /// Reads `all` or names separated by commas; repeated ones count once.
    ///
    /// # Errors
    /// [`Error::UnknownTask`].
    ///
    /// ```
    /// use tokenformer_tasks::Task;
    ///
    /// assert_eq!(Task::parse_list("piqa, arc_easy")?, [Task::Piqa, Task::ArcEasy]);
    /// assert_eq!(Task::parse_list("all")?, Task::ALL);
    /// # Ok::<(), tokenformer_tasks::Error>(())
    /// ```
    pub fn parse_list(list: &str) -> Result<Vec<Self>> {
        if list.trim() == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut tasks = Vec::new();
        for name in list.split(',') {
            let task = name.trim().parse()?;
            if !tasks.contains(&task) {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// Questions in the split that is reported.
    pub fn rows(self) -> usize {
        match self {
            Self::LambadaOpenai => 5153,
            Self::Hellaswag => 10042,
            Self::Piqa => 1838,
            Self::ArcEasy => 2376,
            Self::ArcChallenge => 1172,
            Self::Winogrande => 1267,
        }
    }

    /// How its answers count.
    pub fn kind(self) -> Kind {
        match self {
            Self::LambadaOpenai => Kind::Word,
            Self::Winogrande => Kind::Choice { has_norm: false },
            _ => Kind::Choice { has_norm: true },
        }
    }

    /// The accuracy that published tables show.
    pub fn headline(self) -> &'static str {
        match self {
            Self::Hellaswag | Self::ArcChallenge => "acc_norm",
            _ => "acc",
        }
    }

    /// The question of a row.
    ///
    /// # Errors
    /// If keys are missing or have wrong values.
    pub fn question(self, row: &Row) -> Result<Question> {
        match self {
            Self::LambadaOpenai => lambada(row),
            Self::Hellaswag => hellaswag(row),
            Self::Piqa => piqa(row),
            Self::ArcEasy | Self::ArcChallenge => arc(row),
            Self::Winogrande => winogrande(row),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| Error::UnknownTask { name: name.into() })
    }
}

/// A question whose choices follow one context.
fn choices<S: AsRef<str>>(context: &str, texts: &[S], gold: usize) -> Question {
    let pair = |text: &S| Pair {
        context: context.to_owned(),
        continuation: format!(" {}", text.as_ref()),
    };
    Question {
        pairs: texts.iter().map(pair).collect(),
        gold,
        lengths: texts.iter().map(|t| t.as_ref().chars().count()).collect(),
    }
}

/// The normalised shape: `ctx`, `choices`, `gold`.
fn normalised(row: &Row) -> Result<Question> {
    let texts = row.texts("choices")?;
    let gold = row.choice("gold", 0, texts.len())?;
    Ok(choices(row.text("ctx")?, &texts, gold))
}

fn lambada(row: &Row) -> Result<Question> {
    let text = row.text("text")?;
    let (context, word) = text.rsplit_once(' ').unwrap_or(("", text));
    Ok(choices(context, &[word], 0))
}

fn hellaswag(row: &Row) -> Result<Question> {
    if !row.has("endings") {
        return normalised(row);
    }
    // The published rows have `ctx` too, which is both parts; rows from other sources may have only that.
    let mut context = match row.has("ctx_a") {
        true => format!("{} {}", row.text("ctx_a")?, capitalize(row.text("ctx_b")?)),
        false => row.text("ctx")?.to_owned(),
    };
    if row.has("activity_label") {
        context = format!("{}: {context}", row.text("activity_label")?);
    }
    let context = clean(&context);
    let endings: Vec<String> = row.texts("endings")?.into_iter().map(clean).collect();
    let gold = row.choice("label", 0, endings.len())?;
    Ok(choices(&context, &endings, gold))
}

/// HellaSwag's cleaning: marks in brackets are traces of WikiHow pages.
fn clean(text: &str) -> String {
    let text = strip(text).replace(" [title]", ". ");
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some((before, inside)) = rest.split_once('[') {
        kept.push_str(before);
        // As `\[.*?\]`, whose dot does not match the end of a line.
        let line = inside.split('\n').next().unwrap_or_default();
        rest = match line.split_once(']') {
            Some((mark, _)) => inside.get(mark.len() + 1..).unwrap_or_default(),
            None => {
                kept.push('[');
                inside
            }
        };
    }
    kept.push_str(rest);
    kept.replace("  ", " ")
}

fn piqa(row: &Row) -> Result<Question> {
    let context = format!("Question: {}\nAnswer:", row.text("goal")?);
    if row.has("sol1") {
        let texts = [row.text("sol1")?, row.text("sol2")?];
        return Ok(choices(&context, &texts, row.choice("label", 0, 2)?));
    }
    let texts = row.texts("choices")?;
    let gold = row.choice("gold", 0, texts.len())?;
    Ok(choices(&context, &texts, gold))
}

fn arc(row: &Row) -> Result<Question> {
    if !row.has("question") {
        return normalised(row);
    }
    let (question, texts, labels) = match row.is_object("question") {
        // As the authors publish it.
        true => (
            row.inner_text("question", "stem")?,
            row.listed_texts("question", "choices", "text")?,
            row.listed_texts("question", "choices", "label")?,
        ),
        false => (
            row.text("question")?,
            row.inner_texts("choices", "text")?,
            row.inner_texts("choices", "label")?,
        ),
    };
    let context = format!("Question: {question}\nAnswer:");
    let answer = row.text("answerKey")?;
    let gold = labels.iter().take(texts.len()).position(|&l| l == answer);
    let gold = gold
        .filter(|_| labels.len() == texts.len())
        .ok_or_else(|| {
            let got = serde_json::json!(format!("{answer} among {}", labels.join(", ")));
            row.wrong(
                "answerKey",
                "one label per choice, this among them",
                Some(&got),
            )
        })?;
    Ok(choices(&context, &texts, gold))
}

/// Partial scoring: the options are put into the context, and the rest of the sentence is scored.
fn winogrande(row: &Row) -> Result<Question> {
    if !row.has("sentence") {
        let contexts = row.texts("ctxs")?;
        let contexts: Vec<String> = contexts.into_iter().map(str::to_owned).collect();
        let gold = row.choice("gold", 0, contexts.len())?;
        return Ok(completed(contexts, row.text("cont")?, gold));
    }
    let sentence = row.text("sentence")?;
    let Some((before, after)) = sentence.split_once('_') else {
        let got = serde_json::json!(sentence);
        return Err(row.wrong("sentence", "a sentence with a \"_\"", Some(&got)));
    };
    let with = |key| -> Result<String> { Ok(format!("{before}{}", row.text(key)?)) };
    let contexts: Vec<String> = vec![with("option1")?, with("option2")?];
    let gold = row.choice("answer", 1, contexts.len())?;
    Ok(completed(contexts, after, gold))
}

/// A question whose choices are contexts of one continuation. It is stripped also where a normalised
/// row left white space from the sentence.
fn completed(contexts: Vec<String>, continuation: &str, gold: usize) -> Question {
    let continuation = format!(" {}", strip(continuation));
    let lengths = contexts.iter().map(|c| c.chars().count()).collect();
    let pair = |context| Pair {
        context,
        continuation: continuation.clone(),
    };
    Question {
        pairs: contexts.into_iter().map(pair).collect(),
        gold,
        lengths,
    }
}
