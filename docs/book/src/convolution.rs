//! Chapter 7: convolution as a product, and with fewer multiplications.

use autograd::{Conv2d, Result, Tensor, grad};

use crate::picture::Picture;

/// Numbers that are neither regular nor random.
fn wavy(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::constant(shape, (0..count).map(|i| (((i + seed) * 37 % 101) as f32 - 50.0) / 25.0).collect())
}

// ANCHOR: definition
/// `[H, W, C]` and weights `[O, C, 3, 3]` to `[H, W, O]`; what is outside of the image counts as zero.
fn by_definition(x: &[f32], [h, w, c]: [usize; 3], weights: &[f32], o: usize) -> Vec<f32> {
    let mut y = vec![0.0; h * w * o];
    for (i, j) in (0..h).flat_map(|i| (0..w).map(move |j| (i, j))) {
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            // The pixel that this weight meets: one up and left for the first of the nine.
            let (row, column) = ((i + a).wrapping_sub(1), (j + b).wrapping_sub(1));
            if row >= h || column >= w {
                continue;
            }
            for to in 0..o {
                for from in 0..c {
                    let weight = weights[((to * c + from) * 3 + a) * 3 + b];
                    y[(i * w + j) * o + to] += x[(row * w + column) * c + from] * weight;
                }
            }
        }
    }
    y
}
// ANCHOR_END: definition

// ANCHOR: product
/// The same as one matrix product. A row of `patches` holds the nine pixels around a place.
fn by_product(x: &Tensor, weights: &Tensor) -> Tensor {
    let (&[n, h, w, c], o) = (x.shape(), weights.dim(0)) else { return x.clone() };
    let padded = x.pad(1, 1, 1).pad(2, 1, 1);
    let shifted: Vec<Tensor> =
        (0..9).map(|tap| padded.slice(1, tap / 3, h, 1).slice(2, tap % 3, w, 1)).collect();
    let patches = Tensor::concatenate(&shifted.iter().collect::<Vec<_>>(), 3).reshape(&[n * h * w, 9 * c]);
    // Weights [O, C, 3, 3] in the order of the patches: [9 C, O].
    let matrix = weights.permute(&[2, 3, 1, 0]).reshape(&[9 * c, o]);
    patches.matmul(&matrix).reshape(&[n, h, w, o])
}
// ANCHOR_END: product

// ANCHOR: compare
pub fn compared() -> Result<()> {
    let (x, weights) = (wavy(&[1, 6, 5, 4], 0), wavy(&[3, 4, 3, 3], 7));
    let convolution = x.conv2d(&weights, Conv2d::new(1, 1));
    let product = by_product(&x, &weights);
    let far = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0, |far: f64, (a, b)| far.max((a - b).abs()));

    let floats = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.evaluate()?.iter().map(|&v| v as f32).collect()) };
    let plain = by_definition(&floats(&x)?, [6, 5, 4], &floats(&weights)?, 3);
    let plain: Vec<f64> = plain.into_iter().map(f64::from).collect();
    let (convolution_values, product_values) = (convolution.evaluate()?, product.evaluate()?);
    println!("definition and product agree: {}", far(&plain, &product_values) < 1e-4);
    println!("operation and product agree:  {}", far(&convolution_values, &product_values) < 1e-12);

    let wrt = [x, weights];
    let gradients = [grad(&convolution.square().sum_all(), &wrt), grad(&product.square().sum_all(), &wrt)];
    for (i, name) in ["image", "weights"].iter().enumerate() {
        let far = far(&gradients[0][i].evaluate()?, &gradients[1][i].evaluate()?);
        println!("their gradients by the {name} agree: {}", far < 1e-9);
    }
    Ok(())
}
// ANCHOR_END: compare

// ANCHOR: transposes
/// y · conv(x, w), read as a number that is linear in each of the three.
pub fn transposes() -> Result<()> {
    let (x, w, y) = (wavy(&[1, 6, 5, 4], 0), wavy(&[3, 4, 3, 3], 7), wavy(&[1, 6, 5, 3], 2));
    let dot = |a: &Tensor, b: &Tensor| Ok::<f64, autograd::Error>((a * b).sum_all().evaluate()?[0]);
    let convolution = x.conv2d(&w, Conv2d::new(1, 1));
    let gradients = grad(&(&convolution * &y).sum_all(), &[x.clone(), w.clone()]);
    println!("y · conv(x, w)         = {:.3}", dot(&y, &convolution)?);
    println!("x · input_grad(y, w)   = {:.3}", dot(&x, &gradients[0])?);
    println!("w · weight_grad(x, y)  = {:.3}", dot(&w, &gradients[1])?);
    Ok(())
}
// ANCHOR_END: transposes

// ANCHOR: two_of_three
/// Two neighbouring results of a filter of three weights, by four multiplications instead of six.
pub fn two_of_three(d: [f64; 4], g: [f64; 3]) -> [f64; 2] {
    let even = (g[0] + g[2]) / 2.0;
    let products = [
        (d[0] - d[2]) * g[0],
        (d[1] + d[2]) * (even + g[1] / 2.0),
        (d[2] - d[1]) * (even - g[1] / 2.0),
        (d[1] - d[3]) * g[2],
    ];
    [products[0] + products[1] + products[2], products[1] - products[2] - products[3]]
}
// ANCHOR_END: two_of_three

pub fn four_products() -> Result<()> {
    let (d, g) = ([3.0, -1.0, 4.0, 2.0], [2.0, 0.5, -3.0]);
    println!("four products:   {:?}", two_of_three(d, g));
    let direct = |i: usize| d[i] * g[0] + d[i + 1] * g[1] + d[i + 2] * g[2];
    println!("six products:    {:?}", [direct(0), direct(1)]);
    Ok(())
}

// ANCHOR: matrices
/// The three matrices of Winograd's algorithm for these points and infinity.
struct Winograd {
    /// Takes `points + 1` values of the operand to as many numbers.
    operand: Vec<Vec<f32>>,
    /// Takes three weights to as many.
    weights: Vec<Vec<f32>>,
    /// Takes their products to `points - 1` results.
    results: Vec<Vec<f32>>,
}

fn winograd(points: &[f64]) -> Winograd {
    let count = points.len() + 1;
    let others = |i: usize| points.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, q)| *q);
    // Coefficients of the product of (x - q), lowest power first.
    let polynomial = |roots: Vec<f64>| {
        let mut coefficients = vec![1.0];
        for q in roots {
            let mut next = vec![0.0; coefficients.len() + 1];
            for (power, c) in coefficients.iter().enumerate() {
                next[power + 1] += c;
                next[power] -= q * c;
            }
            coefficients = next;
        }
        coefficients.resize(count, 0.0);
        coefficients.iter().map(|&c| c as f32).collect::<Vec<f32>>()
    };
    let mut operand: Vec<Vec<f32>> = (0..points.len()).map(|i| polynomial(others(i).collect())).collect();
    operand.push(polynomial(points.to_vec()));
    let mut weights: Vec<Vec<f32>> = Vec::new();
    for (i, &p) in points.iter().enumerate() {
        let scale: f64 = others(i).map(|q| p - q).product();
        weights.push([1.0, p, p * p].map(|power| (power / scale) as f32).to_vec());
    }
    weights.push(vec![0.0, 0.0, 1.0]);
    let results = (0..count - 2).map(|power| {
        let mut row: Vec<f32> = points.iter().map(|p| p.powi(power as i32) as f32).collect();
        row.push(if power + 3 == count { 1.0 } else { 0.0 });
        row
    });
    Winograd { operand, weights, results: results.collect() }
}
// ANCHOR_END: matrices

/// `m x mᵀ` for a square `x`, in f32.
fn both_sides(m: &[Vec<f32>], x: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let dot = |a: &[f32], b: &mut dyn Iterator<Item = f32>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let left: Vec<Vec<f32>> = m
        .iter()
        .map(|row| (0..x[0].len()).map(|j| dot(row, &mut x.iter().map(|line| line[j]))).collect())
        .collect();
    left.iter().map(|row| m.iter().map(|other| dot(row, &mut other.iter().copied())).collect()).collect()
}

// ANCHOR: errors
/// Tiles of results by Winograd's algorithm, 64 channels added up, beside a direct sum, both in f32.
pub fn errors() -> Result<()> {
    let sets: [(&str, &[f64]); 4] = [
        ("2x2, points 0 ±1", &[0.0, 1.0, -1.0]),
        ("4x4, points 0 ±1 ±2", &[0.0, 1.0, -1.0, 2.0, -2.0]),
        ("4x4, points 0 ±5/8 ±3/2", &[0.0, 0.625, -0.625, 1.5, -1.5]),
        ("6x6, points 0 ±1 ±2 ±1/2", &[0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5]),
    ];
    println!("results at a time          multiplications   error, times a direct sum's");
    for (name, points) in sets {
        let (inside, outside) = (points.len() - 1, points.len() + 1);
        let saved = (9 * inside * inside) as f64 / (outside * outside) as f64;
        println!("{name:<25}      1 in {saved:.2}   {:10.1}", error(points));
    }
    Ok(())
}
// ANCHOR_END: errors

/// Numbers between -1 and 1 without a pattern, the same everywhere.
fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut index = 0;
    move || {
        index += 1;
        2.0 * autograd::random::uniform(seed, 0, 0, index) - 1.0
    }
}

/// The error of Winograd's algorithm over that of a direct sum: root mean squares over many tiles.
fn error(points: &[f64]) -> f64 {
    let Winograd { operand, weights, results } = winograd(points);
    let (inside, outside, channels) = (points.len() - 1, points.len() + 1, 64);
    let mut next = noise(1);
    let (mut fast, mut plain) = (0.0, 0.0);
    for _ in 0..20 {
        let mut sum = vec![vec![0.0f32; outside]; outside];
        let mut direct = vec![vec![0.0f32; inside]; inside];
        let mut exact = vec![vec![0.0f64; inside]; inside];
        for _ in 0..channels {
            let mut square =
                |n: usize| -> Vec<Vec<f32>> { (0..n).map(|_| (0..n).map(|_| next()).collect()).collect() };
            let (d, g) = (square(outside), square(3));
            let (v, u) = (both_sides(&operand, &d), both_sides(&weights, &g));
            for i in 0..outside {
                (0..outside).for_each(|j| sum[i][j] += v[i][j] * u[i][j]);
            }
            for (i, j) in (0..inside).flat_map(|i| (0..inside).map(move |j| (i, j))) {
                for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                    direct[i][j] += d[i + a][j + b] * g[a][b];
                    exact[i][j] += f64::from(d[i + a][j + b]) * f64::from(g[a][b]);
                }
            }
        }
        let tile = both_sides(&results, &sum);
        for (i, j) in (0..inside).flat_map(|i| (0..inside).map(move |j| (i, j))) {
            fast += (f64::from(tile[i][j]) - exact[i][j]).powi(2);
            plain += (f64::from(direct[i][j]) - exact[i][j]).powi(2);
        }
    }
    (fast / plain).sqrt()
}

/// A drawn picture, and what three kernels answer to it.
pub fn picture() -> Result<String> {
    let size = 24;
    let bright = |i: usize, j: usize| {
        let (y, x) = (i as f32 - 11.5, j as f32 - 11.5);
        let disc = x * x + y * y < 64.0;
        let bar = (16..19).contains(&i) && (2..22).contains(&j);
        if bar {
            1.0
        } else if disc {
            0.6
        } else {
            0.0
        }
    };
    let image = Tensor::constant(
        &[1, size, size, 1],
        (0..size * size).map(|at| bright(at / size, at % size)).collect(),
    );
    let kernels: [(&str, [f32; 9]); 3] = [
        ("left to right", [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0]),
        ("top to bottom", [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ("a mean", [1.0 / 9.0; 9]),
    ];
    let (pixel, gap) = (6.0, 20.0);
    let side = pixel * size as f64;
    let mut picture = Picture::new(gap + 4.0 * (side + gap), side + 70.0);
    picture.text(
        (gap, 22.0),
        "start",
        "black",
        "A picture, and the answers of three kernels of 3 by 3 weights",
    );
    let mut draw = |at: usize, name: &str, values: &[f64], largest: f64| {
        let left = gap + at as f64 * (side + gap);
        let grey = |value: &f64| (127.5 + 127.5 * (value / largest).clamp(-1.0, 1.0)) as u8;
        for (row, line) in values.chunks(size).enumerate() {
            let mut column = 0;
            // Neighbours of one colour are one rectangle.
            for run in line.chunk_by(|a, b| grey(a) == grey(b)) {
                let place = (left + pixel * column as f64, 36.0 + pixel * row as f64);
                let colour = format!("#{0:02x}{0:02x}{0:02x}", grey(&run[0]));
                picture.rectangle(place, (pixel * run.len() as f64, pixel), &colour, "none");
                column += run.len();
            }
        }
        picture.text((left + side / 2.0, side + 56.0), "middle", "black", name);
    };
    draw(0, "the picture", &image.evaluate()?, 1.0);
    for (at, (name, weights)) in kernels.into_iter().enumerate() {
        let weights = Tensor::constant(&[1, 1, 3, 3], weights.to_vec());
        let answer = image.conv2d(&weights, Conv2d::new(1, 1));
        draw(at + 1, name, &answer.evaluate()?, if name == "a mean" { 1.0 } else { 3.0 });
    }
    Ok(picture.svg())
}
