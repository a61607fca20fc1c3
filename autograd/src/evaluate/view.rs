//! Moving elements without computing: permute, slice, pad, broadcast, concatenate.

use super::array::{Array, dense_strides, for_each_position};

/// Output dim `d` is input dim `axes[d]`.
pub fn permute(axes: &[usize], x: &Array) -> Array {
    let shape: Vec<usize> = axes.iter().map(|&axis| x.shape[axis]).collect();
    let strides = dense_strides(&x.shape);
    read(&shape, 0, &axes.iter().map(|&axis| strides[axis]).collect::<Vec<_>>(), x)
}

/// Output index `i` reads `starts + i * steps`.
pub fn slice(shape: &[usize], starts: &[usize], steps: &[usize], x: &Array) -> Array {
    let strides: Vec<usize> =
        dense_strides(&x.shape).iter().zip(steps).map(|(stride, step)| stride * step).collect();
    read(shape, x.position(starts), &strides, x)
}

/// Zeros, with input index `i` at `starts + i`.
pub fn pad(shape: &[usize], starts: &[usize], x: &Array) -> Array {
    let mut result = Array::from_fn(shape, |_| 0.0);
    write(&mut result, starts, x);
    result
}

/// Repeats dims of size 1.
pub fn broadcast(shape: &[usize], x: &Array) -> Array {
    let strides: Vec<usize> = dense_strides(&x.shape)
        .iter()
        .zip(&x.shape)
        .map(|(&stride, &size)| if size == 1 { 0 } else { stride })
        .collect();
    read(shape, 0, &strides, x)
}

/// The operands one after the other along `axis`.
pub fn concatenate(shape: &[usize], axis: usize, operands: &[&Array]) -> Array {
    let mut result = Array::from_fn(shape, |_| 0.0);
    let mut starts = vec![0; shape.len()];
    for operand in operands {
        write(&mut result, &starts, operand);
        starts[axis] += operand.shape[axis];
    }
    result
}

/// The element at each index is that of `x` at `first + sum of index * stride`.
fn read(shape: &[usize], first: usize, strides: &[usize], x: &Array) -> Array {
    let mut data = Vec::with_capacity(shape.iter().product());
    for_each_position(shape, strides, first, |position| data.push(x.data[position]));
    Array { shape: shape.to_vec(), data }
}

/// Puts `x` into `result` from the index `starts` on.
fn write(result: &mut Array, starts: &[usize], x: &Array) {
    let (first, strides) = (result.position(starts), dense_strides(&result.shape));
    let mut next = 0;
    for_each_position(&x.shape, &strides, first, |position| {
        result.data[position] = x.data[next];
        next += 1;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Array {
        let mut next = 0.0;
        Array::from_fn(shape, |_| {
            next += 1.0;
            next
        })
    }

    #[test]
    fn views_move_elements() {
        let x = counting(&[2, 3]);
        assert_eq!(permute(&[1, 0], &x).data, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(slice(&[2, 2], &[0, 0], &[1, 2], &x).data, [1.0, 3.0, 4.0, 6.0]);
        assert_eq!(pad(&[1, 5], &[0, 1], &counting(&[1, 2])).data, [0.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(broadcast(&[2, 2], &counting(&[2, 1])).data, [1.0, 1.0, 2.0, 2.0]);
        let joined = concatenate(&[2, 4], 1, &[&counting(&[2, 1]), &x]);
        assert_eq!(joined.data, [1.0, 1.0, 2.0, 3.0, 2.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn pad_is_the_transpose_of_slice() {
        let x = counting(&[5, 7]);
        let (starts, steps) = ([1, 2], [1, 1]);
        let y = counting(&[2, 3]);
        let dot = |a: &Array, b: &Array| a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum::<f64>();
        let sliced = slice(&[2, 3], &starts, &steps, &x);
        assert_eq!(dot(&sliced, &y), dot(&x, &pad(&[5, 7], &starts, &y)));
    }
}
