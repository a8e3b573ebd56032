//! Copies weights from one file to another with two threads: one reads and rounds, the other hashes and writes.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use tokenformer_store::TensorSource;

use crate::layout::{CHUNK_ELEMENTS, elements, index};
use crate::source::{ReadBytes, Source};
use crate::weight_type::WeightType;
use crate::{Error, Result};

/// A tensor to write.
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// Names of the source tensors whose rows it consists of, in this order.
    pub(crate) sources: Vec<String>,
}

impl Planned {
    pub(crate) fn bytes(&self, kind: WeightType) -> u64 {
        elements(&self.shape) * kind.size_bytes()
    }
}

/// Copies tensors.
pub(crate) struct Pipe<'a> {
    source: &'a Source,
    read: RefCell<ReadBytes>,
    kind: WeightType,
    /// Called with the number of bytes written since the last call.
    progress: RefCell<&'a mut dyn FnMut(u64)>,
    failed: RefCell<Option<Error>>,
}

impl<'a> Pipe<'a> {
    pub(crate) fn new(
        source: &'a Source,
        kind: WeightType,
        progress: &'a mut dyn FnMut(u64),
    ) -> Pipe<'a> {
        Pipe {
            source,
            read: RefCell::default(),
            kind,
            progress: RefCell::new(progress),
            failed: RefCell::new(None),
        }
    }

    /// Passes the tensors to `write` as sources that are read only when their turn comes.
    pub(crate) fn safetensors<T>(
        &self,
        planned: &[Planned],
        write: impl FnOnce(Vec<TensorSource<'_>>) -> tokenformer_store::Result<T>,
    ) -> Result<T> {
        type Stream<'s> = Box<dyn FnMut(&mut dyn Write) -> io::Result<()> + 's>;
        let mut streams: Vec<Stream<'_>> = planned
            .iter()
            .map(|tensor| Box::new(|to: &mut dyn Write| self.copy(tensor, to)) as Stream<'_>)
            .collect();
        let dtype = self.kind.of_store();
        let sources = planned.iter().zip(&mut streams).map(|(tensor, stream)| {
            TensorSource::stream(tensor.name.clone(), dtype, &tensor.shape, stream)
        });
        let written = write(sources.collect());
        // An error while reading explains more than the aborted write that follows from it.
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(written?),
        }
    }

    /// Copies the numbers of a tensor; a read error is stored for [`Pipe::safetensors`].
    fn copy(&self, tensor: &Planned, to: &mut dyn Write) -> io::Result<()> {
        self.each_source(tensor, |source, name| self.pass(source, name, to))
            .map_err(|error| match error {
                Failure::Write(error) => error,
                Failure::Read(error) => {
                    *self.failed.borrow_mut() = Some(error);
                    io::Error::other("the weights cannot be read")
                }
            })
    }

    fn each_source(
        &self,
        tensor: &Planned,
        mut run: impl FnMut(&Source, &str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for name in &tensor.sources {
            run(self.source, name)?;
            self.read.borrow_mut().add(self.source, name);
        }
        Ok(())
    }

    /// One thread reads and converts into buffers, which this thread writes and sends back.
    fn pass(&self, source: &Source, name: &str, to: &mut dyn Write) -> Result<(), Failure> {
        const BUFFERS: usize = 2;
        let kind = self.kind;
        thread::scope(|scope| {
            let (full, filled) = sync_channel::<Vec<u8>>(BUFFERS);
            let (empty, emptied) = channel::<Vec<u8>>();
            let reader = scope.spawn(move || {
                let mut done = 0;
                source.for_each_chunk(name, CHUNK_ELEMENTS, &mut |numbers| {
                    check(kind, source, name, done, numbers)?;
                    done += numbers.len();
                    let mut bytes = emptied.try_recv().unwrap_or_default();
                    bytes.clear();
                    kind.append(numbers, &mut bytes);
                    // The other thread stops receiving only when it cannot write, and it reports that itself.
                    let gone =
                        || Error::io("pass it on", source.path())(io::ErrorKind::BrokenPipe.into());
                    full.send(bytes).map_err(|_| gone())
                })
            });
            let written = filled.iter().try_for_each(|bytes| {
                to.write_all(&bytes)?;
                (self.progress.borrow_mut())(bytes.len() as u64);
                // When reading has ended, no one receives the empty buffer, so the error is ignored.
                let _ = empty.send(bytes);
                Ok(())
            });
            drop(filled);
            let read = reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map_err(Failure::Write)?;
            read.map_err(Failure::Read)
        })
    }

    /// Writes the tensors as a `torch.save` archive.
    pub(crate) fn torch(&self, planned: &[Planned], path: &std::path::Path) -> Result<()> {
        let specs: Vec<tokenformer_formats::TensorSpec> = planned
            .iter()
            .map(|tensor| tokenformer_formats::TensorSpec {
                name: tensor.name.clone(),
                dtype: self.kind.of_torch(),
                shape: tensor.shape.clone(),
            })
            .collect();
        tokenformer_formats::write_torch(path, &specs, |index, sink| {
            let Some(tensor) = planned.get(index) else {
                return Ok(());
            };
            let copied = self.each_source(tensor, |source, name| {
                let mut done = 0;
                let take = &mut |numbers: &[f32]| {
                    check(self.kind, source, name, done, numbers)?;
                    done += numbers.len();
                    sink.write(numbers)?;
                    (self.progress.borrow_mut())(numbers.len() as u64 * self.kind.size_bytes());
                    Ok(())
                };
                source
                    .for_each_chunk(name, CHUNK_ELEMENTS, take)
                    .map_err(Failure::Read)
            });
            copied.map_err(|error| match error {
                Failure::Read(error) => error,
                Failure::Write(error) => Error::io("write it", path)(error),
            })
        })
    }
}

enum Failure {
    Read(Error),
    Write(io::Error),
}

/// Returns an error for a number that is not finite or overflows the type. `done` elements of the tensor were checked
/// before.
fn check(
    kind: WeightType,
    source: &Source,
    name: &str,
    done: usize,
    numbers: &[f32],
) -> Result<()> {
    if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
        return Err(Error::NotFiniteWeight {
            path: source.path().into(),
            name: name.into(),
            index: index(source.shape(name).unwrap_or_default(), done + at),
            got: numbers.get(at).copied().unwrap_or(f32::NAN),
        });
    }
    match kind.overflow(numbers) {
        None => Ok(()),
        Some(number) => Err(Error::Damaged {
            path: source.path().into(),
            what: "a number is too large for the type",
            expected: format!("numbers that {} can hold", kind.name()),
            got: format!("{number:e} in {name}"),
            help: "export with --dtype bf16 or f32",
        }),
    }
}
