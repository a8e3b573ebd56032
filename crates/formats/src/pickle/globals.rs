//! The functions and classes that a pickle may refer to.

/// Packages whose classes appear in training checkpoints with the weights, as settings and counters. All of their
/// names are allowed and stay opaque.
const OPAQUE_PACKAGES: &[&str] = &[
    "deepspeed",
    "deeperspeed",
    "megatron",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
];

/// Whether a pickle may refer to `module.name`. A reference never runs anything; see the parent module.
pub fn is_allowed(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    OPAQUE_PACKAGES.contains(&package)
        || match module {
            "collections" => matches!(name, "OrderedDict" | "defaultdict" | "Counter"),
            "builtins" | "__builtin__" => BUILTINS.contains(&name),
            "_codecs" => name == "encode",
            // Extra states of layers are stored in it.
            "_io" => name == "BytesIO",
            "copyreg" | "copy_reg" => name == "_reconstructor",
            "argparse" => name == "Namespace",
            "pathlib" => matches!(
                name,
                "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath" | "PureWindowsPath"
            ),
            "torch" => TORCH.contains(&name) || is_storage(name),
            "torch.cuda" => is_storage(name),
            "torch.torch_version" => name == "TorchVersion",
            "torch._tensor" => name == "_rebuild_from_type_v2",
            "torch._utils" => REBUILD.contains(&name),
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

/// Functions that make tensors. Those of unsupported kinds may be named too, because a tensor that is not requested is
/// no reason to reject the others.
const REBUILD: &[&str] = &[
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_device_tensor_from_cpu_tensor",
    "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage",
    "_rebuild_nested_tensor",
    "_rebuild_qtensor",
    "_rebuild_sparse_tensor",
    "_rebuild_wrapper_subclass",
];

/// Classes, element types and kinds of quantisation.
const TORCH: &[&str] = &[
    "Size",
    "Tensor",
    "bcomplex32",
    "bfloat16",
    "bits16",
    "bits1x8",
    "bits2x4",
    "bits4x2",
    "bits8",
    "bool",
    "complex128",
    "complex32",
    "complex64",
    "device",
    "double",
    "float",
    "float16",
    "float32",
    "float4_e2m1fn_x2",
    "float64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "half",
    "int",
    "int1",
    "int16",
    "int2",
    "int3",
    "int32",
    "int4",
    "int5",
    "int6",
    "int64",
    "int7",
    "int8",
    "long",
    "per_channel_affine",
    "per_channel_affine_float_qparams",
    "per_channel_symmetric",
    "per_tensor_affine",
    "per_tensor_symmetric",
    "qint32",
    "qint8",
    "quint2x4",
    "quint4x2",
    "quint8",
    "short",
    "uint1",
    "uint16",
    "uint2",
    "uint3",
    "uint32",
    "uint4",
    "uint5",
    "uint6",
    "uint64",
    "uint7",
    "uint8",
];

fn is_storage(name: &str) -> bool {
    name.strip_suffix("Storage").is_some_and(|kind| {
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}
