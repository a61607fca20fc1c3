//! Lines of the project's own sources that the book shows.

use std::fs;
use std::path::Path;

/// Some lines of a source: from the first that contains `from` to the next that contains `to`, with what closes
/// the braces after it.
pub struct Excerpt {
    /// The file that the book includes.
    pub name: &'static str,
    /// From the repository's root.
    pub path: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

/// All that the book shows.
pub const EXCERPTS: &[Excerpt] = &[
    Excerpt {
        name: "node_unary_rules.rs",
        path: "autograd/src/grad.rs",
        from: "Op::Unary(op) => {",
        to: "UnaryOp::Sign | UnaryOp::Floor",
    },
    Excerpt {
        name: "node_binary_rules.rs",
        path: "autograd/src/grad.rs",
        from: "BinaryOp::Add => ",
        to: "BinaryOp::Div => ",
    },
    Excerpt {
        name: "node_shape_rules.rs",
        path: "autograd/src/grad.rs",
        from: "Op::Broadcast => {",
        to: "g.sum(&stretched)",
    },
    Excerpt {
        name: "backwards_walk.rs",
        path: "autograd/src/grad.rs",
        from: "pub fn grad(",
        to: "wrt.iter().map(|t| gradients.get",
    },
    Excerpt {
        name: "second_convolution_rules.rs",
        path: "autograd/src/grad.rs",
        from: "Op::Convolution(conv) => {",
        to: "x.conv2d(g, *conv))]",
    },
    Excerpt {
        name: "kernel_gemm.txt",
        path: "shaders/wgsl/gemm_steps.wgsl",
        from: "for (var tap_y",
        to: "{{multiply}}",
    },
    Excerpt {
        name: "convolution_three.rs",
        path: "autograd/src/evaluate/convolution.rs",
        from: "/// x `[N,H,W,Cin]`, weight `[Cout",
        to: "view::permute(&TURNED, &dw)",
    },
    Excerpt {
        name: "batch_norm_operation.rs",
        path: "autograd/src/ops/composite.rs",
        from: "let (mean, variance) = (x.mean(&folded)",
        to: "let output = (&x - &mean) * scale",
    },
    Excerpt {
        name: "distillation_kd.rs",
        path: "sld/src/distill/kd.rs",
        from: "let (s, t) = batch.pair",
        to: "(\"kd\", kd * self.kd_weight),",
    },
    Excerpt {
        name: "distillation_swap.rs",
        path: "sld/src/distill/swap.rs",
        from: "pub fn swap(",
        to: "maximum.select(&own",
    },
    Excerpt {
        name: "distillation_sld.rs",
        path: "sld/src/distill/sld.rs",
        from: "let (y, gate) = (&batch.stacked_labels()",
        to: "let (weak_s, weak_t)",
    },
];

impl Excerpt {
    /// The lines, with the indentation that all of them share taken off.
    ///
    /// # Errors
    /// The file cannot be read or has no such lines.
    pub fn text(&self) -> Result<String, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(self.path);
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", self.path))?;
        let all: Vec<&str> = source.lines().collect();
        let missing = |what: &str| format!("{}: no line contains `{what}`", self.path);
        let first = all.iter().position(|l| l.contains(self.from)).ok_or_else(|| missing(self.from))?;
        let count = all[first..].iter().position(|l| l.contains(self.to)).ok_or_else(|| missing(self.to))?;
        let last = first + count;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let closes = |line: &&&str| {
            !line.is_empty()
                && line.trim().chars().all(|c| ")]};,".contains(c))
                && indent(line) >= indent(all[first])
        };
        let lines = &all[first..=last + all[last + 1..].iter().take_while(closes).count()];
        let filled = lines.iter().filter(|line| !line.trim().is_empty());
        let shared = filled.map(|line| indent(line)).min().unwrap_or(0);
        Ok(lines.iter().map(|line| line.get(shared..).unwrap_or("").to_string() + "\n").collect())
    }
}
