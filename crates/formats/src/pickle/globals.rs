//! The functions and classes that a pickle may name.

/// Packages whose classes appear in training checkpoints beside the weights, as settings and counters. They stay
/// opaque, whatever their name.
const OPAQUE_PACKAGES: &[&str] = &["deepspeed", "deeperspeed", "megatron"];

/// Whether a pickle may name `module.name`. Being named never runs anything; see the module above.
pub fn is_allowed(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    OPAQUE_PACKAGES.contains(&package)
        || match module {
            "collections" => matches!(name, "OrderedDict" | "defaultdict" | "Counter"),
            "builtins" | "__builtin__" => BUILTINS.contains(&name),
            "_codecs" => name == "encode",
            "copyreg" | "copy_reg" => name == "_reconstructor",
            "argparse" => name == "Namespace",
            "pathlib" => matches!(
                name,
                "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath"
            ),
            "torch" => TORCH.contains(&name) || is_storage(name),
            "torch._utils" => matches!(
                name,
                "_rebuild_tensor_v2"
                    | "_rebuild_tensor_v3"
                    | "_rebuild_parameter"
                    | "_rebuild_parameter_with_state"
            ),
            "torch.storage" => matches!(
                name,
                "UntypedStorage" | "TypedStorage" | "_UntypedStorage" | "_TypedStorage"
            ),
            "torch.nn.parameter" => name == "Parameter",
            "torch.serialization" => name == "_get_layout",
            "numpy" => matches!(name, "ndarray" | "dtype"),
            "numpy.core.multiarray" | "numpy._core.multiarray" => {
                matches!(name, "_reconstruct" | "scalar")
            }
            "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
            _ => false,
        }
}

const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
    "xrange",
];

const TORCH: &[&str] = &[
    "Size",
    "Tensor",
    "device",
    "bfloat16",
    "bool",
    "complex128",
    "complex64",
    "double",
    "float",
    "float16",
    "float32",
    "float64",
    "half",
    "int",
    "int16",
    "int32",
    "int64",
    "int8",
    "long",
    "short",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
];

fn is_storage(name: &str) -> bool {
    name.strip_suffix("Storage").is_some_and(|kind| {
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}
