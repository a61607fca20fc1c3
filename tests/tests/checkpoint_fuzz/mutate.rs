//! Damage, from a seed: the same case gives the same bytes on every machine.

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub struct Random(u64);

impl Random {
    /// The generator of case `case`.
    pub fn of_case(case: u64) -> Self {
        Random(case.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5eed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Numbers at the edges of what sizes can be.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x0100_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Opcodes and separators that formats are made of.
const TOKENS: &[u8] = b"(.0N)}]tRbQaeshjqrcXKMJGTUBCu\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x93\x94\x95{}[]\":,0123456789/\n";

/// `bytes` with one to six pieces of damage, mostly one: more would nearly always stop a reader at the
/// first. `other` serves for transplants.
pub fn damage(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let more = if random.below(4) == 0 { random.below(6) } else { 0 };
    for _ in 0..=more {
        damage_once(random, &mut bytes, other);
    }
    bytes
}

fn damage_once(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return;
    }
    let at = random.below(bytes.len());
    let span = 1 + random.below(1 + (bytes.len() - at - 1).min(64));
    match random.below(10) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at] = TOKENS[random.below(TOKENS.len())],
        3 => {
            let edge = EDGES[random.below(EDGES.len())].wrapping_add(random.next() % 3);
            let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
        }
        4 => drop(bytes.drain(at..at + span)),
        5 => {
            let copy = bytes[at..at + span].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        6 => {
            let copy = bytes[at..at + span].to_vec();
            let to = random.below(bytes.len() - span + 1);
            bytes[to..to + span].copy_from_slice(&copy);
        }
        7 => {
            let token = TOKENS[random.below(TOKENS.len())];
            bytes.splice(at..at, vec![token; 1 + random.below(40)]);
        }
        8 if !other.is_empty() => {
            let from = random.below(other.len());
            let length = 1 + random.below((other.len() - from).min(64));
            bytes.splice(at..at + span, other[from..from + length].iter().copied());
        }
        // Rarely: most of a truncated file is lost to the other kinds of damage.
        _ if random.below(8) == 0 => bytes.truncate(at),
        _ => bytes.insert(at, random.next() as u8),
    }
}
