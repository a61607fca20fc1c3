//! Map and Reduce kernels against what they mean.

mod common;

use autograd::tensor::{BinaryOp, UnaryOp};
use common::build::{load, store, strided};
use common::{Builder, check, check_unchecked_too};
use schedule::*;

/// Values where functions have something to go wrong.
const EDGES: [f32; 12] =
    [0.0, -0.0, 1.0, -1.0, 0.5, 3.25, -7.5, 80.0, -80.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn map(shape: &[usize], instrs: Vec<Instr>, stores: Vec<Store>) -> Body {
    Body::map(shape.to_vec(), Program { instrs }, stores)
}

#[test]
fn every_unary_function() {
    for op in UnaryOp::ALL {
        // 12 elements go by fours, 11 one by one.
        for n in [12, 11] {
            let mut b = Builder::new(1);
            let x = b.input("x", &[n], EDGES[..n].to_vec());
            let y = b.output("y", &[n]);
            b.kernel(map(&[n], vec![load(x, &[n]), Instr::Unary(op, 0)], vec![store(y, &[n], 1)]));
            // exp(80) dominates the scale; exp is looked at again below.
            check(&b, 3e-6);
        }
        let mut b = Builder::new(2);
        let x = b.random("x", &[64]);
        let y = b.output("y", &[64]);
        let instrs = vec![load(x, &[64]), Instr::Unary(UnaryOp::Abs, 0), Instr::Unary(op, 1)];
        b.kernel(map(&[64], instrs, vec![store(y, &[64], 2)]));
        check(&b, 1e-6);
    }
}

#[test]
fn every_binary_function_at_every_pair_of_edges() {
    for op in BinaryOp::ALL {
        let mut b = Builder::new(1);
        let x = b.input("x", &[12], EDGES.to_vec());
        let y = b.output("y", &[12, 12]);
        let instrs = vec![strided(x, 0, &[1, 0]), strided(x, 0, &[0, 1]), Instr::Binary(op, 0, 1)];
        b.kernel(map(&[12, 12], instrs, vec![store(y, &[12, 12], 2)]));
        check(&b, 1e-6);
    }
}

#[test]
fn select_constants_indices_and_bounds() {
    for width in [8, 7] {
        let shape = [3, 5, width];
        let mut b = Builder::new(3);
        let x = b.random("x", &shape);
        let y = b.output("y", &shape);
        let strides = View::dense(&shape).strides;
        let inner = View {
            offset: 0,
            strides: vec![0; 3],
            bounds: vec![
                Bound { offset: -1, strides: vec![0, 1, 0], extent: 3 },
                Bound { offset: -2, strides: vec![0, 0, 1], extent: 4 },
            ],
        };
        // x shifted by one row and one column; zero outside.
        let shifted = View {
            offset: -(width as i64) - 1,
            strides: strides.clone(),
            bounds: vec![
                Bound { offset: -1, strides: vec![0, 1, 0], extent: 5 },
                Bound { offset: -1, strides: vec![0, 0, 1], extent: width as i64 },
            ],
        };
        let instrs = vec![
            Instr::InBounds(inner),
            Instr::Index(View { offset: 5, strides: vec![1, -2, 3], bounds: vec![] }),
            Instr::Load { buffer: x, view: shifted },
            Instr::Select { condition: 0, yes: 1, no: 2 },
            Instr::Constant(1.5e-7),
            Instr::Binary(BinaryOp::Add, 3, 4),
        ];
        b.kernel(map(&shape, instrs, vec![store(y, &shape, 5)]));
        check(&b, 1e-6);
    }
}

#[test]
fn permuted_and_sliced_stores_and_infinite_constants() {
    let mut b = Builder::new(4);
    let x = b.random("x", &[6, 8]);
    let y = b.output("y", &[8, 6]);
    let z = b.output("z", &[6, 16]);
    let instrs = vec![load(x, &[6, 8]), Instr::Constant(f32::NEG_INFINITY)];
    let transposed =
        Store { buffer: y, view: View { offset: 0, strides: vec![1, 6], bounds: vec![] }, value: 0 };
    let right = Store { buffer: z, view: View { offset: 8, strides: vec![16, 1], bounds: vec![] }, value: 0 };
    let left = Store { buffer: z, view: View { offset: 0, strides: vec![16, 1], bounds: vec![] }, value: 1 };
    b.kernel(map(&[6, 8], instrs.clone(), vec![transposed]));
    b.kernel(map(&[6, 8], instrs, vec![right, left]));
    check(&b, 0.0);
}

#[test]
fn in_place_and_shared_slots() {
    // Two temporaries in one slot: the map reads one and writes the other at the same index.
    for n in [8, 5] {
        let mut b = Builder::new(5);
        let x = b.random("x", &[n]);
        let (first, second) = (b.temporary(&[n], 0), b.temporary(&[n], 0));
        let y = b.output("y", &[n]);
        let double = |from: BufferId, to: BufferId| {
            map(&[n], vec![load(from, &[n]), Instr::Binary(BinaryOp::Add, 0, 0)], vec![store(to, &[n], 1)])
        };
        b.kernel(double(x, first));
        b.kernel(double(first, second));
        b.kernel(double(second, y));
        check_unchecked_too(&b, 0.0);
    }
}

#[test]
fn random_is_the_engines() {
    let mut b = Builder::new(6);
    let seed = b.input("int seed", &[], vec![1234567.0]);
    let step = b.input("int step", &[], vec![42.0]);
    let y = b.output("y", &[4, 10]);
    let z = b.output("z", &[4, 8]);
    for (out, width) in [(y, 10), (z, 8)] {
        let instrs = vec![
            strided(seed, 0, &[0, 0]),
            strided(step, 0, &[0, 0]),
            Instr::Random { stream: 3, index: View::dense(&[4, width]), seed: 0, step: 1 },
        ];
        b.kernel(map(&[4, width], instrs, vec![store(out, &[4, width], 2)]));
    }
    check(&b, 0.0);
}

#[test]
fn a_map_over_more_workgroups_than_one_dimension_holds() {
    // 65,535 groups of 64 threads of 4 elements is 16.8 million.
    let n = 65_535 * 64 * 4 + 4;
    let mut b = Builder::new(7);
    let y = b.temporary(&[n], 0);
    let last = b.output("last", &[8]);
    let index = Instr::Index(View { offset: 0, strides: vec![1], bounds: vec![] });
    let small = vec![index, Instr::Constant(1.0 / 1024.0), Instr::Binary(BinaryOp::Mul, 0, 1)];
    b.kernel(map(&[n], small, vec![store(y, &[n], 2)]));
    b.kernel(map(&[8], vec![strided(y, n as i64 - 8, &[1])], vec![store(last, &[8], 0)]));
    let Some(devices) = common::devices() else { return };
    for (_, device) in &devices.0 {
        let outputs = common::run(device, &b.schedule, &b.inputs);
        let expected: Vec<f32> = (n - 8..n).map(|i| i as f32 / 1024.0).collect();
        assert_eq!(outputs[0].1, expected);
    }
}

fn reduce(
    shape: &[usize],
    outer: usize,
    x: BufferId,
    strides: &[i64],
    kinds: &[(ReduceKind, BufferId)],
) -> Body {
    let out_shape = &shape[..outer];
    Body::Reduce {
        shape: shape.to_vec(),
        outer,
        program: Program { instrs: vec![strided(x, 0, strides)] },
        accumulators: kinds.iter().map(|(kind, _)| (*kind, 0)).collect(),
        finish: Program { instrs: (0..kinds.len()).map(Instr::Accumulator).collect() },
        stores: kinds.iter().enumerate().map(|(k, (_, out))| store(*out, out_shape, k)).collect(),
    }
}

/// One and two outer dims, a whole number of values in every chunk and not.
#[test]
fn folds_in_many_chunks() {
    use ReduceKind::*;
    let cases: [(&[usize], usize, &[i64]); 5] = [
        (&[16, 1 << 14], 1, &[1, 16]),
        (&[16, 9_004], 1, &[1, 16]),
        (&[64, 2_048], 1, &[1, 64]),
        (&[2, 32, 3_074], 2, &[32 * 3_074, 1, 32]),
        (&[3, 8, 8_192], 2, &[8 * 8_192, 1, 8]),
    ];
    for (number, (shape, outer, strides)) in cases.into_iter().enumerate() {
        let mut b = Builder::new(40 + number as u32);
        let total: usize = shape.iter().product();
        let x = b.random("x", &[total]);
        let out = &shape[..outer];
        let kinds = [
            (Sum, b.output("sum", out)),
            (Max, b.output("max", out)),
            (Variance, b.output("variance", out)),
            (ArgMax, b.output("argmax", out)),
        ];
        b.kernel(reduce(shape, outer, x, strides, &kinds));
        check(&b, 3e-6);
    }
}

/// Every fold over rows, columns and everything, short and long enough for two stages.
#[test]
fn every_fold() {
    use ReduceKind::*;
    let cases: [(&[usize], usize, &[i64]); 8] = [
        (&[5, 7], 1, &[7, 1]),
        (&[8, 300], 1, &[300, 1]),
        (&[16, 5000], 1, &[1, 16]),
        (&[12, 3, 50, 7], 1, &[1, 4200, 84, 12]),
        (&[3, 2000], 1, &[1, 3]),
        (&[4000], 0, &[1]),
        (&[2, 8, 9, 5], 2, &[360, 1, 40, 8]),
        (&[6, 1], 1, &[1, 1]),
    ];
    for (number, (shape, outer, strides)) in cases.into_iter().enumerate() {
        let mut b = Builder::new(number as u32);
        let total: usize = shape.iter().product();
        let x = b.random("x", &[total]);
        let out = &shape[..outer];
        let kinds = [
            (Sum, b.output("sum", out)),
            (Max, b.output("max", out)),
            (Variance, b.output("variance", out)),
            (ArgMax, b.output("argmax", out)),
        ];
        b.kernel(reduce(shape, outer, x, strides, &kinds));
        check(&b, 2e-6);
    }
}

#[test]
fn a_variance_far_from_zero_stays_accurate() {
    let mut b = Builder::new(1);
    let x = b.random("x", &[20_000]);
    b.inputs[0].1.iter_mut().for_each(|v| *v += 1000.0);
    let out = b.output("variance", &[4]);
    b.kernel(reduce(&[4, 5000], 1, x, &[1, 4], &[(ReduceKind::Variance, out)]));
    // The mean is 1,700 standard deviations: one rounding of it costs 1e-4 at worst, and the formula
    // E[v^2] - E[v]^2 would leave no correct digit.
    check(&b, 5e-5);
}

#[test]
fn ties_and_nan_in_maxima() {
    use ReduceKind::*;
    let nan = f32::NAN;
    let rows =
        [[1.0, 3.0, 3.0, 2.0], [nan, 3.0, 9.0, nan], [0.0, nan, f32::INFINITY, nan], [f32::NEG_INFINITY; 4]];
    // Along rows (one value at a time) and along columns (four at a time).
    for strides in [[4, 1], [1, 4]] {
        let mut b = Builder::new(1);
        let x = b.input("x", &[4, 4], rows.concat());
        let kinds = [(Max, b.output("max", &[4])), (ArgMax, b.output("argmax", &[4]))];
        b.kernel(reduce(&[4, 4], 1, x, &strides, &kinds));
        check(&b, 0.0);
    }
    // By several lanes, and in two stages: the first NaN is behind a larger number, and values tie across
    // lanes and chunks, infinities as well.
    for n in [1000, 100_000] {
        let mut ties = vec![1.0; n];
        ties[n / 100] = 5.0;
        ties[n / 10 * 9] = 5.0;
        let mut with_nan = ties.clone();
        with_nan[n / 10 * 7] = nan;
        with_nan[n / 10 * 8] = nan;
        for values in [ties, with_nan, vec![f32::NEG_INFINITY; n]] {
            let mut b = Builder::new(1);
            let x = b.input("x", &[n], values);
            let kinds = [(Max, b.output("max", &[])), (ArgMax, b.output("argmax", &[]))];
            b.kernel(reduce(&[n], 0, x, &[1], &kinds));
            check(&b, 0.0);
        }
    }
}

/// So many states that the workgroup memory allows fewer threads.
#[test]
fn a_fold_with_many_states() {
    for strides in [[1, 16], [2000, 1]] {
        let mut b = Builder::new(3);
        let (x, y) = (b.random("x", &[32_000]), b.output("y", &[16]));
        let kinds: Vec<(ReduceKind, BufferId)> = (0..24).map(|_| (ReduceKind::Variance, y)).collect();
        let mut body = reduce(&[16, 2000], 1, x, &strides, &kinds);
        if let Body::Reduce { finish, stores, .. } = &mut body {
            let add = |sum, k| finish.push(Instr::Binary(BinaryOp::Add, sum, k));
            let total = (1..24).fold(0, add);
            *stores = vec![store(y, &[16], total)];
        }
        b.kernel(body);
        check(&b, 2e-6);
    }
}

#[test]
fn a_reduction_with_producers_and_a_finish() {
    // log(sum(exp(x - max))) + max, with the maximum from a buffer.
    let mut b = Builder::new(9);
    let x = b.random("x", &[9, 10]);
    let max = b.random("max", &[9]);
    let y = b.output("y", &[9]);
    b.kernel(Body::Reduce {
        shape: vec![9, 10],
        outer: 1,
        program: Program {
            instrs: vec![
                load(x, &[9, 10]),
                strided(max, 0, &[1, 0]),
                Instr::Binary(BinaryOp::Sub, 0, 1),
                Instr::Unary(UnaryOp::Exp, 2),
            ],
        },
        accumulators: vec![(ReduceKind::Sum, 3)],
        finish: Program {
            instrs: vec![
                Instr::Accumulator(0),
                Instr::Unary(UnaryOp::Log, 0),
                strided(max, 0, &[1]),
                Instr::Binary(BinaryOp::Add, 1, 2),
            ],
        },
        stores: vec![store(y, &[9], 3)],
    });
    check(&b, 2e-6);
}

/// Parts of every size and kind in one launch: vectors, single elements, masks.
#[test]
fn groups_of_maps() {
    let shapes = [[1, 1], [4, 64], [3, 5], [5, 4], [100, 100], [7, 8], [1, 3], [65, 1], [2, 2], [9, 1]];
    // Seven buffers at most: three parts of two, and the rate.
    for parts in [0..2, 2..5, 5..8, 7..10] {
        let mut b = Builder::new(parts.start as u32);
        let rate = b.random("rate", &[]);
        let mut group = Vec::new();
        for number in parts {
            let shape = shapes[number];
            let x = b.random(&format!("x{number}"), &shape);
            let y = b.output(&format!("y{number}"), &shape);
            let mut masked = View::dense(&shape);
            masked.bounds.push(Bound { offset: -1, strides: vec![0, 1], extent: shape[1] as i64 - 1 });
            let instrs = vec![
                load(x, &shape),
                strided(rate, 0, &[0, 0]),
                Instr::Binary(BinaryOp::Mul, 0, 1),
                Instr::Load { buffer: x, view: masked },
                Instr::Binary(BinaryOp::Sub, 3, 2),
            ];
            let stores = vec![store(y, &shape, 4)];
            group.push(Map { shape: shape.to_vec(), program: Program { instrs }, stores });
        }
        b.kernel(Body::Map { parts: group });
        check(&b, 1e-6);
    }
}
