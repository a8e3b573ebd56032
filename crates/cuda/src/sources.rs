//! The texts of the kernels, for the compiler at run time.

/// The code in front of every file of kernels.
pub const PRELUDE: &str = include_str!("../kernels/prelude.cuh");

/// A file of kernels, which is a module of its own.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file's name without `.cu`.
    pub name: &'static str,
    /// Its text, without the prelude.
    pub text: &'static str,
}

macro_rules! sources {
    ($($name:literal),+ $(,)?) => {
        &[$(Source {
            name: $name,
            text: include_str!(concat!("../kernels/", $name, ".cu")),
        }),+]
    };
}

/// All files of kernels.
pub const SOURCES: &[Source] = sources![
    "elementwise",
    "rows",
    "theta",
    "attention_rows",
    "flash_attention",
    "gemm",
    "loss",
    "optimizer",
];

impl Source {
    /// The names of the kernels in the file. A name stands directly after `KERNEL(` or `KERNEL_BOUNDED(`, also where
    /// a macro of the file makes several.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        let text = self.text;
        ["KERNEL(", "KERNEL_BOUNDED("]
            .into_iter()
            .flat_map(move |marker| {
                text.match_indices(marker).filter_map(move |(at, _)| {
                    let rest = &text[at + marker.len()..];
                    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
                    Some(rest[..end].trim())
                })
            })
    }
}
