//! Eigenvectors of small symmetric matrices as expressions: Jacobi's method, all rotations of disjoint pairs at
//! once (Brent, Luk, *The solution of singular-value and symmetric eigenvalue problems on multiprocessor
//! arrays*, 1985).

use autograd::Tensor;

/// Sweeps over all pairs. Convergence is quadratic: six give all of `f32`'s digits up to size 64.
const SWEEPS: usize = 6;

/// Eigenvalues `[N, w]` and eigenvectors, the columns of `[N, w, w]`, of symmetric matrices `[N, w, w]`, in no
/// order; `w` at least 2. No gradient is meant to flow through this: see [`follow`].
pub(super) fn eigen(matrices: &Tensor) -> (Tensor, Tensor) {
    let (count, w) = (matrices.dim(0), matrices.dim(2));
    // The matrices side by side, so that each step is the same arithmetic on long rows.
    let mut a = matrices.permute(&[1, 2, 0]);
    // The vectors are rows until the end.
    let mut vectors = identity(w).unsqueeze(2).broadcast_to(&[w, w, count]);
    for round in 0..SWEEPS * w {
        let turn = Turn::new(&a, round % 2);
        vectors = turn.of(&vectors, 0);
        a = turn.of(&turn.of(&a, 0), 1);
    }
    refined(matrices, &vectors.permute(&[2, 1, 0]))
}

fn identity(w: usize) -> Tensor {
    Tensor::iota(&[w, w], 0).equal(&Tensor::iota(&[w, w], 1))
}

/// Rotations of neighbours, `(i, i + 1)` for every second `i`, that make their element 0, after which the two change
/// places. In `w` rounds, with even and odd `i` by turns, each two are neighbours once (an odd-even transposition
/// sort that reverses the order).
struct Turn {
    /// What a new row has of the old one in its place, the one after and the one before: `[w, N]`.
    stays: Tensor,
    after: Tensor,
    before: Tensor,
}

impl Turn {
    /// For matrices `[w, w, N]`; the first pair is at `first`, 0 or 1.
    fn new(a: &Tensor, first: usize) -> Turn {
        let (w, count) = (a.dim(0), a.dim(2));
        let flat = a.reshape(&[w * w, count]);
        let diagonal = |start, len| flat.slice(0, start, len, w + 1);
        let difference = diagonal(w + 1, w - 1) - diagonal(0, w - 1);
        let twice = diagonal(1, w - 1) * 2.0;
        // The tangent of the smaller angle; 0 where there is nothing to turn.
        let size = difference.abs() + (difference.square() + twice.square()).sqrt();
        let zero = Tensor::scalar(0.0);
        let signed = difference.less(&zero).select(&-&twice, &twice);
        let tangent = size.equal(&zero).select(&zero, &(signed / size.maximum(&Tensor::scalar(1e-30))));
        let pairs = (0..w - 1).map(|i| f32::from(i % 2 == first)).collect();
        let pairs = Tensor::constant(&[w - 1, 1], pairs);
        let [as_first, as_second] = [pairs.pad(0, 0, 1), pairs.pad(0, 1, 0)];
        let cosine = (tangent.square() + 1.0).sqrt().reciprocal() * &pairs;
        let sine = tangent * &cosine;
        Turn {
            stays: sine.pad(0, 0, 1) - sine.pad(0, 1, 0) + (1.0 - as_first - as_second),
            after: cosine.pad(0, 0, 1),
            before: cosine.pad(0, 1, 0),
        }
    }

    /// Along an axis of `[w, w, N]`, the first or the second.
    fn of(&self, x: &Tensor, axis: usize) -> Tensor {
        let others = x.dim(axis) - 1;
        let after = x.slice(axis, 1, others, 1).pad(axis, 0, 1);
        let before = x.slice(axis, 0, others, 1).pad(axis, 1, 0);
        let [stays, one, other] = [&self.stays, &self.after, &self.before].map(|x| x.unsqueeze(1 - axis));
        stays * x + one * after + other * before
    }
}

/// Eigenvalues, and eigenvectors without what the rotations' roundings left: a step of Ogita and Aishima, *Iterative
/// refinement for symmetric eigenvalue decomposition* (2018).
fn refined(matrices: &Tensor, vectors: &Tensor) -> (Tensor, Tensor) {
    let (count, width) = (vectors.dim(0), vectors.dim(2));
    let r = identity(width) - vectors.transpose().matmul(vectors);
    let s = vectors.transpose().matmul(&matrices.matmul(vectors));
    let diagonal = |x: &Tensor| x.reshape(&[count, width * width]).slice(1, 0, width, width + 1);
    let values = diagonal(&s) / (1.0 - diagonal(&r));
    let (row, column) = (values.reshape(&[count, width, 1]), values.reshape(&[count, 1, width]));
    let gap = &column - &row;
    // Vectors of eigenvalues that are equal in f32 stay as they are: orthogonal is all they can be.
    let near = gap.abs().less_equal(&(values.abs().max(1).unsqueeze(2) * 1e-5));
    let parted = near.select(&Tensor::scalar(1.0), &gap);
    let turn = near.select(&(&r * 0.5), &((s + &column * &r) / parted));
    (values, vectors + vectors.matmul(&turn))
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
            let off = (&product - product.clone() * identity(width)).square().sum_all();
            let unit = (vectors.transpose().matmul(&vectors) - identity(width)).square().sum_all()
                / (2 * width) as f64;
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
