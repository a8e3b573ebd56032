//! Compares copies of a tensor. Copies that differ are an error, because nothing says which of them is the model's.

use std::path::Path;

use crate::error::shown;
use crate::layout::{CHUNK_ELEMENTS, elements, index};
use crate::source::{Held, ReadBytes, Source};
use crate::weight_type::WeightType;
use crate::weights::Weights;
use crate::{Error, Result};

/// One of the places where a tensor is.
pub(crate) struct Place<'a> {
    pub(crate) source: &'a Source,
    pub(crate) name: &'a str,
    /// Index, from 0, among the files that have it.
    pub(crate) file: usize,
}

/// Returns an error if a tensor differs from `kept` by more than the rounding of the narrower type. Holds one of them
/// in memory.
pub(crate) fn expect_same(kept: &Place<'_>, copy: &Place<'_>, help: &'static str) -> Result<()> {
    let shape = |place: &Place<'_>| {
        let shape = place.source.shape_in(place.name, place.file);
        shape.unwrap_or_default().to_vec()
    };
    let (kept_shape, copy_shape) = (shape(kept), shape(copy));
    let differ = |at: String, expected: String, got: String| Error::Copies {
        path: copy.path().into(),
        name: copy.name.into(),
        kept: match (kept.name == copy.name, kept.path() == copy.path()) {
            (true, _) => format!("that in {}", kept.path().display()),
            (false, true) => shown(kept.name),
            (false, false) => format!("{} in {}", shown(kept.name), kept.path().display()),
        },
        at,
        expected,
        got,
        help,
    };
    if kept_shape != copy_shape {
        return Err(differ(
            "in their shapes".into(),
            format!("{kept_shape:?}"),
            format!("{copy_shape:?}"),
        ));
    }
    let round = match (kept.kind(), copy.kind()) {
        (Some(a), Some(b)) if a != b => a.narrower(b),
        _ => WeightType::F32,
    };
    let mut numbers = Vec::with_capacity(elements(&kept_shape) as usize);
    kept.for_each_chunk(&mut |chunk| {
        numbers.extend_from_slice(chunk);
        Ok(())
    })?;
    let mut at = 0;
    copy.for_each_chunk(&mut |chunk| {
        let pairs = numbers.iter().skip(at).zip(chunk);
        let is_other = |(&a, &b): (&f32, &f32)| {
            let (a, b) = (round.round(a), round.round(b));
            a != b && !(a.is_nan() && b.is_nan())
        };
        if let Some((i, (a, b))) = pairs.enumerate().find(|&(_, pair)| is_other(pair)) {
            return Err(differ(
                format!("at index {:?}", index(&kept_shape, at + i)),
                a.to_string(),
                b.to_string(),
            ));
        }
        at += chunk.len();
        Ok(())
    })
}

impl Place<'_> {
    fn kind(&self) -> Option<WeightType> {
        match self.source.held(self.name, self.file) {
            Some(Held::Weights(kind)) => Some(kind),
            _ => None,
        }
    }

    fn path(&self) -> &Path {
        self.source.file(self.name, self.file)
    }

    fn for_each_chunk(&self, take: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        (self.source).for_each_chunk_in(self.name, self.file, CHUNK_ELEMENTS, take)
    }
}

/// Compares the copies of tensors that occur in several files.
pub(crate) fn files(source: &Source) -> Result<()> {
    let source = match source {
        Source::Mapped(mapped) => mapped.inner(),
        source => source,
    };
    let mut read = ReadBytes::default();
    let is_repeated = |name: &&str| {
        source.files(name) > 1 && matches!(source.held(name, 0), Some(Held::Weights(_)))
    };
    for name in source.names().filter(is_repeated) {
        for file in 1..source.files(name) {
            let [kept, copy] = [0, file].map(|file| Place { source, name, file });
            let help = "the files do not belong together; copy them again";
            expect_same(&kept, &copy, help)?;
            read.add(source, name);
        }
    }
    Ok(())
}

/// Compares the 32-bit weights of a DeepSpeed folder with those of the module, and the module's with other copies.
pub(crate) fn deepspeed(weights: &Weights) -> Result<()> {
    let Weights::DeepSpeed(folder) = weights else {
        return Ok(());
    };
    const HELP: &str = "the files are of different steps or were mixed up; copy the checkpoint again, or give one without \
                        the files *_optim_states.pt to take the half-precision weights";
    let module = Source::open(&Weights::Module(folder.clone()))?;
    let mut read_of_module = ReadBytes::default();
    for other in [weights.clone(), Weights::Frozen(folder.clone())] {
        let other = Source::open(&other)?;
        let mut read_of_other = ReadBytes::default();
        for name in module.names() {
            let [kept, copy] = [&module, &other].map(|source| Place {
                source,
                name,
                file: 0,
            });
            if kept.kind().is_none() || copy.kind().is_none() {
                continue;
            }
            expect_same(&kept, &copy, HELP)?;
            read_of_module.add(&module, name);
            read_of_other.add(&other, name);
        }
    }
    Ok(())
}
