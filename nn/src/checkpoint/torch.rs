//! What PyTorch's and numpy's objects in a pickle mean: tensors, their storages, numbers.

use super::error::quoted;
use super::state::Scalar;
use super::tensor::{DType, F16Bits, StridedView};
use crate::pickle::{Global, Node, Pickle, Value};

/// A tensor, still without its elements.
pub(super) struct PickledTensor<'p> {
    pub storage: Storage<'p>,
    pub view: StridedView,
}

/// A reference to a storage: tensor bytes that lie outside the pickle.
#[derive(Clone, Copy)]
pub(super) struct Storage<'p> {
    /// Its name in the container.
    pub key: &'p str,
    /// Its class, such as `FloatStorage`.
    class: &'p str,
    /// Bytes of an element.
    pub size: usize,
    /// Elements in the storage of that name.
    pub numel: usize,
    /// First element and length of the part that is meant (legacy files), else all of it.
    pub part: Option<(usize, usize)>,
}

/// PyTorch's own limit on the number of dimensions.
const MAX_RANK: usize = 64;

/// Whether the value is a tensor of any kind.
pub(super) fn is_tensor<'p>(pickle: &Pickle<'p>, value: &Value<'p>) -> bool {
    // Nothing else is listed in these modules.
    let called = pickle.object(value);
    called.is_some_and(|(global, ..)| matches!(global.module, "torch._utils" | "torch._tensor"))
}

/// The tensor that the value describes, or what about it is not read.
pub(super) fn tensor<'p>(pickle: &Pickle<'p>, value: &Value<'p>) -> Result<PickledTensor<'p>, String> {
    let (global, arguments) = called(pickle, value)?;
    match (global.name, arguments) {
        // The attributes that Python code set on it are no part of its value.
        ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
            let (global, arguments) = called(pickle, data)?;
            plain(pickle, global.name, arguments)
        }
        ("_rebuild_from_type_v2", [function, class, arguments, ..])
            if pickle.global(class).is_some_and(|c| matches!(c.name, "Tensor" | "Parameter" | "Buffer")) =>
        {
            let function = pickle.global(function).ok_or("it is made by something that is not a function")?;
            plain(pickle, function.name, pickle.sequence(arguments).unwrap_or_default())
        }
        (name, arguments) => plain(pickle, name, arguments),
    }
}

fn called<'p, 'a>(
    pickle: &'a Pickle<'p>,
    value: &Value<'p>,
) -> Result<(Global<'p>, &'a [Value<'p>]), &'static str> {
    pickle.object(value).map(|(global, arguments, _)| (global, arguments)).ok_or("it is not a tensor")
}

/// A strided view of a storage, made by the function `name`.
fn plain<'p>(pickle: &Pickle<'p>, name: &str, arguments: &[Value<'p>]) -> Result<PickledTensor<'p>, String> {
    // Behind storage, offset, shape and strides come requires_grad and hooks, which are of no interest.
    let (dtype, marks) = match name {
        "_rebuild_tensor" => (None, None),
        "_rebuild_tensor_v2" => (None, arguments.get(6)),
        // Element types without a storage class of their own: untyped bytes, and the type's name.
        "_rebuild_tensor_v3" => (arguments.get(6), arguments.get(7)),
        other => return Err(unread(other)),
    };
    check_marks(pickle, marks)?;
    let [storage, offset, shape, strides, ..] = arguments else {
        return Err("it is not described by storage, offset, shape and strides".into());
    };
    let Some(Node::Persistent(id)) = pickle.node(storage) else {
        return Err("it has no storage".into());
    };
    let storage = storage_of(pickle, id)?;
    let class = match dtype {
        Some(dtype) => pickle.global(dtype).ok_or("its element type is not a name")?.name,
        None => storage.class,
    };
    let dtype = element_type(class).ok_or_else(|| {
        format!("its elements are {} ({}), which are not read", element_kind(class), class.escape_debug())
    })?;
    let offset = pickle.size(offset).ok_or("its offset is not a size")?;
    let (shape, strides) = (sizes(pickle, shape)?, sizes(pickle, strides)?);
    if shape.len() != strides.len() {
        return Err("it has more or fewer strides than dimensions".into());
    }
    Ok(PickledTensor { storage, view: StridedView { dtype, offset, shape, strides } })
}

/// Why a tensor that the function makes is not read.
fn unread(function: &str) -> String {
    let kind = match function {
        "_rebuild_qtensor" => "quantised; save it after dequantize()",
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "sparse; save it after to_dense()",
        "_rebuild_nested_tensor" => "nested; save its parts",
        "_rebuild_meta_tensor_no_storage" => "a meta tensor, which has no values",
        _ => "of a tensor subclass; save a plain torch.Tensor",
    };
    format!("it is {kind} ({})", function.escape_debug())
}

/// PyTorch can postpone a negation or a conjugation: the tensor then has a mark and other values than
/// its storage.
fn check_marks<'p>(pickle: &Pickle<'p>, marks: Option<&Value<'p>>) -> Result<(), String> {
    let Some(marks) = marks.filter(|marks| **marks != Value::None) else { return Ok(()) };
    let marks = pickle.dict(marks).ok_or("its marks are not a dict")?;
    match marks.iter().find(|(_, set)| *set != Value::Bool(false)) {
        None => Ok(()),
        Some((mark, _)) => Err(match pickle.text(mark) {
            Some("neg") => "it is marked as negated; save it after resolve_neg()".into(),
            Some("conj") => "it is marked as conjugated; save it after resolve_conj()".into(),
            other => format!("it has the mark {}, which is not known", quoted(other.unwrap_or("?"))),
        }),
    }
}

fn sizes<'p>(pickle: &Pickle<'p>, value: &Value<'p>) -> Result<Vec<usize>, String> {
    // torch.Size is a tuple of its only argument.
    let tuple = match pickle.object(value) {
        Some((Global { name: "Size", .. }, [sizes], _)) => sizes,
        _ => value,
    };
    let Some(items) = pickle.sequence(tuple) else {
        return Err("its shape or strides are not a tuple".into());
    };
    if items.len() > MAX_RANK {
        return Err(format!("it has {} dimensions", items.len()));
    }
    let sizes: Option<Vec<usize>> = items.iter().map(|item| pickle.size(item)).collect();
    sizes.ok_or_else(|| "its shape or strides are not sizes".into())
}

/// A storage by its persistent id: `("storage", class, key, location, numel[, None or (view key, offset, numel)])`.
/// The location (`cpu`, `cuda:0`) says where it lay when it was saved and is ignored.
pub(super) fn storage_of<'p>(pickle: &Pickle<'p>, id: &Value<'p>) -> Result<Storage<'p>, String> {
    let (class, key, numel, part) = match pickle.sequence(id) {
        Some([tag, class, key, _location, numel, part @ ..])
            if pickle.text(tag) == Some("storage") && part.len() < 2 =>
        {
            (class, key, numel, part.first().unwrap_or(&Value::None))
        }
        _ => return Err("a persistent id that is not a storage".into()),
    };
    let class = pickle.global(class).ok_or("a storage whose class is not a class")?.name;
    let key = pickle.text(key).ok_or("a storage whose key is not a text")?;
    let numel = pickle.size(numel).ok_or("a storage whose size is not a size")?;
    let size =
        element_size(class).ok_or_else(|| format!("a storage of the class {}", class.escape_debug()))?;
    let part = match (part, pickle.sequence(part)) {
        (Value::None, _) => None,
        (_, Some([_key, offset, length])) => {
            let place = pickle.size(offset).zip(pickle.size(length));
            Some(place.ok_or("a part of a storage whose place is not a size")?)
        }
        _ => return Err("a part of a storage that is not described by three values".into()),
    };
    Ok(Storage { key, class, size, numel, part })
}

/// The element type by its name or its storage class.
fn element_type(name: &str) -> Option<DType> {
    Some(match name.strip_suffix("Storage").unwrap_or(name) {
        "Double" | "float64" => DType::F64,
        "Float" | "float32" => DType::F32,
        "Half" | "float16" => DType::F16,
        "BFloat16" | "bfloat16" => DType::BF16,
        "Long" | "int64" => DType::I64,
        "Int" | "int32" => DType::I32,
        "Short" | "int16" => DType::I16,
        "Char" | "int8" => DType::I8,
        "uint64" => DType::U64,
        "uint32" => DType::U32,
        "uint16" => DType::U16,
        "Byte" | "Untyped" | "uint8" => DType::U8,
        "Bool" | "bool" => DType::Bool,
        _ => return None,
    })
}

/// Bytes of an element of a storage class, also of those that are not read: in a legacy file they have
/// to be passed over.
fn element_size(class: &str) -> Option<usize> {
    element_type(class).map(DType::size).or(match class {
        "ComplexDoubleStorage" => Some(16),
        "ComplexFloatStorage" => Some(8),
        "QInt32Storage" => Some(4),
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Some(1),
        _ => None,
    })
}

fn element_kind(class: &str) -> &'static str {
    match class.as_bytes() {
        [b'C' | b'c', ..] => "complex numbers",
        [b'Q' | b'q', ..] => "quantised",
        _ => "of a type",
    }
}

/// A number or text; also a numpy scalar. `None` if the value is something else.
pub(super) fn scalar<'p>(pickle: &Pickle<'p>, value: &Value<'p>) -> Option<Scalar> {
    Some(match value {
        Value::None => Scalar::None,
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Int(value) => Scalar::Int(*value),
        Value::Float(value) => Scalar::Float(*value),
        Value::Str(_) | Value::Bytes(_) => Scalar::Text(pickle.text(value)?.to_owned()),
        Value::Global(_) => return None,
        Value::Node(_) => match pickle.object(value)? {
            (Global { module, name: "scalar" }, [dtype, bytes], _) if module.starts_with("numpy.") => {
                numpy_scalar(pickle, dtype, bytes)?
            }
            _ => return None,
        },
    })
}

/// A little-endian number of one of numpy's types: its code such as `f8` is the dtype's argument, its byte
/// order the second value of the dtype's state.
fn numpy_scalar<'p>(pickle: &Pickle<'p>, dtype: &Value<'p>, bytes: &Value<'p>) -> Option<Scalar> {
    let (Global { name: "dtype", .. }, [code, ..], object) = pickle.object(dtype)? else { return None };
    if let Some(state) = object.state {
        let order = pickle.sequence(&state)?.get(1)?;
        pickle.text(order).filter(|order| matches!(*order, "<" | "|" | "="))?;
    }
    let code = pickle.text(code)?;
    let raw = pickle.bytes(bytes, 8)?;
    let (kind, size) = code.trim_start_matches(['<', '|', '=']).split_at_checked(1)?;
    if size.parse() != Ok(raw.len()) {
        return None;
    }
    let mut wide = [0; 8];
    wide[..raw.len()].copy_from_slice(&raw);
    let bits = u64::from_le_bytes(wide);
    Some(match (kind, raw.len()) {
        ("f", 8) => Scalar::Float(f64::from_bits(bits)),
        ("f", 4) => Scalar::Float(f64::from(f32::from_bits(bits as u32))),
        ("f", 2) => Scalar::Float(f64::from(F16Bits(bits as u16).to_f32())),
        ("b", 1) => Scalar::Bool(bits != 0),
        ("i", 1) => Scalar::Int(i64::from(bits as i8)),
        ("i", 2) => Scalar::Int(i64::from(bits as i16)),
        ("i", 4) => Scalar::Int(i64::from(bits as i32)),
        ("i", 8) => Scalar::Int(bits as i64),
        ("u", _) => Scalar::Int(i64::try_from(bits).ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle;

    fn number(code: &str, order: &[u8], raw: &[u8]) -> Option<Scalar> {
        // numpy before version 2 says core; one letter decides here which of the spellings is tried.
        let module: &[u8] = if code.starts_with('f') { b"_core" } else { b"core" };
        let mut bytes = [b"\x80\x04cnumpy.", module, b".multiarray\nscalar\ncnumpy\ndtype\n"].concat();
        bytes.extend(
            [&[0x8c, code.len() as u8], code.as_bytes(), b"\x89\x88\x87R(K\x03\x8c\x01", order].concat(),
        );
        bytes.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
        bytes.extend([&[b'C', raw.len() as u8], raw, b"\x86R."].concat());
        let pickle = pickle::load(&bytes).unwrap();
        scalar(&pickle, &pickle.root)
    }

    #[test]
    fn numpy_scalars_are_read() {
        for (code, raw, expected) in [
            ("f8", &0.0025f64.to_le_bytes()[..], Scalar::Float(0.0025)),
            ("f4", &1.5f32.to_le_bytes(), Scalar::Float(1.5)),
            ("f2", &[0, 0x3c], Scalar::Float(1.0)),
            ("i8", &(-7i64).to_le_bytes(), Scalar::Int(-7)),
            ("i4", &(-7i32).to_le_bytes(), Scalar::Int(-7)),
            ("i2", &(-7i16).to_le_bytes(), Scalar::Int(-7)),
            ("i1", &[0xff], Scalar::Int(-1)),
            ("u1", &[200], Scalar::Int(200)),
            ("u2", &[0, 200], Scalar::Int(51200)),
            ("b1", &[1], Scalar::Bool(true)),
        ] {
            assert_eq!(number(code, b"<", raw), Some(expected), "{code}");
            assert_eq!(number(code, b">", raw), None, "{code} of the other byte order");
            assert_eq!(number(code, b"<", &raw[1..]), None, "{code} cut short");
        }
        assert_eq!(number("u8", b"<", &[0xff; 8]), None);
        assert_eq!(number("c8", b"<", &[0; 8]), None);
    }

    /// `_rebuild_tensor_v2` of four floats with these further arguments, `outer` around it.
    fn read(function: &str, class: &str, marks: &[u8], outer: Option<&str>) -> Result<Vec<usize>, String> {
        let mut bytes = b"\x80\x02".to_vec();
        if let Some(outer) = outer {
            bytes.extend([b"c", outer.as_bytes(), b"\n("].concat());
        }
        bytes.extend(
            [b"ctorch._utils\n", function.as_bytes(), b"\n((U\x07storagectorch\n", class.as_bytes()].concat(),
        );
        bytes.extend(
            b"\nU\x010U\x03cpuK\x04tQK\0K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)R",
        );
        bytes.extend([marks, b"tR"].concat());
        if outer.is_some() {
            bytes.extend(b"\x89ccollections\nOrderedDict\n)R}tR");
        }
        bytes.push(b'.');
        let pickle = pickle::load(&bytes).unwrap();
        assert!(is_tensor(&pickle, &pickle.root));
        tensor(&pickle, &pickle.root).map(|tensor| tensor.view.shape)
    }

    #[test]
    fn marks_are_not_passed_over() {
        let v2 = |marks: &[u8]| read("_rebuild_tensor_v2", "FloatStorage", marks, None);
        assert_eq!(v2(b"").unwrap(), [2, 2]);
        assert_eq!(v2(b"N").unwrap(), [2, 2]);
        assert_eq!(v2(b"}").unwrap(), [2, 2]);
        assert_eq!(v2(b"}(U\x03neg\x89U\x04conj\x89u").unwrap(), [2, 2]);
        for (marks, word) in [
            (&b"}U\x03neg\x88s"[..], "negated"),
            (b"}U\x04conj\x88s", "conjugated"),
            (b"}(U\x03neg\x89U\x04conj\x88u", "conjugated"),
            (b"}U\x03new\x88s", "\"new\""),
            (b"K\x01", "marks"),
        ] {
            assert!(v2(marks).unwrap_err().contains(word), "{word}");
            for outer in ["torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_parameter_with_state"] {
                let inside = read("_rebuild_tensor_v2", "FloatStorage", marks, Some(outer));
                assert!(inside.unwrap_err().contains(word), "{word}");
            }
        }
    }

    #[test]
    fn every_other_kind_of_tensor_is_refused_for_what_it_is() {
        for outer in ["torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_parameter_with_state"] {
            assert_eq!(read("_rebuild_tensor_v2", "FloatStorage", b"", Some(outer)).unwrap(), [2, 2]);
        }
        for (function, word) in [
            ("_rebuild_qtensor", "quantised"),
            ("_rebuild_sparse_tensor", "sparse"),
            ("_rebuild_sparse_csr_tensor", "sparse"),
            ("_rebuild_nested_tensor", "nested"),
            ("_rebuild_meta_tensor_no_storage", "meta tensor"),
            ("_rebuild_wrapper_subclass", "subclass"),
            ("_rebuild_from_type_v2", "subclass"),
            ("_rebuild_device_tensor_from_numpy", "subclass"),
        ] {
            let problem = read(function, "FloatStorage", b"", None).unwrap_err();
            assert!(problem.contains(word) && problem.contains(function), "{problem}");
        }
        for class in ["ComplexFloatStorage", "ComplexDoubleStorage"] {
            assert!(read("_rebuild_tensor_v2", class, b"", None).unwrap_err().contains("complex"), "{class}");
        }
        assert!(read("_rebuild_tensor_v2", "QInt8Storage", b"", None).unwrap_err().contains("quantised"));
        assert!(read("_rebuild_tensor_v2", "OddStorage", b"", None).unwrap_err().contains("OddStorage"));
    }

    #[test]
    fn types_without_a_storage_class_are_read_by_name() {
        let v3 = |dtype: &[u8]| read("_rebuild_tensor_v3", "UntypedStorage", dtype, None);
        assert_eq!(v3(b"ctorch\nuint16\n").unwrap(), [2, 2]);
        assert!(v3(b"ctorch\nuint16\n}U\x03neg\x88s").unwrap_err().contains("negated"));
        assert!(v3(b"ctorch\nfloat8_e4m3fn\n").unwrap_err().contains("float8_e4m3fn"));
    }
}
