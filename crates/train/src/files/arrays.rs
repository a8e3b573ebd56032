//! Named arrays on their way to a file: from a device, or from the rank that keeps them.

use crate::error::Result;
use std::collections::BTreeMap;
use std::io::Write;
use tokenformer_core::MESSAGE;
use tokenformer_core::device::{Buffer, Collective, Device, DeviceError};
use tokenformer_store::{DirWriter, Dtype, TensorSource};

/// Numbers that are read from a device at a time.
pub(crate) const CHUNK: usize = 4096;

fn stream(device: &dyn Device, buffer: &Buffer, to: &mut dyn Write) -> std::io::Result<()> {
    let (mut host, mut bytes) = ([0.0f32; CHUNK], [0u8; CHUNK * 4]);
    for start in (0..buffer.len()).step_by(CHUNK) {
        let chunk = &mut host[..CHUNK.min(buffer.len() - start)];
        device
            .read_part(buffer, start, chunk)
            .map_err(std::io::Error::other)?;
        for (to, x) in bytes.chunks_exact_mut(4).zip(chunk.iter()) {
            to.copy_from_slice(&x.to_le_bytes());
        }
        to.write_all(&bytes[..chunk.len() * 4])?;
    }
    Ok(())
}

/// Where the numbers of an array are.
pub(super) enum Array<'a> {
    Here(&'a Buffer),
    Ranks(Sharded<'a>),
}

/// An array that one rank keeps.
pub(super) struct Sharded<'a> {
    pub(super) ranks: &'a dyn Collective,
    pub(super) device: &'a dyn Device,
    pub(super) owner: usize,
    pub(super) len: usize,
    /// On the owner.
    pub(super) buffer: &'a Buffer,
}

impl Sharded<'_> {
    /// Brings the array to rank 0, in parts; the ranks do this at the same time.
    pub(super) fn each_chunk(
        &self,
        take: &mut dyn FnMut(&[f32]) -> std::io::Result<()>,
    ) -> tokenformer_core::device::Result<()> {
        let (rank, world) = (self.ranks.rank(), self.ranks.world());
        for start in (0..self.len).step_by(MESSAGE) {
            let len = MESSAGE.min(self.len - start);
            let mut numbers = Vec::new();
            if rank == self.owner {
                numbers.resize(len, 0.0);
                self.device.read_part(self.buffer, start, &mut numbers)?;
            }
            if self.owner != 0 {
                let lens: Vec<usize> = (0..world)
                    .map(|of| if of == self.owner { len } else { 0 })
                    .collect();
                numbers = self.ranks.begin_gather(0, numbers, &lens)?.wait()?;
            }
            if rank == 0 {
                take(&numbers).map_err(|error| DeviceError::Failed {
                    device: "the checkpoint".into(),
                    operation: "writing moments".into(),
                    reason: error.to_string(),
                })?;
            }
        }
        Ok(())
    }

    fn stream(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let mut write = |numbers: &[f32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            to.write_all(&bytes)
        };
        self.each_chunk(&mut write).map_err(std::io::Error::other)
    }
}

/// Reads an array as [`stream`] does.
pub(super) fn read_whole(device: &dyn Device, buffer: &Buffer) -> Result<()> {
    let mut host = [0.0f32; CHUNK];
    for start in (0..buffer.len()).step_by(CHUNK) {
        device.read_part(buffer, start, &mut host[..CHUNK.min(buffer.len() - start)])?;
    }
    Ok(())
}

/// Writes named arrays as a safetensors file.
pub(super) fn write_arrays(
    to: &mut DirWriter,
    file: &str,
    device: &dyn Device,
    buffers: &[(String, Vec<usize>, Array<'_>)],
) -> Result<()> {
    type Source<'a> = Box<dyn FnMut(&mut dyn Write) -> std::io::Result<()> + 'a>;
    let mut sources: Vec<Source<'_>> = (buffers.iter())
        .map(|(_, _, buffer)| {
            let source: Source<'_> = Box::new(move |to: &mut dyn Write| match buffer {
                Array::Here(buffer) => stream(device, buffer, to),
                Array::Ranks(sharded) => sharded.stream(to),
            });
            source
        })
        .collect();
    let tensors = buffers
        .iter()
        .zip(&mut sources)
        .map(|((name, shape, _), source)| {
            TensorSource::stream(name.clone(), Dtype::F32, shape, source)
        });
    to.write_tensors(file, &BTreeMap::new(), tensors)?;
    Ok(())
}
