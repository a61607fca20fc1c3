// Functions of every kernel. An implementation may assume that no value is NaN or infinite, so what
// must work with them looks at the bits.

fn from_bits(bits: u32) -> f32 {
    // A variable, so that this is no constant expression (which could not be infinite or NaN).
    var value = bits;
    return bitcast<f32>(value);
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_nan4(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

// Zero below -0 down to -infinity; -0 and a NaN of either sign stay.
fn relu_(x: f32) -> f32 {
    return select(x, 0.0, (bitcast<u32>(x) - 0x80000001u) < 0x7f800000u);
}

fn relu_4(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x) - vec4<u32>(0x80000001u);
    return select(x, vec4<f32>(0.0), bits < vec4<u32>(0x7f800000u));
}

fn maximum_(a: f32, b: f32) -> f32 {
    return select(select(b, a, a >= b || is_nan(a)), b, is_nan(b));
}

fn maximum_4(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(b, a, (a >= b) | is_nan4(a)), b, is_nan4(b));
}

fn minimum_(a: f32, b: f32) -> f32 {
    return select(select(b, a, a <= b || is_nan(a)), b, is_nan(b));
}

fn minimum_4(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(select(b, a, (a <= b) | is_nan4(a)), b, is_nan4(b));
}

fn sign_(x: f32) -> f32 {
    return select(select(0.0, -1.0, x < 0.0), 1.0, x > 0.0);
}

fn sign_4(x: vec4<f32>) -> vec4<f32> {
    let negative = select(vec4<f32>(0.0), vec4<f32>(-1.0), x < vec4<f32>(0.0));
    return select(negative, vec4<f32>(1.0), x > vec4<f32>(0.0));
}

// The formula behind a driver's tanh may overflow; beyond 15 the result is 1 in f32.
fn tanh_(x: f32) -> f32 {
    let bounded = tanh(clamp(x, -15.0, 15.0));
    return select(bounded, x, is_nan(x));
}

fn tanh_4(x: vec4<f32>) -> vec4<f32> {
    let bounded = tanh(clamp(x, vec4<f32>(-15.0), vec4<f32>(15.0)));
    return select(bounded, x, is_nan4(x));
}

// The error function by two polynomials, fitted for the least relative error; beyond 4 the result is 1 in f32.
fn erf_4(x: vec4<f32>) -> vec4<f32> {
    let z = x * x;
    var p = vec4<f32>(-6.0904643e-4);
    p = p * z + 5.0119865e-3;
    p = p * z - 2.6778929e-2;
    p = p * z + 1.12821415e-1;
    p = p * z - 3.7612525e-1;
    p = p * z + 1.2837915e-1;
    let size = min(abs(x), vec4<f32>(4.0));
    var q = vec4<f32>(-2.1459543e-4);
    q = q * size + 3.2199787e-3;
    q = q * size - 2.2906041e-2;
    q = q * size + 1.0528687e-1;
    q = q * size + 6.3569933e-1;
    q = q * size + 1.12852;
    let large = sign_4(x) * (1.0 - exp(-(q * size)));
    return select(select(large, p * x + x, size < vec4<f32>(0.9)), x, is_nan4(x));
}

fn erf_(x: f32) -> f32 {
    return erf_4(vec4<f32>(x)).x;
}

// What `a + b` rounds off. `zero` is 0, which a compiler does not know: else it would simplify this to 0, as it may.
fn rounded_off_4(a: vec4<f32>, b: vec4<f32>, zero: u32) -> vec4<f32> {
    let sum = bitcast<vec4<f32>>(bitcast<vec4<u32>>(a + b) ^ vec4<u32>(zero));
    let part = bitcast<vec4<f32>>(bitcast<vec4<u32>>(sum - a) ^ vec4<u32>(zero));
    return (a - (sum - part)) + (b - part);
}

fn rounded_off_(a: f32, b: f32, zero: u32) -> f32 {
    let sum = bitcast<f32>(bitcast<u32>(a + b) ^ zero);
    let part = bitcast<f32>(bitcast<u32>(sum - a) ^ zero);
    return (a - (sum - part)) + (b - part);
}

// A sum and what it rounded off, which is no number where the sum is infinite.
fn total_(sum: f32, off: f32) -> f32 {
    return select(sum + off, sum, is_nan(off));
}

fn total_4(sum: vec4<f32>, off: vec4<f32>) -> vec4<f32> {
    return select(sum + off, sum, is_nan4(off));
}

// The engine's counter-based generator, in the same integer arithmetic.
fn mix_bits(x: u32) -> u32 {
    var h = x;
    h ^= h >> 16u;
    h *= 0x7feb352du;
    h ^= h >> 15u;
    h *= 0x846ca68bu;
    return h ^ (h >> 16u);
}

fn random_uniform(seed: u32, step: u32, stream: u32, index: u32) -> f32 {
    var h = mix_bits(index ^ 0x9e3779b9u);
    h = mix_bits(h + seed);
    h = mix_bits((h + step) ^ (stream * 0x85ebca6bu));
    return f32(h >> 8u) / 16777216.0;
}
