//! Tensors as files hold them: a name, a shape and typed, row-major elements.

use std::fmt;

use super::error::Problem;

/// A tensor read from, or to be written to, a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name in the state dict, for example `layer1.0.conv1.weight`.
    pub name: String,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements in row-major order; as many as the product of `shape`.
    pub data: TensorData,
}

impl NamedTensor {
    /// The same tensor without its name.
    pub fn unnamed(self) -> NamedTensor {
        NamedTensor { name: String::new(), ..self }
    }

    /// A float32 tensor. The product of `shape` must be `data.len()`; the writers check it.
    pub fn f32(name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> Self {
        NamedTensor { name: name.into(), shape: shape.to_vec(), data: TensorData::F32(data) }
    }

    /// An int64 scalar, such as batch norm's `num_batches_tracked`.
    pub fn i64_scalar(name: impl Into<String>, value: i64) -> Self {
        NamedTensor { name: name.into(), shape: Vec::new(), data: TensorData::I64(vec![value]) }
    }

    /// That shape and data agree and the name is not empty: what a writer needs.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let elements = element_count(&self.shape);
        if elements != Some(self.data.len()) {
            return Err(Problem::Tensor {
                name: self.name.clone(),
                what: format!("shape {:?} does not go with {} elements", self.shape, self.data.len()),
            });
        }
        Ok(())
    }
}

/// The product of the dimensions, or `None` if it overflows.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, whatever the other dimensions would overflow to.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
}

macro_rules! element_types {
    ($($variant:ident, $element:ty, $name:literal, $what:literal;)*) => {
        /// The element types that checkpoints use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DType { $(#[doc = $what] $variant,)* }

        impl DType {
            /// Size of one element in bytes.
            pub fn size(self) -> usize {
                match self { $(DType::$variant => size_of::<$element>(),)* }
            }

            /// PyTorch's name of the type.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }
        }

        /// Elements of one type, in row-major order.
        #[derive(Clone, Debug, PartialEq)]
        pub enum TensorData { $(#[doc = $what] $variant(Vec<$element>),)* }

        impl TensorData {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self { $(TensorData::$variant(_) => DType::$variant,)* }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self { $(TensorData::$variant(values) => values.len(),)* }
            }

            /// Every element as float64. Exact, but for 64-bit integers beyond 2^53.
            pub fn to_f64(&self) -> Vec<f64> {
                match self { $(TensorData::$variant(values) => values.iter().map(|&v| Element::as_f64(v)).collect(),)* }
            }

            /// Every element, little-endian, as both `.pth` and safetensors store them.
            pub fn to_le_bytes(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(self.len() * self.dtype().size());
                match self {
                    $(TensorData::$variant(values) => {
                        for value in values { Element::append_to(*value, &mut bytes); }
                    })*
                }
                bytes
            }

            /// The elements at `indices` (counted in elements) of little-endian `bytes`. Every index
            /// must lie inside `bytes`; `count` is how many there are.
            pub(super) fn gather(
                dtype: DType,
                bytes: &[u8],
                count: usize,
                indices: impl Iterator<Item = usize>,
            ) -> TensorData {
                match dtype {
                    $(DType::$variant => {
                        let mut values = Vec::with_capacity(count);
                        values.extend(indices.map(|index| <$element as Element>::at(bytes, index)));
                        TensorData::$variant(values)
                    })*
                }
            }
        }
    };
}

element_types! {
    F64, f64, "float64", "IEEE double precision.";
    F32, f32, "float32", "IEEE single precision.";
    F16, F16Bits, "float16", "IEEE half precision.";
    BF16, BF16Bits, "bfloat16", "The upper half of a float32.";
    I64, i64, "int64", "Signed 64-bit integers.";
    I32, i32, "int32", "Signed 32-bit integers.";
    I16, i16, "int16", "Signed 16-bit integers.";
    I8, i8, "int8", "Signed 8-bit integers.";
    U64, u64, "uint64", "Unsigned 64-bit integers (safetensors only).";
    U32, u32, "uint32", "Unsigned 32-bit integers (safetensors only).";
    U16, u16, "uint16", "Unsigned 16-bit integers (safetensors only).";
    U8, u8, "uint8", "Bytes.";
    Bool, bool, "bool", "Truth values, one byte each.";
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TensorData {
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every element as float32, rounded to nearest where the type is wider.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            TensorData::F32(values) => values.clone(),
            other => other.to_f64().into_iter().map(|v| v as f32).collect(),
        }
    }
}

/// The bits of an IEEE half precision number.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct F16Bits(pub u16);

/// The bits of a bfloat16 number.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct BF16Bits(pub u16);

impl F16Bits {
    /// The number, exactly.
    pub fn to_f32(self) -> f32 {
        let sign = if self.0 & 0x8000 == 0 { 1.0 } else { -1.0 };
        let exponent = i32::from(self.0 >> 10 & 0x1f);
        let fraction = f32::from(self.0 & 0x3ff);
        match exponent {
            0 => sign * fraction * 2f32.powi(-24),
            31 if fraction == 0.0 => sign * f32::INFINITY,
            31 => f32::NAN,
            _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
        }
    }
}

impl BF16Bits {
    /// The number, exactly.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// One element: from and to little-endian bytes, and to float64.
trait Element: Copy {
    fn at(bytes: &[u8], index: usize) -> Self;
    fn append_to(self, bytes: &mut Vec<u8>);
    fn as_f64(self) -> f64;
}

macro_rules! number_element {
    ($($ty:ty),*) => { $(
        impl Element for $ty {
            fn at(bytes: &[u8], index: usize) -> Self {
                const SIZE: usize = size_of::<$ty>();
                let mut raw = [0; SIZE];
                raw.copy_from_slice(&bytes[index * SIZE..(index + 1) * SIZE]);
                <$ty>::from_le_bytes(raw)
            }
            fn append_to(self, bytes: &mut Vec<u8>) { bytes.extend(self.to_le_bytes()); }
            fn as_f64(self) -> f64 { self as f64 }
        }
    )* };
}
number_element!(f64, f32, i64, i32, i16, i8, u64, u32, u16, u8);

macro_rules! half_element {
    ($($ty:ident),*) => { $(
        impl Element for $ty {
            fn at(bytes: &[u8], index: usize) -> Self { $ty(u16::at(bytes, index)) }
            fn append_to(self, bytes: &mut Vec<u8>) { bytes.extend(self.0.to_le_bytes()); }
            fn as_f64(self) -> f64 { f64::from(self.to_f32()) }
        }
    )* };
}
half_element!(F16Bits, BF16Bits);

impl Element for bool {
    fn at(bytes: &[u8], index: usize) -> Self {
        bytes[index] != 0
    }
    fn append_to(self, bytes: &mut Vec<u8>) {
        bytes.extend([u8::from(self)]);
    }
    fn as_f64(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// A tensor as PyTorch describes it: a window with strides into a storage.
#[derive(Clone, Debug)]
pub(super) struct StridedView {
    /// Element type.
    pub dtype: DType,
    /// First element, counted in elements from the storage's start.
    pub offset: usize,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Elements between neighbours along each dimension; as many as dimensions.
    pub strides: Vec<usize>,
}

impl StridedView {
    /// The number of elements, if the view is sound and lies within a storage of `numel` elements.
    pub(super) fn checked_len(&self, numel: usize) -> Result<usize, String> {
        let count = element_count(&self.shape)
            .ok_or_else(|| format!("its shape {:?} has too many elements", self.shape))?;
        if count == 0 {
            return Ok(0);
        }
        let last =
            self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (&dim, &stride)| {
                last.checked_add((dim - 1).checked_mul(stride)?)
            });
        match last {
            Some(last) if last < numel => Ok(count),
            _ => Err(format!(
                "shape {:?}, strides {:?} and offset {} reach outside its storage of {numel} elements",
                self.shape, self.strides, self.offset
            )),
        }
    }

    /// The elements in row-major order. `bytes` is the storage; [`StridedView::checked_len`] must have
    /// passed for it.
    pub(super) fn gather(&self, bytes: &[u8], count: usize) -> TensorData {
        if self.is_contiguous() {
            let indices = self.offset..self.offset + count;
            return TensorData::gather(self.dtype, bytes, count, indices);
        }
        let indices = StridedIndices {
            view: self,
            position: vec![0; self.shape.len()],
            index: self.offset,
            left: count,
        };
        TensorData::gather(self.dtype, bytes, count, indices)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&dim, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if dim != 1 && stride != expected {
                return false;
            }
            expected *= dim;
        }
        true
    }
}

/// Row-major walk over a strided view, yielding storage indices.
struct StridedIndices<'a> {
    view: &'a StridedView,
    position: Vec<usize>,
    index: usize,
    left: usize,
}

impl Iterator for StridedIndices<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let index = self.index;
        for axis in (0..self.position.len()).rev() {
            self.position[axis] += 1;
            self.index += self.view.strides[axis];
            if self.position[axis] < self.view.shape[axis] {
                break;
            }
            self.index -= self.position[axis] * self.view.strides[axis];
            self.position[axis] = 0;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_converts_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(F16Bits(bits).to_f32(), value, "{bits:#06x}");
        }
        assert!(F16Bits(0x7e00).to_f32().is_nan());
        assert!(F16Bits(0x8000).to_f32().is_sign_negative());
        assert_eq!(BF16Bits(0x3f80).to_f32(), 1.0);
        assert_eq!(BF16Bits(0xc049).to_f32(), -3.140625);
    }

    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> StridedView {
        StridedView { dtype: DType::U8, offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn strided_views_are_gathered_in_row_major_order() {
        let bytes: Vec<u8> = (0..12).collect();
        let gather = |view: StridedView| {
            let count = view.checked_len(12).unwrap();
            view.gather(&bytes, count)
        };
        let transposed = gather(view(0, &[4, 3], &[1, 4]));
        assert_eq!(transposed, TensorData::U8(vec![0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]));
        assert_eq!(gather(view(5, &[2, 2], &[4, 2])), TensorData::U8(vec![5, 7, 9, 11]));
        assert_eq!(gather(view(3, &[2, 2], &[0, 1])), TensorData::U8(vec![3, 4, 3, 4]));
        assert_eq!(gather(view(2, &[2, 2], &[2, 1])), TensorData::U8(vec![2, 3, 4, 5]));
        assert_eq!(gather(view(11, &[], &[])), TensorData::U8(vec![11]));
        assert_eq!(gather(view(99, &[0, 3], &[3, 1])), TensorData::U8(vec![]));
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for bad in [
            view(12, &[], &[]),
            view(0, &[13], &[1]),
            view(1, &[3, 4], &[4, 1]),
            view(0, &[2, 2], &[usize::MAX, 1]),
            view(usize::MAX, &[2], &[1]),
            view(0, &[usize::MAX, 2], &[0, 0]),
        ] {
            assert!(bad.checked_len(12).is_err(), "{bad:?}");
        }
    }
}
