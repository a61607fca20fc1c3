//! Moving elements without computing: permute, slice, pad, broadcast, concatenate.

use super::Array;

/// Output dim `d` is input dim `axes[d]`.
pub fn permute(axes: &[usize], x: &Array) -> Array {
    let shape: Vec<usize> = axes.iter().map(|&axis| x.shape[axis]).collect();
    let mut source = vec![0; axes.len()];
    Array::from_fn(&shape, |index| {
        for (&axis, &i) in axes.iter().zip(index) {
            source[axis] = i;
        }
        x.at(&source)
    })
}

/// Output index `i` reads `starts + i * steps`.
pub fn slice(shape: &[usize], starts: &[usize], steps: &[usize], x: &Array) -> Array {
    Array::from_fn(shape, |index| x.at(&spread(index, starts, steps)))
}

/// Zeros, with input index `i` at `starts + i`.
pub fn pad(shape: &[usize], starts: &[usize], x: &Array) -> Array {
    let mut result = Array::from_fn(shape, |_| 0.0);
    super::for_each_index(&x.shape, |index| {
        let position = result.position(&spread(index, starts, &vec![1; starts.len()]));
        result.data[position] = x.at(index);
    });
    result
}

/// Repeats dims of size 1.
pub fn broadcast(shape: &[usize], x: &Array) -> Array {
    Array::from_fn(shape, |index| {
        let source: Vec<usize> =
            index.iter().zip(&x.shape).map(|(&i, &size)| if size == 1 { 0 } else { i }).collect();
        x.at(&source)
    })
}

/// The operands one after the other along `axis`.
pub fn concatenate(shape: &[usize], axis: usize, operands: &[&Array]) -> Array {
    Array::from_fn(shape, |index| {
        let mut source = index.to_vec();
        for operand in operands {
            if source[axis] < operand.shape[axis] {
                return operand.at(&source);
            }
            source[axis] -= operand.shape[axis];
        }
        unreachable!("the shape rule gives the axis the sum of the operands' sizes")
    })
}

fn spread(index: &[usize], starts: &[usize], steps: &[usize]) -> Vec<usize> {
    index.iter().zip(starts).zip(steps).map(|((i, start), step)| start + i * step).collect()
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
