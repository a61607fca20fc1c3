//! Right operands of products, packed as the products read them. Of a weight that is once a call, before all
//! kernels and for all of them in one launch, where one launch can bind them all.

use std::fmt::Write;

use autograd::Result;
use schedule::{BufferId, ConvKind, Operand};

use crate::bindings::Bindings;
use crate::element::Element;
use crate::emit::{quotient, remainder};
use crate::gemm::{Form, Gemm};
use crate::launch::{Access, Context, Launch, Scratch, Storage};
use crate::operand::{Loader, RIGHT, Rounding, WEIGHT};
use crate::template::fill;
use crate::thread::{THREADS, finish_launch};

const TEMPLATE: &str = include_str!("../wgsl/gemm_pack.wgsl");

/// A right operand to be packed as `[z][tap][k][column]`, for matrix units `[z][tap][column][k]`, padded with zeros to
/// whole tiles.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The label of the kernel that reads it.
    label: String,
    operand: Operand,
    params: &'static [&'static str],
    /// The operand's index, of `z`, `tap`, `k` and `column`.
    index: String,
    z: usize,
    taps: usize,
    /// Taps that have values of k of their own: the others lie along k, each with four values.
    packed_taps: usize,
    k: usize,
    columns: usize,
    /// Both in whole tiles.
    padded: [usize; 2],
    is_along_k: bool,
    element: Element,
}

impl Pack {
    /// Of a product that reads `padded` values of k and columns.
    pub(crate) fn new(context: Context, label: &str, gemm: &Gemm, padded: [usize; 2]) -> Pack {
        let (params, index) = match gemm.form {
            Form::Matrix => (RIGHT, "z, k, column".to_string()),
            Form::Convolution(kind) => {
                let tap = format!("tap / {kw}, tap % {kw}", kw = gemm.window[1]);
                let index = match kind {
                    ConvKind::Forward => format!("z * {} + column, k, {tap}", gemm.columns),
                    _ => format!("z * {} + k, column, {tap}", gemm.channels),
                };
                (WEIGHT, index)
            }
        };
        Pack {
            label: label.to_string(),
            operand: gemm.rhs.clone(),
            params,
            index,
            z: gemm.z,
            taps: gemm.taps(),
            packed_taps: gemm.packed_taps(),
            k: gemm.channels,
            columns: gemm.columns,
            padded,
            is_along_k: context.target.operands.are_matrices(),
            element: context.target.operands.element(),
        }
    }

    /// What it is made from.
    pub fn reads(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.operand.program.buffers()
    }

    /// Where the kernel's launches find it, see [`Assembled::pack`](crate::Assembled::pack).
    pub(crate) fn packed(&self) -> Scratch {
        let [k, columns] = self.padded;
        let len = self.z * self.packed_taps * k * columns;
        Scratch { storage: Storage::Packed(0), element: self.element, len }
    }

    /// As a function `pack{number}` that writes element `i` behind `offset` others.
    fn function(&self, number: usize, packed: &str, offset: usize, bindings: &mut Bindings) -> String {
        let [k_padded, columns_padded] = self.padded;
        let tap_len = k_padded * columns_padded;
        let (k, column) = match self.is_along_k {
            true => (remainder("i", k_padded), remainder(&quotient("i", k_padded), columns_padded)),
            false => (remainder(&quotient("i", columns_padded), k_padded), remainder("i", columns_padded)),
        };
        let (k, tap) = match self.packed_taps < self.taps {
            true => (remainder(&k, 4), quotient(&k, 4)),
            false => (k, remainder(&quotient("i", tap_len), self.taps)),
        };
        let loader = Loader::new(&self.operand, self.params, None);
        loader.write(&format!("rhs{number}"), Rounding::NONE, bindings)
            + &fill(
                TEMPLATE,
                &[
                    ("number", &number),
                    ("k", &k),
                    ("column", &column),
                    ("tap", &tap),
                    ("z", &quotient("i", tap_len * self.packed_taps)),
                    ("taps", &self.taps),
                    ("columns", &self.columns),
                    ("values", &self.k),
                    ("index", &self.index),
                    ("store", &self.element.store(packed, &format!("{offset} + i"), "value", false)),
                ],
            )
    }
}

/// The launch that packs operands into one piece of memory, each from an element of its own on.
pub(crate) fn launch(context: Context, storage: Storage, packs: &[(usize, Pack)]) -> Result<Launch> {
    let mut bindings = Bindings::new(context, []);
    for (_, pack) in packs {
        Loader::new(&pack.operand, pack.params, None).declare(&mut bindings);
    }
    let (mut functions, mut body, mut threads) = (String::new(), String::new(), 0);
    for (number, (offset, pack)) in packs.iter().enumerate() {
        let packed = pack.packed();
        let all = Scratch { storage, len: offset + packed.len, ..packed };
        let name = bindings.scratch(all, Access::ReadWrite, false);
        functions += &pack.function(number, &name, *offset, &mut bindings);
        // Each has workgroups of its own, so no workgroup runs more than one.
        let next = threads + packed.len.next_multiple_of(THREADS);
        let _ = write!(
            body,
            "    if i < {next} {{\n        if i < {} {{ pack{number}(i - {threads}); }}\n        return;\n    }}\n",
            threads + packed.len
        );
        threads = next;
    }
    let label = match packs {
        [(_, pack)] => format!("{}, packing", pack.label),
        _ => format!("packing for {} products", packs.len()),
    };
    let (declarations, bound) = bindings.finish();
    let launch = finish_launch(context, &label, threads, &declarations, &functions, &body, bound);
    launch.check(context.target)?;
    Ok(launch)
}
