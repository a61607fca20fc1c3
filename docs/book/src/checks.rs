//! What is asked of an answer to an exercise: an error says what is wrong with it.

use std::collections::HashMap;

use autograd::{Conv2d, Tensor, evaluate, grad};

use schedule::{Options, Step};

use crate::backwards::{Made, Tape, backward};
use crate::derivative::Dual;
use crate::exercises::Norm;

/// Of a check: what is wrong.
pub type Verdict = Result<(), String>;

/// Whether two lists of numbers are the same up to a relative error.
pub fn close(name: &str, answer: &[f64], expected: &[f64], tolerance: f64) -> Verdict {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * b.abs().max(1.0);
    match answer.len() == expected.len() && answer.iter().zip(expected).all(near) {
        true => Ok(()),
        false => Err(format!("{name}: {answer:?}, not {expected:?}")),
    }
}

/// The values of an expression, or why there are none.
pub fn values(tensor: &Tensor) -> Result<Vec<f64>, String> {
    tensor.evaluate().map_err(|error| error.to_string())
}

pub fn fourth_order(answer: fn(fn(f64) -> f64, f64, f64) -> f64) -> Verdict {
    let error = |h: f64| (answer(f64::exp, 0.5, h) - 0.5f64.exp()).abs();
    let (wide, narrow) = (error(0.1), error(0.05));
    let ratio = wide / narrow;
    close("exp at 0.5 with h = 0.1", &[wide], &[0.0], 1e-4)?;
    match (14.0..18.0).contains(&ratio) {
        true => Ok(()),
        false => Err(format!("half of h makes the error {ratio:.1} times smaller, not about 16 times")),
    }
}

pub fn dual_quotient(answer: fn(Dual, Dual) -> Dual) -> Verdict {
    let dual = |value, slope| Dual { value, slope };
    for (a, b) in [
        (dual(3.0, 1.0), dual(4.0, 0.0)),
        (dual(3.0, 0.0), dual(4.0, 1.0)),
        (dual(-2.0, 0.5), dual(8.0, 3.0)),
    ] {
        let (c, back) = (answer(a, b), answer(a, b) * b);
        close(&format!("{a:?} / {b:?}"), &[c.value], &[a.value / b.value], 1e-12)?;
        // A quotient times its divisor is the dividend, and so are their slopes.
        close(&format!("slope of ({a:?} / {b:?}) · {b:?}"), &[back.slope], &[a.slope], 1e-12)?;
    }
    Ok(())
}

pub fn sigmoid_rule(answer: fn(&Tensor, &Tensor) -> Tensor) -> Verdict {
    let x = Tensor::constant(&[4], vec![-3.0, -0.5, 0.0, 2.0]);
    let g = Tensor::constant(&[4], vec![1.0, -2.0, 0.5, 3.0]);
    let y = x.sigmoid();
    let expected = &grad(&(&y * &g).sum_all(), &[x])[0];
    close("sigmoid", &values(&answer(&y, &g))?, &values(expected)?, 1e-9)
}

pub fn unstretch(answer: fn(&Tensor, &[usize]) -> Tensor) -> Verdict {
    for (from, to) in [([2, 1], [2, 3]), ([1, 3], [4, 3]), ([1, 1], [2, 2]), ([2, 2], [2, 2])] {
        let x = Tensor::full(&from, 1.0);
        let count = to[0] * to[1];
        let g = Tensor::constant(&to, (0..count).map(|i| (i * i) as f32).collect());
        let expected = &grad(&(x.broadcast_to(&to) * &g).sum_all(), &[x])[0];
        let given = answer(&g, &from);
        if given.shape() != from {
            return Err(format!("from {from:?} to {to:?}: a gradient of shape {:?}", given.shape()));
        }
        close(&format!("from {from:?} to {to:?}"), &values(&given)?, &values(expected)?, 1e-12)?;
    }
    Ok(())
}

/// (x y + log x) · x y
fn tape() -> Tape {
    let mut tape = Tape::default();
    let (x, y) = (tape.input(3.0), tape.input(-2.0));
    let product = tape.push(Made::Mul(x, y));
    let log = tape.push(Made::Log(x));
    let sum = tape.push(Made::Add(product, log));
    tape.push(Made::Mul(sum, product));
    tape
}

pub fn uses(answer: fn(&Tape) -> Vec<usize>) -> Verdict {
    let given = answer(&tape());
    match given == [2, 1, 2, 1, 1, 0] {
        true => Ok(()),
        false => Err(format!("{given:?} for (x y + log x) · x y")),
    }
}

pub fn forward(answer: fn(&Tape, usize) -> f64) -> Verdict {
    let tape = tape();
    let given: Vec<f64> = (0..tape.entries.len()).map(|at| answer(&tape, at)).collect();
    close("slopes of (x y + log x) · x y", &given, &backward(&tape), 1e-12)
}

pub fn newton_root(answer: fn(fn(&Tensor) -> Tensor, f64) -> f64) -> Verdict {
    close("x² = 2 from 1", &[answer(|x| x.square() - 2.0, 1.0)], &[2f64.sqrt()], 1e-12)?;
    close("exp(x) = 3 from 0", &[answer(|x| x.exp() - 3.0, 0.0)], &[3f64.ln()], 1e-12)?;
    close("tanh(x) = 1/2 from 0", &[answer(|x| x.tanh() - 0.5, 0.0)], &[0.5f64.atanh()], 1e-12)
}

pub fn hessian_product(answer: fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> Verdict {
    let x = Tensor::constant(&[3], vec![0.3, -0.2, 0.5]);
    let loss = (x.exp() * x.slice(0, 0, 1, 1)).sum_all() + x.square().sum_all().square();
    let [a, b] = [[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]].map(|d| Tensor::constant(&[3], d.to_vec()));
    let dot = |u: &Tensor, v: &Tensor| values(&(u * v).sum_all());
    let (ha, hb) = (answer(&loss, &x, &a), answer(&loss, &x, &b));
    close("b · H a and a · H b", &dot(&b, &ha)?, &dot(&a, &hb)?, 1e-9)?;
    // Against a difference of gradients along a.
    let gradient = grad(&loss, std::slice::from_ref(&x)).remove(0);
    let moved = |by: f64| -> Result<Vec<f64>, String> {
        let place: Vec<f64> = values(&x)?.iter().zip(&values(&a)?).map(|(x, a)| x + by * a).collect();
        let none = HashMap::new();
        let instead = HashMap::from([(x.id(), place)]);
        let moved = evaluate(std::slice::from_ref(&gradient), &HashMap::new(), &none, &instead);
        Ok(moved.map_err(|error| error.to_string())?.remove(0))
    };
    let (after, before) = (moved(1e-5)?, moved(-1e-5)?);
    let difference: Vec<f64> = after.iter().zip(&before).map(|(u, v)| (u - v) / 2e-5).collect();
    close("H a", &values(&ha)?, &difference, 1e-6)
}

pub fn slots(answer: fn(&[(usize, usize, usize)]) -> Vec<usize>) -> Verdict {
    // With the memory that the best plan takes.
    let cases: [(&[(usize, usize, usize)], usize); 3] = [
        (&[(0, 1, 8), (1, 2, 8), (2, 3, 8), (3, 4, 8)], 16),
        (&[(0, 1, 4), (1, 2, 10), (2, 3, 4), (3, 4, 10)], 14),
        (&[(0, 4, 2), (0, 1, 6), (1, 2, 3), (2, 3, 6), (4, 5, 9)], 14),
    ];
    for (temporaries, best) in cases {
        let slots = answer(temporaries);
        if slots.len() != temporaries.len() {
            return Err(format!("{} slots for {} temporaries", slots.len(), temporaries.len()));
        }
        let lives_with =
            |i: usize, j: usize| temporaries[i].0 <= temporaries[j].1 && temporaries[j].0 <= temporaries[i].1;
        for i in 0..slots.len() {
            if let Some(j) = (0..i).find(|&j| slots[i] == slots[j] && lives_with(i, j)) {
                return Err(format!(
                    "{temporaries:?}: {j} and {i} share slot {} and live together",
                    slots[i]
                ));
            }
        }
        let size =
            |slot: usize| (0..slots.len()).filter(|&i| slots[i] == slot).map(|i| temporaries[i].2).max();
        let total: usize = (0..slots.len()).filter_map(size).sum();
        if total > best {
            return Err(format!("{temporaries:?} takes {total}, {best} would do"));
        }
    }
    Ok(())
}

pub fn inlined_cost(answer: fn(u64, u64) -> (u64, u64)) -> Verdict {
    for (elements, operations) in [(1000, 1), (50, 3), (4096, 7)] {
        let x = Tensor::input("x", &[elements]);
        // Functions that the graph's algebra cannot shorten.
        let y = (0..operations).fold(x, |x, i| if i % 2 == 0 { x.tanh() } else { x.exp() });
        let moved = |fuse: bool| {
            let options = Options { fuse, ..Options::default() };
            let schedule = Step::new().output("y", &y).schedule_with(options);
            schedule.map(|schedule| schedule.total_work().bytes).map_err(|error| error.to_string())
        };
        let (given, expected) = (answer(elements as u64, operations), (moved(false)?, moved(true)?));
        if given != expected {
            return Err(format!(
                "{operations} operations on {elements} elements: {given:?}, not {expected:?}"
            ));
        }
    }
    Ok(())
}

pub fn tile_reads(answer: fn(u64, u64, u64, u64, u64) -> u64) -> Verdict {
    for (m, k, n, rows, columns) in [(8, 5, 12, 4, 3), (6, 7, 4, 1, 1), (16, 2, 16, 16, 2)] {
        // Counted.
        let mut reads = 0;
        for _tile in 0..(m / rows) * (n / columns) {
            for _step in 0..k {
                reads += rows + columns;
            }
        }
        let given = answer(m, k, n, rows, columns);
        if given != reads {
            return Err(format!(
                "[{m}, {k}] x [{k}, {n}] in tiles of {rows} x {columns}: {given}, not {reads}"
            ));
        }
    }
    Ok(())
}

pub fn tree_sum(answer: fn(Vec<f32>) -> f32) -> Verdict {
    // (1e8 - 1e8) + (1 + 1): one after the other, the ones would be lost.
    let cases = [
        (vec![3.0], 3.0),
        (vec![1e8, 1.0, -1e8, 1.0], 2.0),
        (vec![1.0, 1e8, 2.0, 3.0, 4.0, -1e8, 5.0, 6.0], 21.0),
    ];
    for (values, expected) in cases {
        let given = answer(values.clone());
        if given != expected {
            return Err(format!("{values:?}: {given}, not {expected}"));
        }
    }
    Ok(())
}

/// Numbers that are neither regular nor random.
fn wavy(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::constant(shape, (0..count).map(|i| (((i + seed) * 37 % 101) as f32 - 50.0) / 25.0).collect())
}

pub fn input_gradient(answer: fn(&Tensor, &Tensor) -> Tensor) -> Verdict {
    let (x, weights, dy) = (wavy(&[2, 4, 5, 3], 0), wavy(&[2, 3, 3, 3], 3), wavy(&[2, 4, 5, 2], 5));
    let loss = (x.conv2d(&weights, Conv2d::new(1, 1)) * &dy).sum_all();
    let expected = values(&grad(&loss, &[x])[0])?;
    close("the image's gradient", &values(&answer(&dy, &weights))?, &expected, 1e-9)
}

pub fn convolution_cost(
    answer: fn([usize; 2], usize, usize, usize, usize, usize) -> (usize, usize),
) -> Verdict {
    for ([h, w], c, o, kernel, stride, padding) in [
        ([32, 32], 3, 16, 3, 1, 1),
        ([8, 6], 2, 5, 3, 2, 1),
        ([7, 7], 4, 4, 1, 2, 0),
        ([9, 12], 1, 2, 5, 3, 0),
    ] {
        let images = Tensor::input("images", &[1, h, w, c]);
        let weights = Tensor::input("weights", &[o, c, kernel, kernel]);
        let y = images.conv2d(&weights, Conv2d::new(stride, padding));
        let schedule = Step::new().output("y", &y).schedule().map_err(|error| error.to_string())?;
        let expected = (y.dim(1), schedule.total_work().flops as usize / 2);
        let given = answer([h, w], c, o, kernel, stride, padding);
        if given != expected {
            return Err(format!(
                "{h}x{w}, {c} to {o} channels, kernel {kernel}, stride {stride}, padding {padding}: {given:?}, not {expected:?}"
            ));
        }
    }
    Ok(())
}

pub fn folded(answer: fn(&Tensor, &Norm) -> (Tensor, Tensor)) -> Verdict {
    let (x, weights) = (wavy(&[2, 4, 4, 3], 0), wavy(&[2, 3, 3, 3], 9));
    let pair = |a: f32, b: f32| Tensor::constant(&[2], vec![a, b]);
    let norm = Norm {
        gamma: pair(1.5, -0.5),
        beta: pair(0.25, 2.0),
        mean: pair(0.5, -3.0),
        variance: pair(4.0, 0.0),
        eps: 1e-2,
    };
    let convolve = |weights: &Tensor| x.conv2d(weights, Conv2d::new(1, 1));
    let Norm { gamma, beta, mean, variance, eps } = &norm;
    let expected = convolve(&weights).batch_norm_eval(gamma, beta, mean, variance, *eps);
    let (new_weights, shift) = answer(&weights, &norm);
    close("convolution and norm", &values(&(convolve(&new_weights) + shift))?, &values(&expected)?, 1e-9)
}

pub fn running_statistics(answer: fn((f64, f64), &[f64], f64) -> (f64, f64)) -> Verdict {
    // The deviations from 2 are -1, 0, 1, -2, 2: squares of 10 in all, over 4.
    let (mean, variance) = answer((10.0, 5.0), &[1.0, 2.0, 3.0, 0.0, 4.0], 0.1);
    close("mean and variance", &[mean, variance], &[9.2, 4.75], 1e-12)
}

type Momentum = fn(&Tensor, &Tensor, &Tensor, f64, f64) -> (Tensor, Tensor);

pub fn momentum_update(answer: Momentum) -> Verdict {
    // Two steps by hand, from 1 with gradients 2 and -1, rate 0.1, momentum 0.5.
    let one = |value: f32| Tensor::constant(&[1], vec![value]);
    let (p, v) = answer(&one(1.0), &one(0.0), &one(2.0), 0.1, 0.5);
    close("after one step", &[values(&p)?, values(&v)?].concat(), &[0.8, 2.0], 1e-7)?;
    let (p, v) = answer(&p, &v, &one(-1.0), 0.1, 0.5);
    close("after two steps", &[values(&p)?, values(&v)?].concat(), &[0.8, 0.0], 1e-7)?;
    let (p, _) = answer(&p, &one(4.0), &one(0.0), 0.1, 0.5);
    close("coasting", &values(&p)?, &[0.6], 1e-7)
}

pub fn cross_entropy_gradient(answer: fn(&Tensor, &Tensor) -> Tensor) -> Verdict {
    let logits = wavy(&[4, 3], 1);
    let labels = Tensor::constant(&[4], vec![0.0, 2.0, 1.0, 1.0]).to_integer();
    let expected =
        values(&grad(&logits.cross_entropy(&labels).mean_all(), std::slice::from_ref(&logits))[0])?;
    close("the gradient", &values(&answer(&logits, &labels))?, &expected, 1e-9)
}

pub fn swap_row(answer: fn(&[f64], usize) -> Vec<f64>) -> Verdict {
    let rows: [(&[f64], usize, &[f64]); 4] = [
        (&[1.0, 5.0, 2.0], 2, &[1.0, 2.0, 5.0]),
        (&[1.0, 5.0, 2.0], 1, &[1.0, 5.0, 2.0]),
        (&[-3.0, -1.0, -1.0], 2, &[-3.0, -1.0, -1.0]),
        (&[4.0, 4.0, 1.0], 2, &[1.0, 4.0, 4.0]),
    ];
    for (logits, label, expected) in rows {
        close(&format!("{logits:?}, label {label}"), &answer(logits, label), expected, 0.0)?;
    }
    Ok(())
}

pub fn swapped_divergence(answer: fn(&[f64], usize, f64) -> f64) -> Verdict {
    let rows: [(&[f64], usize); 3] =
        [(&[1.0, 3.0, 0.5, -1.0], 0), (&[2.0, -1.0, 0.0], 0), (&[0.1, 0.2, 4.0], 1)];
    for (logits, label) in rows {
        for temperature in [1.0, 3.0] {
            let row = Tensor::constant(&[1, logits.len()], logits.iter().map(|&z| z as f32).collect());
            let labels = Tensor::constant(&[1], vec![label as f32]).to_integer();
            let softened = |z: &Tensor| z / temperature;
            let long = softened(&row).kl_divergence(&softened(&sld::distill::swap(&row, &labels)));
            let expected = values(&long.sum_all())?[0] * temperature * temperature;
            let exact: Vec<f64> = values(&row)?;
            close(
                &format!("{logits:?}, T = {temperature}"),
                &[answer(&exact, label, temperature)],
                &[expected],
                1e-9,
            )?;
        }
    }
    // Probabilities of 1 and of less than any number that f64 has.
    close("[2000, 0], label 1", &[answer(&[2000.0, 0.0], 1, 1.0)], &[2000.0], 1e-12)
}

pub fn log_sum_exp(answer: fn(&[f32]) -> f32) -> Verdict {
    let cases: [(&[f32], f64); 4] = [
        (&[0.0, 0.0], 2f64.ln()),
        (&[1000.0, 1000.0, 999.0], 1000.0 + (2.0 + (-1f64).exp()).ln()),
        (&[-500.0, -501.0], -500.0 + (1.0 + (-1f64).exp()).ln()),
        (&[3.0], 3.0),
    ];
    for (values, expected) in cases {
        close(&format!("{values:?}"), &[f64::from(answer(values))], &[expected], 1e-6)?;
    }
    Ok(())
}

pub fn one_pass_variance(answer: fn(&mut dyn Iterator<Item = f32>) -> f32) -> Verdict {
    let few = answer(&mut [1.0f32, 2.0, 3.0, 6.0].into_iter());
    close("1, 2, 3, 6", &[f64::from(few)], &[3.5], 1e-6)?;
    // Numbers near 1000 that differ by as much as 1.
    let values = || (0..4096).map(|i| 1000.0 + autograd::random::uniform(3, 0, 0, i));
    let mean = values().map(f64::from).sum::<f64>() / 4096.0;
    let exact = values().map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 4096.0;
    close("numbers near 1000", &[f64::from(answer(&mut values()))], &[exact], 1e-3)
}

pub fn softplus(answer: fn(&Tensor) -> Tensor) -> Verdict {
    let places = [-2000.0, -5.0, -0.5, 0.5, 5.0, 2000.0f32];
    let x = Tensor::constant(&[6], places.to_vec());
    let y = answer(&x);
    let exact = places.map(|x| f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p());
    close("softplus", &values(&y)?, &exact, 1e-9)?;
    // Its slope is the sigmoid.
    let slope = places.map(|x| 1.0 / (1.0 + (-f64::from(x)).exp()));
    close("its gradient", &values(&grad(&y.sum_all(), &[x])[0])?, &slope, 1e-9)
}

pub fn sine_series(answer: fn(f32) -> f32) -> Verdict {
    for i in -100..=100 {
        let x = std::f32::consts::FRAC_PI_2 * i as f32 / 100.0;
        close(&format!("sine of {x}"), &[f64::from(answer(x))], &[f64::from(x).sin()], 5e-6)?;
    }
    Ok(())
}
