//! Prologues and epilogues as WGSL functions, called by the kernels' cores.

use std::fmt::Write;

use schedule::ir::{Epilogue, Operand, Program, Reg, Store};

use crate::bindings::Bindings;
use crate::collapse::{program_strides, store_strides};
use crate::emit::{Emitter, Index, decompose};

/// A function over a tensor's index. The schedule may split the tensor's first dim; the function takes
/// it as one.
struct Function {
    /// Index parameters, one a dim of the tensor.
    params: &'static [&'static str],
    /// Sizes of the tensor's dims.
    dims: Vec<usize>,
    /// Sizes of the parts of the first dim.
    leading: Vec<usize>,
    vector: Option<usize>,
}

impl Function {
    /// `shape` is the tensor's shape with the first dim possibly split. Parts that every view walks as
    /// one are merged in `strides`.
    fn new(
        params: &'static [&'static str],
        shape: &[usize],
        vector: Option<usize>,
        mut strides: Vec<&mut Vec<i64>>,
    ) -> Function {
        let rank = params.len();
        let mut leading = shape[..shape.len() + 1 - rank].to_vec();
        let mut dims = vec![leading.iter().product()];
        dims.extend(&shape[shape.len() + 1 - rank..]);
        for s in &mut strides {
            s.resize(shape.len(), 0);
        }
        for d in (1..leading.len()).rev() {
            let size = leading[d] as i64;
            if leading[d - 1] == 1 || strides.iter().all(|s| s[d - 1] == s[d] * size) {
                let part = leading.remove(d - 1);
                leading[d - 1] *= part;
                for s in &mut strides {
                    s.remove(d - 1);
                }
            }
        }
        Function { params, dims, leading, vector }
    }

    /// Statements before the body, and the index to write it over.
    fn prepare(&self) -> (String, Vec<Index>) {
        let tail = |p: usize| Index { name: self.params[p].to_string(), size: self.dims[p] };
        if self.leading.len() == 1 {
            return (String::new(), (0..self.params.len()).map(tail).collect());
        }
        let (code, mut index) = decompose(&self.leading, None, self.params[0], "lead");
        index.extend((1..self.params.len()).map(tail));
        (code, index)
    }

    fn emitter(&self) -> Emitter {
        let (code, index) = self.prepare();
        // A dim's position moves when the first dim stays split.
        let vector = self.vector.map(|v| v + self.leading.len() - 1);
        let mut emitter = Emitter::new(index, vector, "v");
        emitter.code = code;
        emitter
    }

    fn signature(&self) -> String {
        self.params.iter().map(|p| format!("{p}: i32")).collect::<Vec<_>>().join(", ")
    }
}

/// An operand as a function from its index to its value.
pub struct Loader {
    function: Function,
    program: Program,
    value: Reg,
}

impl Loader {
    /// A function with these index parameters. With `vector` it returns four neighbours along that dim,
    /// whose index must be a multiple of four.
    pub fn new(operand: &Operand, params: &'static [&'static str], vector: Option<usize>) -> Loader {
        let mut program = operand.program.clone();
        let function = Function::new(params, &operand.shape, vector, program_strides(&mut program));
        Loader { function, program, value: operand.value }
    }

    /// See [`Emitter::declare`].
    pub fn declare(&self, bindings: &mut Bindings) {
        self.function.emitter().declare(&self.program, &[], bindings);
    }

    /// The function's text.
    pub fn write(&self, name: &str, bindings: &mut Bindings) -> String {
        let mut emitter = self.function.emitter();
        emitter.program(&self.program, &[self.value], bindings);
        format!(
            "fn {name}({}) -> {} {{\n{}    return {};\n}}\n",
            self.function.signature(),
            emitter.value_type(),
            emitter.code,
            emitter.reg(self.value)
        )
    }
}

/// An epilogue as a function from an index and the core's result to the stores.
pub struct Finisher {
    function: Function,
    program: Program,
    stores: Vec<Store>,
}

impl Finisher {
    /// As [`Loader::new`].
    pub fn new(epilogue: &Epilogue, params: &'static [&'static str], vector: Option<usize>) -> Finisher {
        let (mut program, mut stores) = (epilogue.program.clone(), epilogue.stores.clone());
        let mut strides = program_strides(&mut program);
        strides.extend(store_strides(&mut stores));
        let function = Function::new(params, &epilogue.shape, vector, strides);
        Finisher { function, program, stores }
    }

    /// See [`Emitter::declare`].
    pub fn declare(&self, bindings: &mut Bindings) {
        self.function.emitter().declare(&self.program, &self.stores, bindings);
    }

    /// The function's text; its last parameter is the core's result. It returns the values of the
    /// registers `results` (of the epilogue's program) as an array, if there are any.
    pub fn write(&self, name: &str, results: &[Reg], bindings: &mut Bindings) -> String {
        let mut emitter = self.function.emitter();
        emitter.accumulators = vec!["accumulator".to_string()];
        let mut roots: Vec<Reg> = self.stores.iter().map(|s| s.value).collect();
        roots.extend(results);
        emitter.program(&self.program, &roots, bindings);
        emitter.stores(&self.stores, bindings);
        let value_type = emitter.value_type();
        let mut text = format!("fn {name}({}, accumulator: {value_type})", self.function.signature());
        if results.is_empty() {
            let _ = write!(text, " {{\n{}}}\n", emitter.code);
        } else {
            let returned = format!("array<{value_type}, {}>", results.len());
            let values: Vec<String> = results.iter().map(|r| emitter.reg(*r)).collect();
            let _ = write!(
                text,
                " -> {returned} {{\n{}    return {returned}({});\n}}\n",
                emitter.code,
                values.join(", ")
            );
        }
        text
    }
}

/// Index parameters of images `[N, H, W, C]`.
pub const IMAGE: &[&str] = &["n", "y", "x", "c"];
/// Index parameters of convolution weights `[Cout, Cin/groups, kh, kw]`.
pub const WEIGHT: &[&str] = &["co", "ci", "r", "s"];
/// Index parameters of the left matrices `[batch, m, k]`.
pub const LEFT: &[&str] = &["z", "m", "k"];
/// Index parameters of the right matrices `[batch, k, n]`.
pub const RIGHT: &[&str] = &["z", "k", "n"];
/// Index parameters of a product `[batch, m, n]`.
pub const PRODUCT: &[&str] = &["z", "m", "n"];
