//! The fixtures' formula tensors: reproducible values that need not be stored.
//!
//! Element `i` of the tensor with key `K` is `f32(off + scale * r)`, where `r` in [-1, 1) comes from the
//! `i+1`-th output of SplitMix64 started at FNV-1a-64 of `K`.

/// Values for a key.
pub fn values(key: &str, count: usize, off: f64, scale: f64) -> Vec<f32> {
    let hash = fnv1a(key.as_bytes());
    (1..=count as u64)
        .map(|i| {
            let mut z = hash.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let r = (z >> 40) as f64 / 8_388_608.0 - 1.0;
            (off + scale * r) as f32
        })
        .collect()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Values of a state-dict entry: ranges by what it is, so that activations stay of the order of one.
pub fn state(salt: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let last = name.rsplit('.').next().unwrap_or(name);
    let (off, scale) = match (last, shape) {
        ("num_batches_tracked", _) => return vec![5.0; count],
        ("running_mean", _) => (0.0, 0.3),
        ("running_var", _) => (1.0, 0.5),
        (_, &[_, inputs, kh, kw]) => (0.0, (6.0 / (inputs * kh * kw) as f64).sqrt()),
        (_, &[_, inputs]) => (0.0, 4.0 * (3.0 / inputs as f64).sqrt()),
        ("weight", _) => (0.6, 0.3),
        // A bias of batch norm; those of convolutions and linear layers are `layer_bias`.
        _ => (0.0, 0.2),
    };
    values(&format!("{salt}/{name}"), count, off, scale)
}

/// Values of the bias of a convolution or linear layer.
pub fn layer_bias(salt: &str, name: &str, count: usize) -> Vec<f32> {
    values(&format!("{salt}/{name}"), count, 0.0, 0.1)
}

/// Every entry of a model's state dict, in order.
pub fn model_state(salt: &str, model: &nn::Model) -> Vec<Vec<f32>> {
    let names: Vec<&str> = model.state().iter().map(|entry| entry.variable.name()).collect();
    let is_norm = |name: &str| names.contains(&name.replace(".bias", ".running_mean").as_str());
    let entry = |variable: &autograd::Variable| {
        let name = variable.name();
        if name.ends_with(".bias") && !is_norm(name) {
            layer_bias(salt, name, variable.len())
        } else {
            state(salt, name, variable.shape())
        }
    };
    model.state().iter().map(|e| entry(&e.variable)).collect()
}

/// Images `[batch, 32, 32, 3]` made from the formula's `[batch, 3, 32, 32]`.
pub fn images(key: &str, batch: usize) -> Vec<f32> {
    square_images(key, batch, 32)
}

/// The same of another size.
pub fn square_images(key: &str, batch: usize, side: usize) -> Vec<f32> {
    nn::images::nhwc_from_nchw(&values(key, batch * 3 * side * side, 0.0, 2.0), [batch, 3, side, side])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_stated_values() {
        assert_eq!(fnv1a(b"abc"), 0xe71f_a219_0541_574b);
        let expected = [-0.672_754_764_556_884_8, -0.426_031_947_135_925_3, -0.981_927_514_076_232_9];
        let actual: Vec<f64> = values("abc", 3, 0.0, 1.0).into_iter().map(f64::from).collect();
        assert_eq!(actual, expected);
    }
}
