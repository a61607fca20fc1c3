//! Eigenvectors of small symmetric matrices as expressions: Jacobi's method, all rotations of disjoint pairs at
//! once (Brent, Luk, *The solution of singular-value and symmetric eigenvalue problems on multiprocessor
//! arrays*, 1985).

use autograd::Tensor;

/// Sweeps over all pairs. Convergence is quadratic: six give all of `f32`'s digits up to size 64.
const SWEEPS: usize = 6;

/// Eigenvalues `[N, w]` and eigenvectors, the columns of `[N, w, w]`, of symmetric matrices `[N, w, w]`, in no
/// order; `w` at least 2. No gradient is meant to flow through this: see [`follow`].
pub(super) fn eigen(matrices: &Tensor) -> (Tensor, Tensor) {
    let (count, width) = (matrices.dim(0), matrices.dim(2));
    // An odd size gets one row and column of zeros more, which no rotation mixes with the others.
    let w = width + width % 2;
    let pad = |x: &Tensor, axis: usize| x.pad(axis, 0, w - width);
    let mut a = pad(&pad(matrices, 1), 2);
    let rotation = Rotation::new(w);
    let mut vectors = rotation.identity(w).broadcast_to(&[count, w, w]);
    for _ in 0..SWEEPS * (w - 1) {
        let turn = rotation.of(&a);
        let both = Tensor::concatenate(&[&a, &vectors], 1).matmul(&turn);
        a = turn.transpose().matmul(&both.slice(1, 0, w, 1));
        vectors = both.slice(1, w, w, 1);
    }
    // The columns' order is that of the beginning again after each sweep: the one that was added is the last.
    refined(matrices, &vectors.slice(1, 0, width, 1).slice(2, 0, width, 1))
}

/// Eigenvalues, and eigenvectors without what the rotations' roundings left: a step of Ogita and Aishima, *Iterative
/// refinement for symmetric eigenvalue decomposition* (2018).
fn refined(matrices: &Tensor, vectors: &Tensor) -> (Tensor, Tensor) {
    let (count, width) = (vectors.dim(0), vectors.dim(2));
    let identity = Tensor::iota(&[width, width], 0).equal(&Tensor::iota(&[width, width], 1));
    let r = &identity - vectors.transpose().matmul(vectors);
    let s = vectors.transpose().matmul(&matrices.matmul(vectors));
    let values = diagonal(&s, 0, width) / (1.0 - diagonal(&r, 0, width));
    let (row, column) = (values.reshape(&[count, width, 1]), values.reshape(&[count, 1, width]));
    let gap = &column - &row;
    // Vectors of eigenvalues that are equal in f32 stay as they are: orthogonal is all they can be.
    let near = gap.abs().less_equal(&(values.abs().max(1).unsqueeze(2) * 1e-5));
    let parted = near.select(&Tensor::scalar(1.0), &gap);
    let turn = near.select(&(&r * 0.5), &((s + &column * &r) / parted));
    (values, vectors + vectors.matmul(&turn))
}

/// Elements `[N, len]` of the diagonal that begins in column `start`.
fn diagonal(a: &Tensor, start: usize, len: usize) -> Tensor {
    let (count, w) = (a.dim(0), a.dim(2));
    a.reshape(&[count, w * w]).slice(1, start, len, w + 1)
}

/// A rotation of the pairs `(i, w/2 + i)` and then the places of a round robin, so that after `w - 1`
/// rounds each two indices have been a pair and stand where they stood.
struct Rotation {
    /// Where a new column has the cosine of its pair, and where the sine, with its sign: `[w, w]`.
    cosines: Tensor,
    sines: Tensor,
}

impl Rotation {
    fn new(w: usize) -> Rotation {
        let half = w / 2;
        // The old index of each new place: the first stays, the others go round.
        let old = |place: usize| match place {
            0 => 0,
            1 => half,
            place if place < half => place - 1,
            place if place < w - 1 => place + 1,
            _ => half - 1,
        };
        // Of two rows of one, the places of a pair of two indices, which stay.
        let old = |place: usize| if w == 2 { place } else { old(place) };
        let entries = |entry: &dyn Fn(usize, usize) -> f32| {
            let all = (0..w * w).map(|at| entry(at / w, old(at % w)));
            Tensor::constant(&[w, w], all.collect())
        };
        let sine = |row: usize, old: usize| match row.abs_diff(old) == half {
            true if row < old => 1.0,
            true => -1.0,
            false => 0.0,
        };
        Rotation { cosines: entries(&|row, old| f32::from(row == old)), sines: entries(&sine) }
    }

    fn identity(&self, w: usize) -> Tensor {
        Tensor::iota(&[w, w], 0).equal(&Tensor::iota(&[w, w], 1))
    }

    /// The orthogonal `[N, w, w]` that makes the pairs' elements of `a` 0.
    fn of(&self, a: &Tensor) -> Tensor {
        let half = a.dim(2) / 2;
        let [p, q] = [0, half].map(|at| diagonal(a, 0, 2 * half).slice(1, at, half, 1));
        let (difference, twice) = (q - p, diagonal(a, half, half) * 2.0);
        // The tangent of the smaller angle; 0 where there is nothing to turn.
        let size = difference.abs() + (difference.square() + twice.square()).sqrt();
        let zero = Tensor::scalar(0.0);
        let signed = difference.less(&zero).select(&-&twice, &twice);
        let tangent = size.equal(&zero).select(&zero, &(signed / size.maximum(&Tensor::scalar(1e-30))));
        let cosine = (tangent.square() + 1.0).sqrt().reciprocal();
        let sine = tangent * &cosine;
        let [cosine, sine] = [cosine, sine].map(|x| self.columns(&x));
        cosine * &self.cosines + sine * &self.sines
    }

    /// Each new column's value of its pair: `[N, w/2] -> [N, 1, w]`.
    fn columns(&self, pairs: &Tensor) -> Tensor {
        let half = pairs.dim(1);
        let parts = match half {
            1 => vec![pairs.clone(), pairs.clone()],
            _ => [(0, 1), (0, half - 1), (1, half - 1), (half - 1, 1)]
                .map(|(start, len)| pairs.slice(1, start, len, 1))
                .to_vec(),
        };
        Tensor::concatenate(&parts.iter().collect::<Vec<_>>(), 1).unsqueeze(1)
    }
}

/// The columns `[N, w, k]` of the `k` largest eigenvalues, largest first, with these values `[N, k]`.
pub(super) fn largest(values: &Tensor, vectors: &Tensor, k: usize) -> (Tensor, Tensor) {
    let (mut left, mut columns, mut found) = (values.clone(), Vec::new(), Vec::new());
    for _ in 0..k {
        let place = Tensor::iota(values.shape(), 1).equal(&left.argmax(1));
        found.push(left.max(1));
        columns.push(vectors.matmul(&place.unsqueeze(2)));
        // Eigenvalues of products are not negative.
        left = place.select(&Tensor::scalar(-1.0), &left);
    }
    let join = |parts: &[Tensor], axis| Tensor::concatenate(&parts.iter().collect::<Vec<_>>(), axis);
    (join(&columns, 2), join(&found, 1))
}

/// The eigenvectors `columns` `[N, w, k]` of `matrices`, with eigenvalues `found` `[N, k]`, as functions of the matrices:
/// to first order, `dv_j = sum over i of v_i (v_i' dA v_j) / (l_j - l_i)`. Equal eigenvalues, whose vectors are
/// not determined, give nothing to each other.
pub(super) fn follow(
    matrices: &Tensor,
    (values, vectors): (&Tensor, &Tensor),
    (columns, found): (&Tensor, &Tensor),
) -> Tensor {
    let change = matrices - matrices.detach();
    let along = vectors.transpose().matmul(&change.matmul(columns));
    // [N, w, k]: l_j - l_i.
    let gap = found.unsqueeze(1) - values.unsqueeze(2);
    let zero = Tensor::scalar(0.0);
    let is_zero = gap.equal(&zero);
    let inverse = is_zero.select(&zero, &is_zero.select(&Tensor::scalar(1.0), &gap).reciprocal());
    columns + vectors.matmul(&(along * inverse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    #[test]
    fn matrices_are_diagonal_in_their_eigenvectors() {
        for width in [2, 3, 4, 7, 8, 16, 32, 56] {
            let mut random = Stream::new(1, Purpose::Order, width as u64, 0);
            let x: Vec<f32> = (0..2 * 3 * width * width).map(|_| random.normal() as f32).collect();
            let x = Tensor::constant(&[2, 3 * width, width], x);
            let a = x.transpose().matmul(&x);
            let (values, vectors) = eigen(&a);
            let (columns, found) = largest(&values, &vectors, 2);
            let along = a.matmul(&columns) - &columns * found.unsqueeze(1);
            let product = vectors.transpose().matmul(&a.matmul(&vectors));
            let identity = Tensor::iota(&[width, width], 0).equal(&Tensor::iota(&[width, width], 1));
            let off = (&product - product.clone() * &identity).square().sum_all();
            let unit =
                (vectors.transpose().matmul(&vectors) - identity).square().sum_all() / (2 * width) as f64;
            let norm = a.square().sum_all();
            let order = found.slice(1, 0, 1, 1) - found.slice(1, 1, 1, 1);
            let read = |x: &Tensor| x.evaluate().unwrap();
            let size = read(&norm)[0];
            // The largest have f32's digits after six sweeps and not yet f64's.
            let limit = if width < 56 { 1e-10 } else { f64::from(f32::EPSILON) };
            assert!(read(&off)[0] / size < limit.powi(2), "{width}: {:e}", read(&off)[0] / size);
            assert!(read(&unit)[0] < limit.powi(2), "{width}: {:e}", read(&unit)[0]);
            assert!(read(&along).iter().all(|v| v.abs() < 10.0 * limit * size.sqrt()), "{width}");
            assert!(read(&order).iter().all(|&gap| gap > 0.0), "{width}: the largest first");
        }
    }
}
