//! The functions and constants of the standard ABI of MPI 5.0 that are used here, taken from a library at run time.

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

/// Handles of communicators, requests, types, operations: pointers in the ABI that nobody dereferences.
pub type Handle = *mut c_void;

/// Predefined handles, by the numbers that the standard fixes (MPI 5.0, appendix A).
pub mod constants {
    use std::ffi::c_int;

    pub const COMM_WORLD: usize = 0x101;
    pub const ERRORS_RETURN: usize = 0x143;
    pub const FLOAT: usize = 0x210;
    pub const DOUBLE: usize = 0x214;
    pub const SUM: usize = 0x21;
    pub const IN_PLACE: usize = 1;
    pub const THREAD_SERIALIZED: c_int = 2048;
    pub const MAX_LIBRARY_VERSION_STRING: usize = 8192;
    pub const MAX_ERROR_STRING: usize = 512;
}

macro_rules! functions {
    ($($field:ident = $name:literal: ($($argument:ty),*);)*) => {
        /// Functions of a loaded library.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            /// Takes the functions from a library, which stays loaded until the process ends: MPI may leave threads and
            /// handlers behind.
            pub fn of(library: Library, path: &Path) -> Result<Self> {
                let library: &'static Library = Box::leak(Box::new(library));
                Ok(Self {
                    $($field: {
                        // SAFETY: the standard gives the function of this name these parameters, and a library that has
                        // `MPI_Abi_get_version` promises the standard's ABI; [`super::find`] checks that.
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
