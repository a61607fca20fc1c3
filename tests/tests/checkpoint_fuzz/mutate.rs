//! Damage, from a seed: the same case gives the same bytes on every machine.

use sld_tests::dice::Dice;

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
pub fn damage(dice: &mut Dice, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let more = if dice.below(4) == 0 { dice.below(6) } else { 0 };
    for _ in 0..=more {
        damage_once(dice, &mut bytes, other);
    }
    bytes
}

fn damage_once(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.push(dice.bits() as u8);
        return;
    }
    let at = dice.below(bytes.len());
    let span = 1 + dice.below(1 + (bytes.len() - at - 1).min(64));
    match dice.below(10) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.bits() as u8,
        2 => bytes[at] = TOKENS[dice.below(TOKENS.len())],
        3 => {
            let edge = EDGES[dice.below(EDGES.len())].wrapping_add(dice.bits() % 3);
            let width = [1, 2, 4, 8][dice.below(4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
        }
        4 => drop(bytes.drain(at..at + span)),
        5 => {
            let copy = bytes[at..at + span].to_vec();
            let to = dice.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        6 => {
            let copy = bytes[at..at + span].to_vec();
            let to = dice.below(bytes.len() - span + 1);
            bytes[to..to + span].copy_from_slice(&copy);
        }
        7 => {
            let token = TOKENS[dice.below(TOKENS.len())];
            bytes.splice(at..at, vec![token; 1 + dice.below(40)]);
        }
        8 if !other.is_empty() => {
            let from = dice.below(other.len());
            let length = 1 + dice.below((other.len() - from).min(64));
            bytes.splice(at..at + span, other[from..from + length].iter().copied());
        }
        // Rarely: most of a truncated file is lost to the other kinds of damage.
        _ if dice.below(8) == 0 => bytes.truncate(at),
        _ => bytes.insert(at, dice.bits() as u8),
    }
}
