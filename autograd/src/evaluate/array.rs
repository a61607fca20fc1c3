//! Dense arrays in `f64`, and walks over their elements.

/// Values of one tensor, dense and row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    /// The array whose element at each index is `f(index)`.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut data = Vec::with_capacity(shape.iter().product());
        for_each_index(shape, |index| data.push(f(index)));
        Array { shape: shape.to_vec(), data }
    }

    /// The array whose element at each row-major position is `f(position)`.
    pub fn map(shape: &[usize], f: impl Fn(usize) -> f64) -> Array {
        Array { shape: shape.to_vec(), data: (0..shape.iter().product()).map(f).collect() }
    }

    /// The position of `index` in `data`.
    pub fn position(&self, index: &[usize]) -> usize {
        index.iter().zip(&self.shape).fold(0, |position, (i, size)| position * size + i)
    }

    /// The element at `index`.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.position(index)]
    }
}

/// Visits every index of `shape` in row-major order (once, with the empty index, for a scalar).
pub fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product::<usize>() {
        visit(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Visits `first + sum of index * stride` for every index of `shape` in row-major order.
pub fn for_each_position(shape: &[usize], strides: &[usize], first: usize, mut visit: impl FnMut(usize)) {
    let mut index = vec![0; shape.len()];
    let mut position = first;
    for _ in 0..shape.iter().product::<usize>() {
        visit(position);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            position += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            position -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

/// How far apart neighbours along each axis of a dense array lie.
pub fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let after = |axis: usize| shape[axis + 1..].iter().product();
    (0..shape.len()).map(after).collect()
}
