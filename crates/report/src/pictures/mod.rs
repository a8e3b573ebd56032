//! What a model said of pictures, and what its parameter tokens did: sections of a report.

mod figures;
mod html;
mod png;

pub use html::sections;

/// A classification of known pictures, as a report shows it. Classes are indices of `classes`.
#[derive(Debug, Clone, Default)]
pub struct PictureReport {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Which pictures, and which weights, in a sentence.
    pub what: String,
    /// By class.
    pub scores: Vec<ClassRow>,
    /// How often a class (first) was taken for another, or for itself.
    pub confusions: Vec<(u32, u32, u64)>,
    /// How far probabilities can be trusted.
    pub calibration: Calibration,
    /// Pictures in groups.
    pub groups: Vec<PictureGroup>,
    /// Pictures, and where attention looked.
    pub rollout: Vec<[Shown; 2]>,
    /// What the parameter tokens of each site did; empty for a plain Transformer.
    pub sites: Vec<SiteRow>,
    /// The most selective tokens of the last feed-forward network, class by class.
    pub tokens: Vec<ClassTokens>,
    /// Pictures that the parameter tokens were watched on.
    pub watched: usize,
}

/// A class in the table of classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassRow {
    /// Pictures of the class.
    pub images: u64,
    /// Pictures that were predicted to be of this class.
    pub told: u64,
    /// Share of those that do belong to it.
    pub precision: f64,
    /// Share of its pictures that were recognised.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// Confidence compared with what was right.
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    /// Intervals of confidence that have pictures.
    pub bins: Vec<ConfidenceBin>,
    /// Expected calibration error, 0 to 1.
    pub error: f64,
    /// The divisor of the logits with the least loss on these pictures, if one from 1/16 to 16 has it.
    pub temperature: Option<Temperature>,
}

/// A divisor of the logits that was fitted to pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// The divisor.
    pub divisor: f64,
    /// Pictures that it was fitted to: all, or some that are spread evenly over them.
    pub pictures: usize,
    /// Expected calibration error of these pictures, without the divisor and with it.
    pub errors: [f64; 2],
}

/// Pictures of like confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfidenceBin {
    /// How many.
    pub images: u64,
    /// Mean probability of what was said.
    pub confidence: f64,
    /// Share that was right.
    pub right: f64,
}

/// A picture as it is shown.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// A PNG file.
    pub png: Vec<u8>,
    /// Lines below it.
    pub lines: Vec<String>,
    /// Its tooltip.
    pub title: String,
}

/// Pictures under a heading.
#[derive(Debug, Clone, Default)]
pub struct PictureGroup {
    /// Heading.
    pub heading: String,
    /// The pictures.
    pub pictures: Vec<Shown>,
}

/// The parameter tokens of a site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRow {
    /// Block and layer.
    pub name: String,
    /// Parameter tokens.
    pub tokens: usize,
    /// Those that do next to nothing.
    pub dead: usize,
    /// Share of the output's energy by stage of birth; one entry without a growth.
    pub energy: Vec<f64>,
    /// Tokens by stage of birth.
    pub by_stage: Vec<usize>,
}

/// The tokens that one class uses more than the others.
#[derive(Debug, Clone, Default)]
pub struct ClassTokens {
    /// The class.
    pub class: u32,
    /// The most selective first.
    pub tokens: Vec<TokenRow>,
}

/// A selective token.
#[derive(Debug, Clone, Default)]
pub struct TokenRow {
    /// Its number in the site.
    pub token: usize,
    /// Stage of birth, counted from 0.
    pub stage: u32,
    /// Its mean firing on the class over its mean on all pictures.
    pub selectivity: f64,
    /// The pictures that fire it most.
    pub pictures: Vec<Shown>,
}
