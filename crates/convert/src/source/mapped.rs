//! Tensors that are computed from those of another source while they are read.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Source;
use crate::layout::elements;
use crate::{Error, Result};

/// A part of a new tensor: consecutive rows.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Rows of `cols` columns of a tensor of the source, or of its transpose. A vector counts as a column.
    Rows {
        of: String,
        transposed: bool,
        cols: usize,
        rows: Range<usize>,
    },
    /// The same number repeated.
    Constant { value: f32, numbers: usize },
}

/// A tensor that is made of parts.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) parts: Vec<Part>,
    /// Whether the parts make up the transposed matrix.
    pub(crate) transposed: bool,
}

/// Weights under other names and in other shapes than a file has them. A tensor is held in memory while it is read.
pub(crate) struct Mapped {
    source: Box<Source>,
    made: BTreeMap<String, Made>,
}

impl Mapped {
    pub(crate) fn new(source: Source, made: Vec<Made>) -> Mapped {
        let made = made.into_iter().map(|tensor| (tensor.name.clone(), tensor));
        Mapped {
            source: Box::new(source),
            made: made.collect(),
        }
    }

    /// The source of the parts.
    pub(crate) fn inner(&self) -> &Source {
        &self.source
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.made.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.made.get(name)?.shape)
    }

    /// Calls a function with a tensor's elements in row-major order, at most `chunk` at a time.
    pub(crate) fn for_each_chunk(
        &self,
        name: &str,
        chunk: usize,
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let Some(made) = self.made.get(name) else {
            return Err(missing(&self.source, name));
        };
        self.make(made)?.chunks(chunk).try_for_each(take)
    }

    fn make(&self, made: &Made) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(elements(&made.shape) as usize);
        // The parts alternate between a few tensors; each of them is read only once.
        let mut read: Vec<Rows<'_>> = Vec::new();
        for part in &made.parts {
            let (of, transpose, cols, rows) = match part {
                Part::Rows {
                    of,
                    transposed,
                    cols,
                    rows,
                } => (&**of, *transposed, *cols, rows.clone()),
                &Part::Constant { value, numbers } => {
                    all.resize(all.len() + numbers, value);
                    continue;
                }
            };
            let is_it = |rows: &Rows<'_>| rows.of == of && rows.transposed == transpose;
            let at = match read.iter().position(is_it) {
                Some(at) => at,
                None => {
                    read.push(self.read(of, transpose, cols)?);
                    read.len() - 1
                }
            };
            let found = read
                .get(at)
                .and_then(|from| (from.numbers).get(rows.start * from.cols..rows.end * from.cols));
            all.extend_from_slice(found.ok_or_else(|| missing(&self.source, of))?);
        }
        Ok(match made.transposed {
            true => transposed(&all, made.shape.first().copied().unwrap_or(1)),
            false => all,
        })
    }

    fn read<'a>(&self, of: &'a str, transpose: bool, cols: usize) -> Result<Rows<'a>> {
        let numbers = self.source.whole(of)?;
        Ok(Rows {
            of,
            transposed: transpose,
            cols,
            numbers: match transpose {
                // The stored rows are the columns.
                true => transposed(&numbers, numbers.len() / cols.max(1)),
                false => numbers,
            },
        })
    }
}

/// A tensor of the source in memory, or its transpose.
struct Rows<'a> {
    of: &'a str,
    transposed: bool,
    cols: usize,
    numbers: Vec<f32>,
}

fn missing(source: &Source, name: &str) -> Error {
    tokenformer_store::Error::MissingTensor {
        path: source.path().into(),
        name: name.into(),
        near: Vec::new(),
        count: source.names().count(),
    }
    .into()
}

/// Transposes `[R, C]`, where `C` is `cols`, to `[C, R]`.
fn transposed(x: &[f32], cols: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(x.len());
    for col in 0..cols {
        all.extend(x.iter().skip(col).step_by(cols));
    }
    all
}
