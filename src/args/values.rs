//! Parsers of values that several flags take, or that have no parser in their own crate.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::ops::RangeInclusive;
use tokenformer_convert::WeightType;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Fill, Moments, NewBlocks, Rate};
use tokenformer_core::{Precision, WeightFormat};
use tokenformer_images::Storage;
use tokenformer_train::schedule::DecayShape;

/// A parser of the names in `values`, each with what it means to people and to the program.
fn one_of<T: Copy + Send + Sync + 'static>(
    values: &'static [(&'static str, &'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let shown = |(name, help, _): &(&'static str, &'static str, T)| {
        PossibleValue::new(*name).help((!help.is_empty()).then_some(*help))
    };
    PossibleValuesParser::new(values.iter().map(shown)).try_map(|name| {
        let found = values.iter().find(|(known, ..)| *known == name);
        found
            .map(|&(.., value)| value)
            .ok_or("not one of the names")
    })
}

/// A precision of training as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainingPrecision {
    Named(Precision),
    /// The faster one, which has yet to be measured.
    Auto,
}

/// The precision of training.
pub fn training_precision() -> impl TypedValueParser<Value = TrainingPrecision> {
    one_of(&[
        (
            "f32",
            "Nothing is rounded: the reference, and the same bits on every machine",
            TrainingPrecision::Named(Precision::F32),
        ),
        (
            "bf16",
            "Factors of products and kept activations in bfloat16, sums and parameters in f32",
            TrainingPrecision::Named(Precision::Bf16),
        ),
        (
            "auto",
            "The faster one on this processor, which is measured; `doctor` tells the result",
            TrainingPrecision::Auto,
        ),
    ])
}

/// Where a dataset of pictures keeps their pixels.
pub fn storage() -> impl TypedValueParser<Value = Storage> {
    one_of(&[
        ("packed", "Decoded, in the dataset", Storage::Packed),
        (
            "indexed",
            "In their files, which stay where they are",
            Storage::Indexed,
        ),
    ])
}

/// Height and width in pixels as `N` or `HxW`.
pub fn image_size(text: &str) -> Result<[usize; 2], String> {
    let sides: Vec<Option<usize>> = text.split('x').map(|n| n.trim().parse().ok()).collect();
    match sides[..] {
        [Some(side)] => Ok([side, side]),
        [Some(height), Some(width)] => Ok([height, width]),
        _ => Err(
            "expected pixels of a side, such as 32, or of height and width, such as 32x48".into(),
        ),
    }
}

/// Red, green and blue as `R,G,B`.
pub fn color(text: &str) -> Result<[u8; 3], String> {
    let numbers: Result<Vec<u8>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "expected three numbers from 0 to 255, such as 255,255,255".into())
}

/// What weights are kept as in inference.
pub fn weight_format() -> impl TypedValueParser<Value = WeightFormat> {
    one_of(&[
        ("f32", "32-bit floats", WeightFormat::F32),
        ("bf16", "bfloat16: half the bytes", WeightFormat::Bf16),
        (
            "int8",
            "8-bit integers with scales: a quarter of the bytes",
            WeightFormat::Int8,
        ),
    ])
}

/// What exported weights are stored as.
pub fn weight_type() -> impl TypedValueParser<Value = WeightType> {
    one_of(&[
        ("f32", "", WeightType::F32),
        ("f16", "", WeightType::F16),
        ("bf16", "", WeightType::BF16),
    ])
}

/// How the numbers of new tokens start.
pub fn fill() -> impl TypedValueParser<Value = Fill> {
    one_of(&[
        ("zero", "", Fill::Zero),
        ("random", "As in a fresh model", Fill::Random),
        ("matched", "Random, of the old ones' size", Fill::Matched),
        (
            "scores",
            "Keys only: random, with scores of the old ones' size",
            Fill::Scores,
        ),
    ])
}

/// What new blocks start from.
pub fn new_blocks() -> impl TypedValueParser<Value = NewBlocks> {
    one_of(&[
        ("zero", "They add nothing at first", NewBlocks::Zero),
        (
            "copy",
            "Copies of the blocks from the first on",
            NewBlocks::Copy,
        ),
        (
            "interpose",
            "Each a copy of the block before it",
            NewBlocks::Interpose,
        ),
        ("last", "Copies of the last block", NewBlocks::Last),
        ("fresh", "Random, as in a fresh model", NewBlocks::Fresh),
    ])
}

/// The learning rate of new arrays.
pub fn rate() -> impl TypedValueParser<Value = Rate> {
    one_of(&[
        (
            "slots",
            "Lower the more is new, so that one step moves no more",
            Rate::Slots,
        ),
        ("full", "The usual one", Rate::Full),
    ])
}

/// What happens to moments.
pub fn moments() -> impl TypedValueParser<Value = Moments> {
    one_of(&[
        ("kept", "They go on", Moments::Kept),
        ("reset", "They start from zero again", Moments::Reset),
    ])
}

/// The amount of a layer: NAME=+N or NAME==N.
pub fn site(text: &str) -> Result<(String, Amount), String> {
    let (name, amount) = (text.split_once('='))
        .ok_or_else(|| format!("\"{text}\" is not NAME=+N, such as blocks.0.ffn=+64"))?;
    Ok((name.into(), amount.parse()?))
}

/// The shape of a decay.
pub fn decay_shape() -> impl TypedValueParser<Value = DecayShape> {
    one_of(&[
        ("linear", "", DecayShape::Linear),
        ("cosine", "Half a cosine", DecayShape::Cosine),
        ("sqrt", "1 - sqrt: fast at first", DecayShape::Sqrt),
    ])
}

/// What the norm of a grown site spans.
pub fn norm_span() -> impl TypedValueParser<Value = NormSpan> {
    one_of(&[
        ("joint", "All tokens share one norm", NormSpan::Joint),
        (
            "segment",
            "Old tokens and new ones have a norm each",
            NormSpan::Segment,
        ),
    ])
}

/// Reads a whole number of a range, and says which range it is.
fn number<T: TryFrom<u64>>(text: &str, range: RangeInclusive<u64>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let number = number.and_then(|number: u64| T::try_from(number).ok());
    let (first, last) = range.into_inner();
    number.ok_or_else(|| format!("expected a whole number from {first} to {last}"))
}

/// A number of things.
pub fn count(text: &str) -> Result<usize, String> {
    number(text, 0..=usize::MAX as u64)
}

/// A number of things of which there has to be one.
pub fn count_from_one(text: &str) -> Result<usize, String> {
    number(text, 1..=usize::MAX as u64)
}

/// Any whole number.
pub fn whole(text: &str) -> Result<u64, String> {
    number(text, 0..=u64::MAX)
}

/// A seed that a recipe can hold: the numbers of TOML are signed.
pub fn recipe_seed(text: &str) -> Result<u64, String> {
    number(text, 0..=i64::MAX as u64)
}

/// A number of at least one thing.
pub fn at_least_one(text: &str) -> Result<u64, String> {
    number(text, 1..=u64::MAX)
}

/// A number above 0, also as `1e15`.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = (text.parse()).map_err(|_| "expected a number, such as 1e15".to_string())?;
    match number.is_finite() && number > 0.0 {
        true => Ok(number),
        false => Err("expected a number above 0".into()),
    }
}

/// A factor of something that gets larger.
pub fn above_one(text: &str) -> Result<f64, String> {
    match above_zero(text)? {
        number if number > 1.0 => Ok(number),
        _ => Err("expected a number above 1".into()),
    }
}

/// Whether ranks work together.
pub fn ranks() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["auto", "off"]).map(|text| text == "auto")
}
