//! The Python objects that a pickle may name: the whole list.
//!
//! They are those that `torch.load(weights_only=True)` knows, numpy's arrays and numbers, and some plain
//! values that trainers keep beside the weights. Being on the list means that a file which mentions the
//! object is read, not that the object is understood.

/// Python's plain types.
const PLAIN: [&str; 17] = [
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
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
    "xrange",
];

/// Whether a pickle may name it.
pub(super) fn is_listed(module: &str, name: &str) -> bool {
    match module {
        "collections" => matches!(name, "OrderedDict" | "Counter" | "defaultdict"),
        // Protocol 2 has Python 2's names.
        "builtins" | "__builtin__" => PLAIN.contains(&name),
        "_codecs" => name == "encode",
        "argparse" => name == "Namespace",
        "pathlib" | "pathlib._local" => {
            matches!(name, "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath")
        }
        "numpy" => matches!(name, "dtype" | "ndarray"),
        // numpy 2 renamed `core` to `_core`.
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        "torch" => is_torch_value(name),
        // Files from before PyTorch 0.4 name the storage class by device.
        "torch.cuda" | "torch.storage" => name.ends_with("Storage"),
        "torch._utils" | "torch._tensor" => name.starts_with("_rebuild_"),
        "torch.nn.parameter" => matches!(name, "Parameter" | "Buffer"),
        "torch.serialization" => name == "_get_layout",
        _ => false,
    }
}

/// Storage classes, element types and the like; not functions such as `torch.load`.
fn is_torch_value(name: &str) -> bool {
    const KINDS: [&str; 8] = ["float", "bfloat", "complex", "uint", "int", "quint", "qint", "bool"];
    let is_dtype = KINDS.iter().any(|kind| {
        let rest = name.strip_prefix(kind);
        rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b"xemfnuz_".contains(&b)))
    });
    is_dtype
        || name.ends_with("Storage")
        || matches!(name, "Size" | "device" | "Tensor" | "half" | "double" | "long" | "short" | "strided")
        || matches!(name, "per_tensor_affine" | "per_channel_affine" | "contiguous_format" | "channels_last")
}
