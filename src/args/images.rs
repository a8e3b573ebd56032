//! Flags of `data` that are about pictures.

use super::values;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tokenformer_images::Storage;

// Beside --input, clap does not miss the --images that these flags require, because both exclude each other: so the flags exclude
// --input, too.
/// Pictures instead of text, in `data prepare`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pictures")]
pub struct ImageArgs {
    /// Pictures: a folder of class folders (or of train, val, test with such), IDX files, or binary CIFAR files.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["input", "tokenizer", "text_key", "split_on"])]
    pub images: Option<PathBuf>,
    /// Pictures to validate on, if they lie elsewhere, of the same classes.
    #[arg(
        long,
        value_name = "PATH",
        requires = "images",
        conflicts_with = "input"
    )]
    pub valid_images: Option<PathBuf>,
    /// Pictures to test on, if they lie elsewhere, of the same classes.
    #[arg(
        long,
        value_name = "PATH",
        requires = "images",
        conflicts_with = "input"
    )]
    pub test_images: Option<PathBuf>,
    /// A text file with the name of a class per line, in the order of their numbers; folders of other classes are left out
    /// [default: the folders of the training pictures in byte order; others are an error].
    #[arg(
        long,
        value_name = "FILE",
        requires = "images",
        conflicts_with = "input"
    )]
    pub class_map: Option<PathBuf>,
    /// Keep the pixels in the dataset, or only where the files are [default: packed up to 128 x 128].
    #[arg(long, value_name = "packed|indexed", requires = "images", conflicts_with = "input", value_parser = values::storage())]
    pub storage: Option<Storage>,
    /// Reduce larger pictures to this short side, in pixels.
    #[arg(long, value_name = "N", requires = "images", conflicts_with = "input", value_parser = values::count)]
    pub resize: Option<usize>,
    /// Make all pictures grey.
    #[arg(long, requires = "images", conflicts_with = "input")]
    pub grey: bool,
    /// The colour behind transparent pixels [default: 255,255,255].
    #[arg(long, value_name = "R,G,B", requires = "images", conflicts_with = "input", value_parser = values::color)]
    pub background: Option<[u8; 3]>,
    /// Leave pictures as they are stored and ignore their EXIF orientation.
    #[arg(long, requires = "images", conflicts_with = "input")]
    pub as_stored: bool,
    /// Take JPEG files that end early, with grey for what is missing.
    #[arg(long, requires = "images", conflicts_with = "input")]
    pub lenient: bool,
    /// Share of the pictures that may be unreadable; all are listed [default: 0.01].
    #[arg(
        long,
        value_name = "SHARE",
        requires = "images",
        conflicts_with = "input"
    )]
    pub max_unreadable: Option<f64>,
}

const MAKE_EXAMPLES: &str = "\
Example:
  tokenformer data make fractals --classes 20 --size 32 --out data/fractals";

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MakeWhat {
    /// Coloured fractals, a shape for each class.
    Fractals,
}

#[derive(Debug, Args)]
#[command(after_help = MAKE_EXAMPLES)]
pub struct MakeArgs {
    /// What to make.
    pub what: MakeWhat,
    /// Dataset folder to make.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = values::count)]
    pub classes: usize,
    /// Training pictures of each class, some of which validate.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = values::count)]
    pub per_class: usize,
    /// Test pictures of each class.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    pub test_per_class: usize,
    /// Width and height in pixels.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = values::count)]
    pub size: usize,
    /// Share of the training pictures that is held out for validation.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub valid: f64,
    /// Decides the shapes, the pictures and the split.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = values::whole)]
    pub seed: u64,
    /// Replace an older dataset in the folder.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}
