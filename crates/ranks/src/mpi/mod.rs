//! Ranks that are connected by MPI, whose library is loaded when the program runs.

mod abi;
mod calls;
mod find;
mod heart;
mod request;

pub use find::VARIABLE;
pub(crate) use find::in_path;

use crate::environment::{Environment, Launcher};
use crate::error::{Error, Result};
use abi::Functions;
use calls::{Calls, Id, NOTHING};
use heart::Heart;
use libloading::Library;
use request::{Buffers, Request};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokenformer_device::{Collective, DeviceError, Pending};

/// How to install it.
pub const INSTALL: &str = "install MPICH 4.3 or later, or Open MPI 4 or 5, for example by `pip install mpich` into a Python environment \
                           whose `bin` is in PATH; TOKENFORMER_MPI=/path/to/libmpi_abi.so.1 names a library elsewhere";

/// Most numbers of a message that a rank gathers or that is sent: counts are 32 bits in MPI.
const MAX_NUMBERS: usize = i32::MAX as usize;
/// Characters of a machine's name in messages.
const NAME: usize = 64;

/// What connects this process; MPI can be started only once in a process.
static CONNECTION: OnceLock<Connection> = OnceLock::new();

/// The connection of this process to the other ranks.
pub(crate) struct Connection {
    calls: Calls,
    rank: usize,
    world: usize,
    /// Ranks on this machine, if the launcher said so.
    here: Option<usize>,
    library: String,
    path: PathBuf,
    /// Names of the ranks in messages.
    names: OnceLock<Vec<String>>,
    /// Operations that were begun and are not done.
    in_flight: AtomicUsize,
    /// What is wrong, once a rank was lost.
    lost: OnceLock<String>,
    heart: Mutex<Option<Heart>>,
}

/// The ranks that MPI connects.
#[derive(Clone, Copy)]
pub struct Mpi {
    connection: &'static Connection,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connection { rank, world, .. } = self.connection;
        write!(f, "Mpi(rank {rank} of {world})")
    }
}

impl Mpi {
    /// Loads an MPI library and connects the ranks that a launcher has started. To be called once in a process.
    ///
    /// # Errors
    /// If there is no library with a known ABI, or it does not see the launcher's ranks.
    pub fn connect(found: &Environment) -> Result<Self> {
        let launcher = found.launcher.name();
        let loaded = find::load(|name| std::env::var(name).ok()).map_err(|got| Error::NoMpi {
            world: found.world,
            launcher,
            got,
            help: INSTALL.into(),
        })?;
        // It stays loaded until the process ends: MPI may leave threads and handlers behind.
        let library: &'static Library = Box::leak(Box::new(loaded.library));
        let constants = loaded.abi.constants(library, &loaded.path)?;
        let calls = Calls::new(Functions::of(library, &loaded.path)?, constants);
        let library = calls.version();
        calls.init()?;
        let (rank, world) = calls.rank_and_world()?;
        let expected = (found.rank, found.world);
        if (rank, world) != expected {
            return Err(Error::World {
                launcher,
                expected,
                got: (rank, world),
                library,
                help: advice(found.launcher),
            });
        }
        let beats = calls.duplicate()?;
        let connection = Connection {
            calls,
            rank,
            world,
            here: found.local_world,
            library,
            path: loaded.path,
            names: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            lost: OnceLock::new(),
            heart: Mutex::new(None),
        };
        let mut is_new = false;
        let connection = CONNECTION.get_or_init(|| {
            is_new = true;
            connection
        });
        if !is_new {
            return Err(Error::Call {
                function: "MPI_Init_thread",
                reason: "this process has been connected before".into(),
            });
        }
        let mpi = Self { connection };
        mpi.exchange_names()?;
        let mut heart = connection
            .heart
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *heart = Some(Heart::start(connection, beats));
        drop(heart);
        Ok(mpi)
    }

    /// The MPI library: its name and its file.
    pub fn describe(&self) -> String {
        let Connection { library, path, .. } = self.connection;
        format!("{library} ({})", path.display())
    }

    /// Lets every rank know the names of all.
    fn exchange_names(&self) -> Result<()> {
        let machine = machine_name();
        let own: String = machine.chars().filter(|c| !c.is_control()).collect();
        let own = format!("{own}, process {}", std::process::id());
        let mut slot: Vec<f32> = own.bytes().take(NAME).map(f32::from).collect();
        slot.resize(NAME, 0.0);
        let failed = |error: DeviceError| Error::Call {
            function: "the exchange of names",
            reason: error.to_string(),
        };
        let gathered = self.begin_gather(0, slot, &vec![NAME; self.world()]);
        let gathered = gathered.and_then(Pending::wait).map_err(failed)?;
        let bytes: Vec<u8> = gathered.iter().map(|&number| number as u8).collect();
        let bytes = self.broadcast_bytes(bytes).map_err(failed)?;
        let names = bytes.chunks(NAME).enumerate().map(|(rank, slot)| {
            let text = String::from_utf8_lossy(slot);
            format!("rank {rank} ({})", text.trim_end_matches('\0'))
        });
        // Set once, right after the connection was made.
        let _ = self.connection.names.set(names.collect());
        Ok(())
    }

    fn begin(
        &self,
        function: &'static str,
        buffers: Buffers,
        begin: Begin<'_>,
    ) -> device::Result<Box<dyn Pending>> {
        let request = Request::begin(self.connection, buffers, begin);
        match request {
            Ok(request) => Ok(Box::new(request)),
            Err(error) => Err(failed(function, error.to_string())),
        }
    }
}

use tokenformer_device as device;

/// Begins an operation on buffers that stay where they are until it is done.
type Begin<'a> = &'a dyn Fn(&Calls, &mut Buffers) -> Result<Id>;

/// The error of an operation on several ranks.
pub(crate) fn failed(operation: &str, reason: String) -> DeviceError {
    DeviceError::Failed {
        device: "MPI".into(),
        operation: operation.into(),
        reason,
    }
}

fn advice(launcher: Launcher) -> &'static str {
    match launcher {
        Launcher::Pmi => {
            "take the mpirun that belongs to this library, or name the library that belongs to mpirun with TOKENFORMER_MPI"
        }
        Launcher::OpenMpi => {
            "name the library that belongs to this mpirun with TOKENFORMER_MPI=/path/to/libmpi.so.40"
        }
        Launcher::Torch => "torchrun starts processes and no MPI: start them with mpirun",
        Launcher::Kubernetes => "start the ranks with mpirun, as an MPIJob does",
        Launcher::Slurm => "try srun --mpi=pmi2 or --mpi=pmix, or mpirun",
    }
}

#[cfg(unix)]
pub(crate) fn machine_name() -> String {
    let mut name = [0u8; 256];
    // SAFETY: at most `len - 1` bytes are written, so that the text ends with a zero.
    let code = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    match code {
        0 => String::from_utf8_lossy(&name[..end]).into_owned(),
        _ => "a machine without a name".into(),
    }
}

#[cfg(not(unix))]
pub(crate) fn machine_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "a machine without a name".into())
}

/// Checks that counts of a message fit into MPI's.
fn ensure_countable(function: &str, numbers: usize) -> device::Result<()> {
    match numbers > MAX_NUMBERS {
        true => Err(failed(
            function,
            format!("{numbers} numbers in a message, more than {MAX_NUMBERS}"),
        )),
        false => Ok(()),
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.connection.rank
    }

    fn world(&self) -> usize {
        self.connection.world
    }

    fn ranks_here(&self) -> usize {
        self.connection.here.unwrap_or(1)
    }

    fn name(&self, rank: usize) -> String {
        self.connection.name(rank)
    }

    fn begin_gather(
        &self,
        root: usize,
        numbers: Vec<f32>,
        lens: &[usize],
    ) -> device::Result<Box<dyn Pending>> {
        const FUNCTION: &str = "MPI_Igatherv";
        let total: usize = lens.iter().sum();
        ensure_countable(FUNCTION, total)?;
        if root >= self.world() || lens.len() != self.world() || lens[self.rank()] != numbers.len()
        {
            let got = format!("{} numbers, {lens:?} to rank {root}", numbers.len());
            return Err(failed(FUNCTION, got));
        }
        let is_root = root == self.rank();
        let buffers = match is_root {
            true => Buffers::receiving(numbers, lens),
            false => Buffers::sending(numbers),
        };
        self.begin(FUNCTION, buffers, &|calls, b| {
            let counts = if is_root {
                [&b.counts[..], &b.at[..]]
            } else {
                NOTHING
            };
            // SAFETY: the request owns the buffers until it is done; the parts are cut from `receive` by the same lengths,
            // and `send` has as many numbers as this rank's count.
            unsafe { calls.gather(root, &b.send, b.receive.as_mut_ptr(), counts) }
        })
    }

    fn begin_broadcast(&self, root: usize, numbers: Vec<f32>) -> device::Result<Box<dyn Pending>> {
        const FUNCTION: &str = "MPI_Ibcast";
        ensure_countable(FUNCTION, numbers.len())?;
        if root >= self.world() {
            return Err(failed(FUNCTION, format!("there is no rank {root}")));
        }
        self.begin(FUNCTION, Buffers::in_place(numbers), &|calls, b| {
            // SAFETY: the request owns the buffer until it is done.
            unsafe { calls.broadcast(root, &mut b.receive) }
        })
    }

    fn begin_all_reduce(&self, numbers: Vec<f32>) -> device::Result<Box<dyn Pending>> {
        const FUNCTION: &str = "MPI_Iallreduce";
        ensure_countable(FUNCTION, numbers.len())?;
        self.begin(FUNCTION, Buffers::in_place(numbers), &|calls, b| {
            // SAFETY: as above.
            unsafe { calls.sum(&mut b.receive) }
        })
    }

    fn all_reduce(&self, numbers: &mut [f64]) -> device::Result<()> {
        const FUNCTION: &str = "MPI_Iallreduce";
        ensure_countable(FUNCTION, numbers.len())?;
        let mut buffers = Buffers::sending(Vec::new());
        buffers.doubles = numbers.to_vec();
        let request = Request::begin(self.connection, buffers, |calls, b| {
            // SAFETY: as above.
            unsafe { calls.sum(&mut b.doubles) }
        });
        let request = request.map_err(|error| failed(FUNCTION, error.to_string()))?;
        numbers.copy_from_slice(&request.finish()?.doubles);
        Ok(())
    }
}

impl Connection {
    fn name(&self, rank: usize) -> String {
        let name = self.names.get().and_then(|names| names.get(rank));
        name.cloned().unwrap_or_else(|| format!("rank {rank}"))
    }
}

/// This rank of how many, if the process is connected.
pub fn connected() -> Option<Mpi> {
    CONNECTION.get().map(|connection| Mpi { connection })
}

/// Ends MPI in good order, if the process is connected: waits until all ranks have come here.
///
/// # Errors
/// If a rank was lost meanwhile.
pub fn finish() -> Result<()> {
    let Some(connection) = CONNECTION.get() else {
        return Ok(());
    };
    let heart = connection
        .heart
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(heart) = heart {
        heart.stop();
    }
    match connection.lost.get() {
        Some(reason) => Err(Error::Call {
            function: "the end of the job",
            reason: reason.clone(),
        }),
        None => connection.calls.finalize(),
    }
}

/// Ends all ranks with an exit code, if the process is connected. Does not return then.
pub fn abort(exit_code: i32) {
    if let Some(connection) = CONNECTION.get() {
        connection.abort(exit_code);
    }
}

impl Connection {
    /// Ends all ranks, and this process in any case.
    fn abort(&self, exit_code: i32) -> ! {
        const PATIENCE: Duration = Duration::from_secs(3);
        // The launcher may be behind a link that was cut, or another thread inside a call that does not return.
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            std::process::exit(exit_code);
        });
        self.calls.abort(exit_code);
        std::process::exit(exit_code)
    }
}
