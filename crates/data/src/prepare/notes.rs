//! Notes on a dataset for its reader, in sentences.

use super::source::Opened;
use super::split::Split;
use super::{PrepareOptions, Read};
use crate::corpus::{CorpusStats, LeftOut};
use crate::tokenizer::{EOD_NAMES, Losses, Tokenizer, TokenizerSpec};

/// The facts from which the notes of a dataset made from text are written.
pub(super) struct Known<'a> {
    pub(super) options: &'a PrepareOptions,
    pub(super) documents: &'a Opened<'a>,
    pub(super) read: &'a Read,
    pub(super) split: &'a Split,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) losses: Losses,
}

/// Number of occurrences of an end-of-document name from which on they are assumed to be separators.
const MANY_ENDS: u64 = 3;
/// Number of skipped things that are listed by name.
const NAMES_TOLD: usize = 5;

impl Known<'_> {
    pub(super) fn all(&self) -> Vec<String> {
        let mut notes = of_split(self.split, self.options.valid_fraction);
        notes.extend(self.of_tokenizer());
        if let Opened::Paths(corpus) = self.documents {
            notes.extend(of_left_out(corpus.left_out()));
            notes.extend(of_files(&self.read.stats));
            notes.extend(self.of_markers(corpus.options().split_on.as_deref()));
        }
        notes
    }

    fn of_tokenizer(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let vocab_size = self.tokenizer.vocab_size();
        if self.tokenizer.eod().is_none() {
            notes.push(
                "The tokenizer has no end-of-document token, so documents run into each other."
                    .to_owned(),
            );
        }
        if let TokenizerSpec::TrainBpe { vocab_size: wanted } = self.options.tokenizer
            && vocab_size < wanted
        {
            notes.push(format!(
                "The text has only {vocab_size} of the {wanted} tokens that were asked for."
            ));
        }
        notes.extend(self.losses.notes("the text"));
        notes
    }

    fn of_markers(&self, split_on: Option<&str>) -> Vec<String> {
        if let Some(marker) = split_on {
            let count = self.read.stats.markers;
            return vec![match count {
                0 => format!("No text spells {marker}, so none was parted."),
                _ => format!("Texts were parted at {count} places that spell {marker}."),
            }];
        }
        let spelled = EOD_NAMES.iter().zip(self.read.spelled_ends);
        let many = spelled.filter(|&(_, count)| count >= MANY_ENDS);
        let note = |(name, count): (&&str, u64)| {
            format!(
                "The texts spell {name} {count} times, which stays text. If it ends documents there, part them with \
                 --split-on '{name}'."
            )
        };
        many.map(note).collect()
    }
}

/// Notes on how documents were split.
pub(super) fn of_split(split: &Split, wanted: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if split.is_cut() {
        notes.push("There is only one document, so its end was cut off for validation.".to_owned());
    }
    if let Some(odd) = split.odd_share() {
        let why = match split.is_cut() {
            true => "the text is too short for that.".to_owned(),
            false => format!(
                "documents are not cut, and the largest is {} of the text. Smaller documents, such as one per line of \
                 JSON Lines, allow the wanted share.",
                percent(odd.largest_share)
            ),
        };
        notes.push(format!(
            "Warning: {} of the text is held out ({} bytes), not {}: {why}",
            percent(odd.share),
            odd.bytes,
            percent(wanted),
        ));
    }
    notes
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.1.. => format!("{percent:.1} %"),
        _ => format!("{percent:.2e} %"),
    }
}

fn of_left_out(left_out: &[LeftOut]) -> Vec<String> {
    let note = |one: &LeftOut| format!("Left out: {} ({}).", one.path.display(), one.what);
    let mut notes: Vec<String> = left_out.iter().take(NAMES_TOLD).map(note).collect();
    if left_out.len() > NAMES_TOLD {
        let more = left_out.len() - NAMES_TOLD;
        notes.push(format!("Left out: {more} more of the kind."));
    }
    notes
}

fn of_files(read: &CorpusStats) -> Vec<String> {
    let mut notes = Vec::new();
    if read.repeats > 0 {
        notes.push(format!(
            "{} files or folders were met again by another name or link; each was read once.",
            read.repeats
        ));
    }
    if read.replaced_surrogates > 0 {
        notes.push(format!(
            "{} halves of surrogate pairs, which are no characters, became U+FFFD.",
            read.replaced_surrogates
        ));
    }
    if read.skipped_not_lines > 0 {
        let names = &read.first_not_lines;
        let more = read.skipped_not_lines - names.len() as u64;
        notes.push(format!(
            "Left out, because a key was given and they are not JSON Lines: {} files ({}{}).",
            read.skipped_not_lines,
            names.join(", "),
            match more {
                0 => String::new(),
                _ => format!(" and {more} more"),
            }
        ));
    }
    if read.whole_json_files > 0 {
        notes.push(format!(
            "{} files named .json are not JSON Lines and were read as they are; jq -c '.[]' makes lines of an array.",
            read.whole_json_files
        ));
    }
    notes
}
