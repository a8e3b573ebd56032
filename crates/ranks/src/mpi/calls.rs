//! The calls of MPI, one at a time.
//!
//! All calls are non-blocking, and operations that take time are polled. So a waiting thread can be told that a rank was lost, and
//! a second thread can drive the operations while the first one computes.

use super::abi::{self, Constants, Functions, Handle};
use crate::error::{Error, Result};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Communicators, requests: numbers here, so that they can go to another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

impl Id {
    fn handle(self) -> Handle {
        self.0 as Handle
    }
}

/// The functions, behind a lock: MPI is told that one thread calls it at a time.
pub struct Calls {
    functions: Mutex<Functions>,
    constants: Constants,
}

impl Calls {
    pub fn new(functions: Functions, constants: Constants) -> Self {
        Self {
            functions: Mutex::new(functions),
            constants,
        }
    }

    /// The communicator of all ranks.
    fn world(&self) -> Handle {
        self.constants.comm_world as Handle
    }

    fn lock(&self) -> MutexGuard<'_, Functions> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts MPI. To be called once in a process.
    pub fn init(&self) -> Result<()> {
        let f = self.lock();
        let mut provided = 0;
        let wanted = self.constants.thread_serialized;
        // SAFETY: the standard allows null for the arguments; `provided` is written.
        let code = unsafe { (f.init_thread)(null_mut(), null_mut(), wanted, &mut provided) };
        check(&f, "MPI_Init_thread", code)?;
        if provided < wanted {
            return Err(Error::Call {
                function: "MPI_Init_thread",
                reason: format!("calls from several threads are not possible (level {provided})"),
            });
        }
        let returned = self.constants.errors_return as Handle;
        // SAFETY: the handles are predefined. Errors are returned instead of ending the process.
        let code = unsafe { (f.comm_set_errhandler)(self.world(), returned) };
        check(&f, "MPI_Comm_set_errhandler", code)
    }

    /// Ends MPI in good order; waits for all ranks.
    pub fn finalize(&self) -> Result<()> {
        let f = self.lock();
        // SAFETY: no request is pending, and nothing is called after it.
        let code = unsafe { (f.finalize)() };
        check(&f, "MPI_Finalize", code)
    }

    /// Ends all ranks.
    pub fn abort(&self, exit_code: i32) {
        let f = self.lock();
        // SAFETY: the handle is predefined. It does not return if it succeeds.
        unsafe { (f.abort)(self.world(), exit_code) };
    }

    /// This rank, and the number of ranks.
    pub fn rank_and_world(&self) -> Result<(usize, usize)> {
        let f = self.lock();
        let (mut rank, mut world) = (0, 0);
        // SAFETY: both are written.
        let code = unsafe { (f.comm_rank)(self.world(), &mut rank) };
        check(&f, "MPI_Comm_rank", code)?;
        // SAFETY: as above.
        let code = unsafe { (f.comm_size)(self.world(), &mut world) };
        check(&f, "MPI_Comm_size", code)?;
        Ok((rank as usize, world as usize))
    }

    /// Another communicator of the same ranks, whose messages are separate.
    pub fn duplicate(&self) -> Result<Id> {
        let f = self.lock();
        let mut copy = null_mut();
        // SAFETY: `copy` is written; all ranks call this at the same point.
        let code = unsafe { (f.comm_dup)(self.world(), &mut copy) };
        check(&f, "MPI_Comm_dup", code)?;
        Ok(Id(copy as usize))
    }

    /// The library's name for itself.
    pub fn version(&self) -> String {
        let f = self.lock();
        let mut text = vec![0u8; abi::MAX_LIBRARY_VERSION_STRING];
        let mut len = 0;
        // SAFETY: the standard bounds the text by the length of `text`.
        let code = unsafe { (f.library_version)(text.as_mut_ptr().cast::<c_char>(), &mut len) };
        match code {
            0 => line(&text, len),
            _ => "an MPI without a name".into(),
        }
    }

    /// Begins to bring `send` of all ranks to `receive` of rank `root`, where rank `r` puts `counts[r]` numbers at `at[r]`.
    ///
    /// # Safety
    /// All four must stay where they are and untouched until the request is done; `receive`, `counts` and `at` are those of
    /// the root, whose parts lie within `receive`.
    pub unsafe fn gather(
        &self,
        root: usize,
        send: &[f32],
        receive: *mut f32,
        [counts, at]: [&[c_int]; 2],
    ) -> Result<Id> {
        let f = self.lock();
        let mut request = null_mut();
        // SAFETY: promised by the caller.
        let code = unsafe {
            (f.igatherv)(
                send.as_ptr().cast(),
                send.len() as c_int,
                self.constants.float as Handle,
                receive.cast(),
                counts.as_ptr(),
                at.as_ptr(),
                self.constants.float as Handle,
                root as c_int,
                self.world(),
                &mut request,
            )
        };
        check(&f, "MPI_Igatherv", code)?;
        Ok(Id(request as usize))
    }

    /// Begins to bring `numbers` of rank `root` to all ranks.
    ///
    /// # Safety
    /// They must stay where they are and untouched until the request is done.
    pub unsafe fn broadcast(&self, root: usize, numbers: &mut [f32]) -> Result<Id> {
        let f = self.lock();
        let mut request = null_mut();
        let (data, len) = (numbers.as_mut_ptr().cast(), numbers.len() as c_int);
        // SAFETY: promised by the caller.
        let code = unsafe {
            (f.ibcast)(
                data,
                len,
                self.constants.float as Handle,
                root as c_int,
                self.world(),
                &mut request,
            )
        };
        check(&f, "MPI_Ibcast", code)?;
        Ok(Id(request as usize))
    }

    /// Begins to replace numbers of type `T` by their sums over all ranks.
    ///
    /// # Safety
    /// As [`Calls::broadcast`].
    pub unsafe fn sum<T: Number>(&self, numbers: &mut [T]) -> Result<Id> {
        let f = self.lock();
        let mut request = null_mut();
        let (data, len) = (numbers.as_mut_ptr().cast(), numbers.len() as c_int);
        let in_place = abi::IN_PLACE as *const c_void;
        let (of, sum) = (
            T::of(&self.constants) as Handle,
            self.constants.sum as Handle,
        );
        // SAFETY: promised by the caller.
        let code =
            unsafe { (f.iallreduce)(in_place, data, len, of, sum, self.world(), &mut request) };
        check(&f, "MPI_Iallreduce", code)?;
        Ok(Id(request as usize))
    }

    /// Begins to send a number to a rank, in a communicator.
    ///
    /// # Safety
    /// As [`Calls::broadcast`].
    pub unsafe fn send(&self, number: &f64, to: usize, within: Id) -> Result<Id> {
        let f = self.lock();
        let mut request = null_mut();
        let data = std::ptr::from_ref(number).cast();
        // SAFETY: promised by the caller.
        let code = unsafe {
            (f.isend)(
                data,
                1,
                self.constants.double as Handle,
                to as c_int,
                0,
                within.handle(),
                &mut request,
            )
        };
        check(&f, "MPI_Isend", code)?;
        Ok(Id(request as usize))
    }

    /// Begins to receive a number from a rank, in a communicator.
    ///
    /// # Safety
    /// As [`Calls::broadcast`].
    pub unsafe fn receive(&self, number: &mut f64, from: usize, within: Id) -> Result<Id> {
        let f = self.lock();
        let mut request = null_mut();
        let data = std::ptr::from_mut(number).cast();
        // SAFETY: promised by the caller.
        let code = unsafe {
            (f.irecv)(
                data,
                1,
                self.constants.double as Handle,
                from as c_int,
                0,
                within.handle(),
                &mut request,
            )
        };
        check(&f, "MPI_Irecv", code)?;
        Ok(Id(request as usize))
    }

    /// Tests whether a request is done, after which it must not be tested again. The call also drives all other requests.
    pub fn is_done(&self, request: Id) -> Result<bool> {
        let f = self.lock();
        let (mut handle, mut flag) = (request.handle(), 0);
        // SAFETY: the request was begun here and is not done; a null status is ignored.
        let code = unsafe { (f.test)(&mut handle, &mut flag, null_mut()) };
        check(&f, "MPI_Test", code)?;
        Ok(flag != 0)
    }
}

/// Number types of MPI.
pub trait Number {
    /// The handle of the type.
    fn of(constants: &Constants) -> usize;
}

impl Number for f32 {
    fn of(constants: &Constants) -> usize {
        constants.float
    }
}

impl Number for f64 {
    fn of(constants: &Constants) -> usize {
        constants.double
    }
}

/// No counts and places, for ranks that receive nothing.
pub const NOTHING: [&[c_int]; 2] = [&[], &[]];

fn check(f: &Functions, function: &'static str, code: c_int) -> Result<()> {
    if code == abi::SUCCESS {
        return Ok(());
    }
    let mut text = vec![0u8; abi::MAX_ERROR_STRING];
    let mut len = 0;
    // SAFETY: the standard bounds the text by the length of `text`.
    let told = unsafe { (f.error_string)(code, text.as_mut_ptr().cast::<c_char>(), &mut len) };
    Err(Error::Call {
        function,
        reason: match told {
            0 => line(&text, len),
            _ => format!("error {code}"),
        },
    })
}

/// The first line of a text of MPI.
fn line(text: &[u8], len: c_int) -> String {
    let text = &text[..(len.max(0) as usize).min(text.len())];
    let text = String::from_utf8_lossy(text);
    text.lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('\0')
        .to_string()
}
