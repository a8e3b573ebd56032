//! The functions and constants of MPI that are used here, taken from a library at run time: of the standard ABI of MPI 5.0, or of
//! Open MPI 4 and 5. The functions are the same, and their handles are pointers in both; what differs are the predefined handles.

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

/// Handles of communicators, requests, types, operations: pointers in both ABIs, which are not dereferenced here.
pub type Handle = *mut c_void;

/// Longest texts of both, and what a function returns if it succeeds.
pub const MAX_LIBRARY_VERSION_STRING: usize = 8192;
pub const MAX_ERROR_STRING: usize = 512;
pub const SUCCESS: c_int = 0;
/// `MPI_IN_PLACE` of both.
pub const IN_PLACE: usize = 1;

/// Predefined handles and numbers, as words so that they can go to another thread.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    pub comm_world: usize,
    pub errors_return: usize,
    pub float: usize,
    pub double: usize,
    pub sum: usize,
    pub thread_serialized: c_int,
}

/// By the numbers that the standard fixes (MPI 5.0, appendix A).
const STANDARD: Constants = Constants {
    comm_world: 0x101,
    errors_return: 0x143,
    float: 0x210,
    double: 0x214,
    sum: 0x21,
    thread_serialized: 2048,
};

/// Which ABI a library has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// The ABI of the MPI standard.
    Standard,
    /// The ABI of Open MPI from 1.7 to 5: predefined handles are the addresses of objects in the library.
    OpenMpi,
}

impl Abi {
    /// The ABI of a library, by a symbol that only libraries with this ABI have.
    pub fn of(library: &Library) -> Option<Self> {
        let has = |name: &[u8]| {
            // SAFETY: the symbol is looked up and not used.
            unsafe { library.get::<*const c_void>(name) }.is_ok()
        };
        if has(b"MPI_Abi_get_version\0") {
            Some(Self::Standard)
        } else if has(b"ompi_mpi_comm_world\0") {
            Some(Self::OpenMpi)
        } else {
            None
        }
    }

    /// The predefined handles of a library with this ABI.
    pub fn constants(self, library: &Library, path: &Path) -> Result<Constants> {
        if self == Self::Standard {
            return Ok(STANDARD);
        }
        let address = |name: &'static str| {
            let symbol = format!("{name}\0");
            // SAFETY: only the address of the object is taken; `mpi.h` of Open MPI casts it to the handle.
            let found = unsafe { library.get::<*const c_void>(symbol.as_bytes()) };
            match found {
                // A symbol of this type is its address, which is the handle.
                Ok(found) => Ok(*found as usize),
                Err(error) => Err(Error::Library {
                    path: path.into(),
                    function: name,
                    reason: error.to_string(),
                }),
            }
        };
        Ok(Constants {
            comm_world: address("ompi_mpi_comm_world")?,
            errors_return: address("ompi_mpi_errors_return")?,
            float: address("ompi_mpi_float")?,
            double: address("ompi_mpi_double")?,
            sum: address("ompi_mpi_op_sum")?,
            thread_serialized: 2,
        })
    }
}

macro_rules! functions {
    ($($field:ident = $name:literal: ($($argument:ty),*);)*) => {
        /// Functions of a loaded library.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            /// Takes the functions from a library.
            pub fn of(library: &'static Library, path: &Path) -> Result<Self> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the standard gives the function of this name these parameters, and in both ABIs that
                        // [`super::find`] accepts handles are pointers.
                        let found = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                        let function = found.map_err(|error| Error::Library {
                            path: path.into(),
                            function: $name,
                            reason: error.to_string(),
                        })?;
                        *function
                    },)*
                })
            }
        }
    };
}

functions! {
    init_thread = "MPI_Init_thread": (*mut c_int, *mut c_void, c_int, *mut c_int);
    finalize = "MPI_Finalize": ();
    abort = "MPI_Abort": (Handle, c_int);
    comm_rank = "MPI_Comm_rank": (Handle, *mut c_int);
    comm_size = "MPI_Comm_size": (Handle, *mut c_int);
    comm_dup = "MPI_Comm_dup": (Handle, *mut Handle);
    comm_set_errhandler = "MPI_Comm_set_errhandler": (Handle, Handle);
    library_version = "MPI_Get_library_version": (*mut c_char, *mut c_int);
    error_string = "MPI_Error_string": (c_int, *mut c_char, *mut c_int);
    igatherv = "MPI_Igatherv": (*const c_void, c_int, Handle, *mut c_void, *const c_int, *const c_int, Handle, c_int, Handle, *mut Handle);
    ibcast = "MPI_Ibcast": (*mut c_void, c_int, Handle, c_int, Handle, *mut Handle);
    iallreduce = "MPI_Iallreduce": (*const c_void, *mut c_void, c_int, Handle, Handle, Handle, *mut Handle);
    isend = "MPI_Isend": (*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle);
    irecv = "MPI_Irecv": (*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle);
    test = "MPI_Test": (*mut Handle, *mut c_int, *mut c_void);
}
