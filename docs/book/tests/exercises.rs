//! The exercises: each solution passes its check, a likely mistake does not, and the reader's answers are run
//! when they are asked for.

use autograd::Tensor;
use book::{checks, exercises, solutions};

macro_rules! exercises {
    ($($name:ident refuses $mistake:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn the_solution_is_right() {
                checks::$name(solutions::$name).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
            #[test]
            fn a_mistake_is_told() {
                assert!(checks::$name($mistake).is_err());
            }
            #[test]
            #[ignore = "an exercise: write it in docs/book/src/exercises.rs"]
            fn yours() {
                checks::$name(exercises::$name).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    )+};
}

exercises! {
    fourth_order refuses |f, x, h| (f(x + h) - f(x - h)) / (2.0 * h);
    dual_quotient refuses |a, b| book::derivative::Dual { value: a.value / b.value, slope: a.slope / b.slope };
    sigmoid_rule refuses |y, _| y * (1.0 - y);
    unstretch refuses |g, from| g.slice(0, 0, from[0], 1).slice(1, 0, from[1], 1);
    uses refuses |tape| vec![1; tape.entries.len()];
    forward refuses |tape, at| tape.entries[at].1;
    slots refuses |temporaries| (0..temporaries.len()).map(|i| i % 2).collect();
    inlined_cost refuses |elements, operations| (8 * elements * operations, 4 * elements);
    tile_reads refuses |m, k, n, rows, columns| m * n * k * 2 / (rows * columns);
    tree_sum refuses |values| values.iter().sum();
    input_gradient refuses |dy, weights| dy.conv2d(&weights.permute(&[1, 0, 2, 3]), autograd::Conv2d::new(1, 1));
    convolution_cost refuses |[h, w], c, o, kernel, stride, _| (h / stride, h / stride * (w / stride) * c * o * kernel);
    folded refuses |weights, norm| (weights * norm.gamma.reshape(&[2, 1, 1, 1]), &norm.beta - &norm.mean);
    running_statistics refuses |(mean, variance), batch, momentum| {
        let new = batch.iter().sum::<f64>() / batch.len() as f64;
        let spread = batch.iter().map(|v| (v - new) * (v - new)).sum::<f64>() / batch.len() as f64;
        (mean + momentum * (new - mean), variance + momentum * (spread - variance))
    };
    momentum_update refuses |p, v, g, rate, momentum| (p - v * rate, v * momentum + g);
    cross_entropy_gradient refuses |logits, labels| logits.softmax(1) - labels.one_hot(3);
    swap_row refuses |logits, label| {
        let mut wrong = logits.to_vec();
        wrong[label] = logits.iter().fold(f64::MIN, |a, &b| a.max(b));
        wrong
    };
    swapped_divergence refuses |logits, label, temperature| {
        let exp: Vec<f64> = logits.iter().map(|z| (z / temperature).exp()).collect();
        let (sum, top) = (exp.iter().sum::<f64>(), logits.iter().copied().fold(f64::MIN, f64::max));
        temperature * ((top / temperature).exp() - exp[label]) / sum * (top - logits[label])
    };
    log_sum_exp refuses |values| values.iter().map(|v| v.exp()).sum::<f32>().ln();
    one_pass_variance refuses |values| {
        let (count, sum, squares) = values.fold((0.0f32, 0.0f32, 0.0f32), |(n, s, q), v| (n + 1.0, s + v, q + v * v));
        squares / count - (sum / count) * (sum / count)
    };
    softplus refuses |x| (x.exp() + 1.0).log();
    sine_series refuses |x| x - x * x * x / 6.0 + x * x * x * x * x / 120.0;
    newton_root refuses |_, start| start;
    hessian_product refuses |loss, x, direction| autograd::grad(loss, std::slice::from_ref(x)).remove(0) * direction;
}

#[test]
fn an_answer_is_an_expression() {
    // What exercises hand on is checked as all expressions are: a wrong shape is told, not a panic.
    let wrong = checks::values(&(Tensor::full(&[2], 1.0) + Tensor::full(&[3], 1.0)));
    assert!(wrong.is_err_and(|message| message.contains("broadcast")));
}
