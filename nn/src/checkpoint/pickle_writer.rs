//! Writes the pickles of `.pth` files: protocol 2, as `torch.save` does, with only what
//! `torch.load(weights_only=True)` accepts.

use super::error::Problem;
use super::tensor::{DType, element_count};

/// A pickle under construction. Each call appends one value, or opens or closes a container.
pub(super) struct PickleWriter {
    out: Vec<u8>,
}

impl PickleWriter {
    pub(super) fn new() -> Self {
        PickleWriter { out: vec![0x80, 2] }
    }

    /// Ends the pickle.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.push(b'.');
        self.out
    }

    pub(super) fn none(&mut self) {
        self.out.push(b'N');
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.out.push(if value { 0x88 } else { 0x89 });
    }

    pub(super) fn int(&mut self, value: i64) {
        if let Ok(small) = u8::try_from(value) {
            self.out.extend([b'K', small]);
        } else if let Ok(value) = i32::try_from(value) {
            self.out.push(b'J');
            self.out.extend(value.to_le_bytes());
        } else {
            self.out.extend([0x8a, 8]);
            self.out.extend(value.to_le_bytes());
        }
    }

    pub(super) fn float(&mut self, value: f64) {
        self.out.push(b'G');
        self.out.extend(value.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Problem> {
        let length =
            u32::try_from(text.len()).map_err(|_| Problem::Unwritable("a text of more than 4 GiB".into()))?;
        self.out.push(b'X');
        self.out.extend(length.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Opens a dict: then key, value, key, value, ..., [`PickleWriter::end_dict`].
    pub(super) fn begin_dict(&mut self) {
        self.out.extend(b"}(");
    }

    /// Opens an `OrderedDict`, filled and closed like a dict.
    pub(super) fn begin_ordered_dict(&mut self) {
        self.empty_ordered_dict();
        self.out.push(b'(');
    }

    pub(super) fn end_dict(&mut self) {
        self.out.push(b'u');
    }

    /// Opens a list: then its items, [`PickleWriter::end_list`].
    pub(super) fn begin_list(&mut self) {
        self.out.extend(b"](");
    }

    pub(super) fn end_list(&mut self) {
        self.out.push(b'e');
    }

    fn empty_ordered_dict(&mut self) {
        self.out.extend(b"ccollections\nOrderedDict\n)R");
    }

    fn size(&mut self, size: usize) -> Result<(), Problem> {
        let size = i64::try_from(size).map_err(|_| Problem::Unwritable("a size beyond 64 bits".into()))?;
        self.int(size);
        Ok(())
    }

    fn sizes(&mut self, sizes: &[usize]) -> Result<(), Problem> {
        self.out.push(b'(');
        for &size in sizes {
            self.size(size)?;
        }
        self.out.push(b't');
        Ok(())
    }

    /// A contiguous tensor that fills storage `key`.
    pub(super) fn tensor(&mut self, key: &str, dtype: DType, shape: &[usize]) -> Result<(), Problem> {
        let class = storage_class(dtype).ok_or_else(|| {
            Problem::Unwritable(format!("a .pth file has no {dtype} storage; use safetensors"))
        })?;
        self.out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage")?;
        self.out.extend(b"ctorch\n");
        self.out.extend_from_slice(class.as_bytes());
        self.out.push(b'\n');
        self.text(key)?;
        self.text("cpu")?;
        self.size(element_count(shape).unwrap_or(usize::MAX))?;
        self.out.extend(b"tQ");
        self.int(0); // offset
        self.sizes(shape)?;
        self.sizes(&contiguous_strides(shape))?;
        self.bool(false); // requires_grad
        self.empty_ordered_dict(); // backward hooks
        self.out.extend(b"tR");
        Ok(())
    }
}

/// Row-major strides in elements.
fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        // As PyTorch: an empty dimension counts as one.
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

fn storage_class(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F64 => "DoubleStorage",
        DType::F32 => "FloatStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::I64 => "LongStorage",
        DType::I32 => "IntStorage",
        DType::I16 => "ShortStorage",
        DType::I8 => "CharStorage",
        DType::U8 => "ByteStorage",
        DType::Bool => "BoolStorage",
        DType::U16 | DType::U32 | DType::U64 => return None,
    })
}
