//! Pictures that the examples learn from, drawn by the program: digits of seven bars, 28x28 pixels of one channel,
//! each moved, slanted, of another size and width, and with noise.

/// Height and width of a picture.
pub const SIDE: usize = 28;

/// The bars (top, upper right, lower right, bottom, lower left, upper left, middle) of each digit.
const BARS: [&str; 10] = [
    "1111110", "0110000", "1101101", "1111001", "0110011", "1011011", "1011111", "1110000", "1111111",
    "1111011",
];
/// From where to where each bar goes, in a box from -1 to 1 (x to the right, y down).
const ENDS: [[f32; 4]; 7] = [
    [-0.5, -1.0, 0.5, -1.0],
    [0.5, -1.0, 0.5, 0.0],
    [0.5, 0.0, 0.5, 1.0],
    [-0.5, 1.0, 0.5, 1.0],
    [-0.5, 0.0, -0.5, 1.0],
    [-0.5, -1.0, -0.5, 0.0],
    [-0.5, 0.0, 0.5, 0.0],
];

/// A number in 0..1 for each state: the generator SplitMix64.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / 16_777_216.0
}

/// `count` pictures `[count, 28, 28, 1]` of values about 0 to 1, and which digit each shows. The same seed draws the
/// same.
pub fn batch(seed: u64, count: usize) -> (Vec<f32>, Vec<i32>) {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let (mut pixels, mut labels) = (Vec::with_capacity(count * SIDE * SIDE), Vec::with_capacity(count));
    for _ in 0..count {
        let mut between = |low: f32, high: f32| low + (high - low) * random(&mut state);
        let digit = between(0.0, 10.0) as usize;
        let (x0, y0, size) = (between(11.0, 16.0), between(11.0, 16.0), between(7.0, 10.0));
        let (slant, width) = (between(-0.3, 0.3), between(0.8, 1.8));
        for i in 0..SIDE * SIDE {
            let (row, column) = ((i / SIDE) as f32, (i % SIDE) as f32);
            let y = (row - y0) / size;
            let x = (column - x0) / size + slant * y;
            let lit = BARS[digit].bytes().zip(ENDS).filter(|(bar, _)| *bar == b'1');
            let distance = lit.map(|(_, ends)| size * distance(x, y, ends)).fold(f32::MAX, f32::min);
            pixels.push((width + 0.5 - distance).clamp(0.0, 1.0) + between(-0.15, 0.15));
        }
        labels.push(digit as i32);
    }
    (pixels, labels)
}

/// From a point to a bar.
fn distance(x: f32, y: f32, [x0, y0, x1, y1]: [f32; 4]) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - x0 - along * dx).hypot(y - y0 - along * dy)
}
