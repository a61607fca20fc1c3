//! The Python objects a pickle may name: the whole list.
//!
//! A pickle names functions and classes by module and name, and calling them is how pickles execute
//! code. Here a name is looked up in this table and stands for a description of data; there is no way
//! from a name to anything that runs.

use super::tensor::DType;

/// What an allowed Python object means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`: a dict.
    OrderedDict,
    /// A typed storage class of PyTorch.
    Storage(DType),
    /// `torch._utils._rebuild_tensor_v2` and its predecessor: a strided view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: its first argument.
    RebuildParameter,
    /// `torch.Size`: a tuple.
    Size,
    /// `numpy.dtype`.
    NumpyDtype,
    /// `numpy.core.multiarray.scalar`: a number as dtype and bytes.
    NumpyScalar,
    /// `_codecs.encode`: how protocol 2 spells bytes.
    Encode,
    /// Something without bearing on weights (`torch.device`, a `torch.dtype`, `argparse.Namespace`):
    /// accepted as an extra value and ignored.
    Opaque,
}

/// Looks a name up; `None` if it is not on the list.
pub(super) fn lookup(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::Size,
        ("torch", "device") | ("argparse", "Namespace") => Global::Opaque,
        // Files from before PyTorch 0.4 name the storage class by device.
        ("torch" | "torch.cuda", class) => match class.strip_suffix("Storage") {
            Some(kind) => Global::Storage(storage_type(kind)?),
            None if module == "torch" && is_dtype_name(class) => Global::Opaque,
            None => return None,
        },
        ("torch.storage", "UntypedStorage") => Global::Storage(DType::U8),
        ("numpy", "dtype") => Global::NumpyDtype,
        // numpy 2 renamed `core` to `_core`.
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("_codecs", "encode") => Global::Encode,
        _ => return None,
    })
}

fn storage_type(kind: &str) -> Option<DType> {
    Some(match kind {
        "Double" => DType::F64,
        "Float" => DType::F32,
        "Half" => DType::F16,
        "BFloat16" => DType::BF16,
        "Long" => DType::I64,
        "Int" => DType::I32,
        "Short" => DType::I16,
        "Char" => DType::I8,
        "Byte" => DType::U8,
        "Bool" => DType::Bool,
        _ => return None,
    })
}

fn is_dtype_name(name: &str) -> bool {
    ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
        .contains(&name)
}
