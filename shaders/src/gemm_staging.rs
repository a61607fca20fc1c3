//! How the operands of an implicit matrix product come into workgroup memory.

use std::fmt::Write;

use crate::gemm::Gemm;
use crate::gemm_plan::Plan;
use crate::tile_text::TileText;

/// The statements that bring operands into workgroup memory.
pub struct Staging {
    text: TileText,
    /// Before the loops.
    pub once: String,
    /// For every tap.
    pub tap: String,
    /// For every step along k: loads, then, between barriers, stores to workgroup memory.
    pub load: String,
    pub stage: String,
}

impl Staging {
    pub fn new(text: TileText) -> Staging {
        let [once, tap, load, stage] = Default::default();
        Staging { text, once, tap, load, stage }
    }

    /// Loads a value, and makes of it what is staged as `name`. Where threads load ahead they make it only when they
    /// stage it: before that they would wait for the value.
    fn load(&mut self, name: &str, value: &str, made: impl Fn(&str) -> String) {
        if self.text.tile.ahead {
            let _ = writeln!(self.load, "    let next_{name} = {value};");
            let _ = writeln!(self.stage, "    let {name} = {};", made(&format!("next_{name}")));
        } else {
            let _ = writeln!(self.load, "    let {name} = {};", made(value));
        }
    }

    /// Load `i` of every thread from the left operand.
    pub fn left(&mut self, gemm: &Gemm, plan: &Plan, i: usize) {
        let Plan { tile, .. } = plan;
        let at = format!("(thread + {})", i * tile.threads());
        let text = self.text;
        let name = format!("left{i}");
        let value = |channel: &str| format!("lhs4(moved{i}, z, {channel})");
        let made = |value: &str| {
            // Rounded first: what is stored in 16 bits is then never widened.
            let staged = text.staged(value, gemm.gradients()[0]);
            format!("select({}(), {staged}, inside{i})", text.staged_type())
        };
        if gemm.is_weight_grad() {
            // Neighbouring threads load neighbouring channels of a pixel. Rows past the end repeat the last.
            let quads = tile.rows / 4;
            let (per_tap, kw) = (gemm.row_channels(), gemm.window[1]);
            let _ = writeln!(
                self.once,
                "    let slot{i} = ({at} % {quads}) * 4;\n    \
                 let k{i} = {at} / {quads};\n    \
                 let row{i} = min(first + slot{i}, {});\n    \
                 let c{i} = row{i} % {per_tap};\n    \
                 let tap_y{i} = row{i} / {};\n    \
                 let tap_x{i} = (row{i} / {per_tap}) % {kw};",
                gemm.rows() - 4,
                per_tap * kw,
            );
            let _ = writeln!(self.load, "    let p{i} = base + k{i};");
            self.load += &gemm.pixel(i);
            let beyond = gemm.positions() < plan.depth;
            self.load += &gemm.moved_pixel(i, &format!("tap_y{i}"), &format!("tap_x{i}"), beyond);
            self.load(&name, &value(&format!("c{i}")), made);
            self.stage += &text.stage_left(i, |c| (format!("k{i}"), format!("slot{i} + {c}")));
        } else {
            // Neighbouring threads load neighbouring channels of a row.
            let quads = tile.k / 4;
            let _ = writeln!(
                self.once,
                "    let k{i} = ({at} % {quads}) * 4;\n    \
                 let slot{i} = {at} / {quads};\n    \
                 let p{i} = first + slot{i};"
            );
            self.once += &gemm.pixel(i);
            let beyond = plan.has_part_tiles();
            self.tap += &gemm.moved_pixel(i, "tap_y", "tap_x", beyond);
            self.load(&name, &value(&format!("base + k{i}")), made);
            self.stage += &text.stage_left(i, |c| (format!("k{i} + {c}"), format!("slot{i}")));
        }
    }

    /// Load `i` of every thread from the right operand, which is packed in the binding `packed` or an image.
    pub fn right(&mut self, gemm: &Gemm, plan: &Plan, i: usize, packed: Option<&str>) {
        let Plan { tile, columns, depth, .. } = plan;
        let quads = tile.columns / 4;
        // Threads past the tile's end load its last vector.
        let _ = writeln!(
            self.once,
            "    let at{i} = min(thread + {}, {});",
            i * tile.threads(),
            tile.k * quads - 1
        );
        let column = format!("block * {} + (at{i} % {quads}) * 4", tile.columns);
        let value = match packed {
            Some(packed) => {
                let _ = writeln!(
                    self.tap,
                    "    let from{i} = (((z * {} + {}) * {depth} + at{i} / {quads}) * {columns} + {column}) / 4;",
                    gemm.taps(),
                    gemm.tap_number(),
                );
                format!("{packed}[from{i} + base * {}]", columns / 4)
            }
            None => {
                let position = format!("base + at{i} / {quads}");
                let position = match gemm.positions() < *depth {
                    true => format!("min({position}, {})", gemm.positions() - 1),
                    false => position,
                };
                format!("rhs4({position}, z, {column})")
            }
        };
        let text = self.text;
        self.load(&format!("right{i}"), &value, |value| text.staged(value, gemm.gradients()[1]));
        self.stage += &text.stage_right(i);
    }
}
