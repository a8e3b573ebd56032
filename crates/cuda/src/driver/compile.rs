//! Kernels from their text to machine code: NVRTC, and a cache on disk.
//!
//! A file of the cache is named by the file of kernels, the architecture and the hash of everything that the code
//! depends on; it begins with the hash of the code, so that a damaged file is compiled again. It appears whole, or not
//! at all, and only with code that the driver has loaded; code that it no longer loads is compiled again.

use super::error::OpenError;
use super::find::{Version, compiler_version};
use crate::sources::{PRELUDE, Source};
use cudarc::nvrtc;
use std::ffi::{CString, c_int};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokenformer_base::files::{publish, read_small, stage};

/// Machine code (or PTX, which the driver compiles on), and the compiler's log.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the driver loads.
    pub code: Vec<u8>,
    /// What the compiler said.
    pub log: String,
}

/// Options of the compiler, in addition to the architecture.
const OPTIONS: [&str; 1] = ["--std=c++17"];
/// Larger files in the cache are not the program's.
const MAX_CODE_BYTES: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"TFCUBIN1";

/// Compiles a file of kernels for a GPU: to machine code if the compiler knows its architecture, otherwise to PTX of
/// the newest architecture that it knows. `extra` options come last.
///
/// # Errors
/// [`OpenError::NoCompiler`], or [`OpenError::Compiler`] with the compiler's log.
pub fn compile(
    source: &Source,
    capability: Version,
    extra: &[&str],
) -> Result<Compiled, OpenError> {
    if compiler_version().is_none() {
        return Err(OpenError::NoCompiler);
    }
    let known = known_architectures();
    let wanted = capability.0 * 10 + capability.1;
    let architecture = match known.iter().filter(|known| **known <= wanted).max() {
        Some(newest) if *newest < wanted => format!("compute_{newest}"),
        _ => format!("sm_{wanted}"),
    };
    let failed = |reason: String| OpenError::Compiler {
        file: source.name.into(),
        architecture: architecture.clone(),
        reason,
    };
    let program = Program::new(source).map_err(failed)?;
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(
        OPTIONS
            .iter()
            .chain(extra)
            .map(|option| String::from(*option)),
    );
    // SAFETY: the program lives.
    let result = unsafe { nvrtc::result::compile_program(program.handle, &options) };
    let log = program.log();
    match result {
        Err(error) => Err(failed(format!("{error}\n{log}"))),
        Ok(()) => {
            let code = program.code(architecture.starts_with("sm_"));
            Ok(Compiled {
                code: code.map_err(failed)?,
                log,
            })
        }
    }
}

/// The architectures that the compiler knows.
fn known_architectures() -> Vec<c_int> {
    let mut count = 0;
    // SAFETY: the library is there, and writes one number.
    if unsafe { nvrtc::sys::nvrtcGetNumSupportedArchs(&mut count) }
        .result()
        .is_err()
    {
        return Vec::new();
    }
    let mut all = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: it writes as many numbers as it said.
    match unsafe { nvrtc::sys::nvrtcGetSupportedArchs(all.as_mut_ptr()) }.result() {
        Ok(()) => all,
        Err(_) => Vec::new(),
    }
}

/// A program of the compiler's, destroyed when it is dropped.
struct Program {
    handle: nvrtc::sys::nvrtcProgram,
    /// The compiler may refer to the text.
    _text: [CString; 2],
}

impl Program {
    fn new(source: &Source) -> Result<Self, String> {
        let text = CString::new(format!("{PRELUDE}\n{}", source.text));
        let name = CString::new(format!("{}.cu", source.name));
        let (Ok(text), Ok(name)) = (text, name) else {
            return Err("the text contains a zero".into());
        };
        let handle = nvrtc::result::create_program(&text, Some(&name));
        Ok(Self {
            handle: handle.map_err(|error| error.to_string())?,
            _text: [text, name],
        })
    }

    fn log(&self) -> String {
        // SAFETY: the program lives.
        let log = unsafe { nvrtc::result::get_program_log(self.handle) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
        String::from_utf8_lossy(&bytes)
            .trim_end_matches('\0')
            .to_string()
    }

    /// The machine code, or the PTX.
    fn code(&self, machine: bool) -> Result<Vec<u8>, String> {
        let text = |error: nvrtc::result::NvrtcError| error.to_string();
        if !machine {
            // SAFETY: the program lives, and was compiled.
            let ptx = unsafe { nvrtc::result::get_ptx(self.handle) }.map_err(text)?;
            return Ok(ptx.into_iter().map(|c| c as u8).collect());
        }
        let mut size = 0;
        // SAFETY: the program lives, and was compiled; the code has as many bytes as the compiler says.
        unsafe {
            let result = nvrtc::sys::nvrtcGetCUBINSize(self.handle, &mut size);
            result.result().map_err(text)?;
            let mut code = vec![0u8; size];
            let result = nvrtc::sys::nvrtcGetCUBIN(self.handle, code.as_mut_ptr().cast());
            result.result().map_err(text)?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created and not destroyed. A failure leaves memory behind, and nothing can be done about it.
        let _ = unsafe { nvrtc::result::destroy_program(self.handle) };
    }
}

/// Code on disk.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's cache, `$XDG_CACHE_HOME/tokenformer/cuda` or `~/.cache/tokenformer/cuda`. Without a home nothing is
    /// cached.
    pub fn of_user() -> Self {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Self {
            folder: base.map(|base| base.join("tokenformer").join("cuda")),
        }
    }

    /// A cache in a folder, which need not exist.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: Some(folder.into()),
        }
    }

    /// The file for a file of kernels. The name does not contain the compiler's version: the code of an older compiler
    /// is as good, and is used where there is no compiler.
    fn path(&self, source: &Source, capability: Version) -> Option<PathBuf> {
        let mut hasher = blake3::Hasher::new();
        for part in [PRELUDE, source.text, env!("CARGO_PKG_VERSION")]
            .iter()
            .chain(&OPTIONS)
        {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hasher.finalize().to_hex();
        let Version(major, minor) = capability;
        let name = format!("{}-sm_{major}{minor}-{}.cubin", source.name, &hash[..32]);
        Some(self.folder.as_ref()?.join(name))
    }

    /// What `load` makes of the code of a file of kernels, which is compiled if it is not in the cache, or if `load` does not
    /// accept what is there; `load` says why.
    ///
    /// # Errors
    /// The errors of [`compile`], and [`OpenError::Module`] if `load` does not accept new code. What goes wrong with the cache is
    /// no error: the code is then compiled in every run.
    pub fn load<T>(
        &self,
        source: &Source,
        capability: Version,
        load: impl FnMut(&[u8]) -> Result<T, String>,
    ) -> Result<T, OpenError> {
        let compile = || Ok(compile(source, capability, &[])?.code);
        self.load_or(source, capability, load, compile)
    }

    fn load_or<T>(
        &self,
        source: &Source,
        capability: Version,
        mut load: impl FnMut(&[u8]) -> Result<T, String>,
        compile: impl FnOnce() -> Result<Vec<u8>, OpenError>,
    ) -> Result<T, OpenError> {
        let path = self.path(source, capability);
        let refused = match path.as_deref().and_then(|path| Some((path, read(path)?))) {
            None => None,
            Some((path, code)) => match load(&code) {
                Ok(loaded) => return Ok(loaded),
                Err(reason) => Some((path, reason)),
            },
        };
        let code = compile().map_err(|error| match (error, &refused) {
            // Without a compiler, the refused file is what the user has to repair.
            (OpenError::NoCompiler, Some((path, reason))) => OpenError::Module {
                file: path.display().to_string(),
                reason: format!("{reason}; and without NVRTC it cannot be compiled again"),
            },
            (error, _) => error,
        })?;
        let loaded = load(&code).map_err(|reason| OpenError::Module {
            file: format!("{}.cu", source.name),
            reason,
        })?;
        if let Some(path) = &path {
            // A full or read-only disk costs time in the next run, nothing else.
            let _ = write(path, &code);
        }
        Ok(loaded)
    }
}

/// The code of a file, if it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = read_small(path, MAX_CODE_BYTES).ok()??;
    let start = MAGIC.len() + blake3::OUT_LEN;
    let (head, code) = bytes.split_at_checked(start)?;
    let whole = head.starts_with(MAGIC) && head[MAGIC.len()..] == *blake3::hash(code).as_bytes();
    whole.then(|| bytes.split_off(start))
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = tokenformer_base::files::parent(path);
    std::fs::create_dir_all(folder)?;
    let mut staged = stage(folder, "cubin")?;
    staged.write_all(MAGIC)?;
    staged.write_all(blake3::hash(code).as_bytes())?;
    staged.write_all(code)?;
    publish(staged, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const SOURCE: Source = Source {
        name: "some",
        text: "KERNEL(some, ()) {}",
    };

    /// Asks the cache for code with a driver that accepts everything; also returns whether the code was compiled.
    fn ask(cache: &Cache, source: &Source, capability: Version, code: &[u8]) -> (Vec<u8>, bool) {
        let compiled = Cell::new(false);
        let compile = || {
            compiled.set(true);
            Ok(code.to_vec())
        };
        let load = |code: &[u8]| Ok(code.to_vec());
        let result = cache.load_or(source, capability, load, compile);
        (result.unwrap(), compiled.get())
    }

    /// As [`ask`], where the driver refuses code that begins with "new".
    fn ask_old_driver(
        cache: &Cache,
        compile: impl FnOnce() -> Result<Vec<u8>, OpenError>,
    ) -> Result<Vec<u8>, OpenError> {
        let load = |code: &[u8]| match code.starts_with(b"new") {
            true => Err("unsupported".to_string()),
            false => Ok(code.to_vec()),
        };
        cache.load_or(&SOURCE, Version(9, 0), load, compile)
    }

    #[test]
    fn code_that_the_driver_refuses_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let path = cache.path(&SOURCE, Version(9, 0)).unwrap();
        let error = ask_old_driver(&cache, || Ok(b"new".to_vec())).unwrap_err();
        assert!(
            error.to_string().contains("some.cu: unsupported"),
            "{error}"
        );
        assert!(!path.exists());
        // A compiler that fits the driver is found.
        assert_eq!(
            ask_old_driver(&cache, || Ok(b"old".to_vec())).unwrap(),
            b"old"
        );
        assert_eq!(read(&path).unwrap(), b"old");
    }

    #[test]
    fn kept_code_that_the_driver_refuses_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let path = cache.path(&SOURCE, Version(9, 0)).unwrap();
        write(&path, b"new").unwrap();
        let error = ask_old_driver(&cache, || Err(OpenError::NoCompiler)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(
            text.contains("unsupported") && text.contains("help:"),
            "{text}"
        );
        assert_eq!(
            ask_old_driver(&cache, || Ok(b"old".to_vec())).unwrap(),
            b"old"
        );
        assert_eq!(read(&path).unwrap(), b"old");
    }

    #[test]
    fn code_is_compiled_once_for_an_architecture_and_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("not/yet"));
        let (old, new) = (Version(8, 0), Version(9, 0));
        assert_eq!(ask(&cache, &SOURCE, new, b"one"), (b"one".to_vec(), true));
        assert_eq!(ask(&cache, &SOURCE, new, b"two"), (b"one".to_vec(), false));
        assert_eq!(ask(&cache, &SOURCE, old, b"two"), (b"two".to_vec(), true));
        let changed = Source {
            text: "KERNEL(some, ()) { }",
            ..SOURCE
        };
        assert_eq!(
            ask(&cache, &changed, new, b"three"),
            (b"three".to_vec(), true)
        );
    }

    #[test]
    fn damaged_files_are_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        ask(&cache, &SOURCE, Version(9, 0), b"machine code");
        let path = cache.path(&SOURCE, Version(9, 0)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_none(), "the first {cut} bytes");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path).is_none(), "byte {cut} changed");
        }
        assert_eq!(
            ask(&cache, &SOURCE, Version(9, 0), b"again"),
            (b"again".to_vec(), true)
        );
        assert_eq!(read(&path).unwrap(), b"again");
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let cache = Cache::at(&file.join("below"));
        for _ in 0..2 {
            assert_eq!(
                ask(&cache, &SOURCE, Version(9, 0), b"x"),
                (b"x".to_vec(), true)
            );
        }
    }
}
