//! Prologues and epilogues as WGSL functions, called by the kernels' cores.

use std::fmt::Write;

use autograd::tensor::BinaryOp;
use schedule::{Epilogue, Instr, Operand, Program, Reg, Store, merge_dims};

use crate::bindings::Bindings;
use crate::element::Element;
use crate::emit::{Emitter, Index, decompose};

/// A function over a tensor's index. The schedule may split the tensor's first dim; the function takes
/// it as one.
struct Function {
    /// Index parameters, one a dim of the tensor.
    params: &'static [&'static str],
    /// Sizes of the iteration space after merging, and of which parameter each dim is a part.
    sizes: Vec<usize>,
    of: Vec<u8>,
    /// The dim that is taken in fours.
    vector: Option<usize>,
}

impl Function {
    /// `shape` is the tensor's shape with the first dim possibly split. Parts that every list of strides
    /// walks as one are merged, in the lists too.
    fn new(
        params: &'static [&'static str],
        shape: &[usize],
        vector: Option<usize>,
        strides: &mut [&mut Vec<i64>],
    ) -> Function {
        let parts = shape.len() + 1 - params.len();
        let mut sizes = shape.to_vec();
        let mut of: Vec<u8> = (0..shape.len()).map(|d| (d + 1).saturating_sub(parts) as u8).collect();
        merge_dims(&mut sizes, &mut of, strides);
        let vector = vector.and_then(|v| of.iter().position(|&param| usize::from(param) == v));
        Function { params, sizes, of, vector }
    }

    fn emitter(&self) -> Emitter {
        let leading = self.of.partition_point(|&param| param == 0);
        let (code, mut index) = match &self.sizes[..leading] {
            several @ [_, _, ..] => decompose(several, None, self.params[0], "lead"),
            one => {
                let index = |&size: &usize| Index { name: self.params[0].to_string(), size, up_to: None };
                (String::new(), one.iter().map(index).collect())
            }
        };
        let rest = self.of.iter().zip(&self.sizes).skip(leading);
        index.extend(rest.map(|(&param, &size)| {
            let name = self.params[usize::from(param)].to_string();
            Index { name, size, up_to: None }
        }));
        let mut emitter = Emitter::new(index, self.vector, "v");
        emitter.code = code;
        emitter
    }

    fn signature(&self) -> String {
        self.params.iter().map(|p| format!("{p}: i32")).collect::<Vec<_>>().join(", ")
    }
}

/// What a function returns of an operand: its values times a power of two, in this type.
#[derive(Clone, Copy)]
pub struct Rounding {
    pub element: Element,
    pub scale: f32,
}

impl Rounding {
    /// The values themselves.
    pub const NONE: Rounding = Rounding { element: Element::F32, scale: 1.0 };

    /// Of a value, or of four.
    pub fn of(&self, value: String, vector: bool) -> String {
        let scaled = if self.scale == 1.0 { value } else { format!("({value}) * {:.1}", self.scale) };
        self.element.narrowed(&scaled, vector)
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
    /// whose index counts in fours.
    pub fn new(operand: &Operand, params: &'static [&'static str], vector: Option<usize>) -> Loader {
        let mut program = operand.program.clone();
        let mut strides: Vec<_> = program.stride_lists().collect();
        let function = Function::new(params, &operand.shape, vector, &mut strides);
        Loader { function, program, value: operand.value }
    }

    /// See [`Emitter::declare`].
    pub fn declare(&self, bindings: &mut Bindings) {
        self.function.emitter().declare(&self.program, &[], bindings);
    }

    /// The function's text. What is stored as it is to be returned is neither widened nor rounded again.
    pub fn write(&self, name: &str, rounding: Rounding, bindings: &mut Bindings) -> String {
        let mut emitter = self.function.emitter();
        let is_vector = emitter.vector.is_some();
        let value = self.stored(rounding, bindings).unwrap_or_else(|| {
            emitter.program(&self.program, &[self.value], bindings);
            rounding.of(emitter.reg(self.value), is_vector)
        });
        format!(
            "fn {name}({}) -> {} {{\n{}    return {value};\n}}\n",
            self.function.signature(),
            if is_vector { rounding.element.wgsl(true) } else { rounding.element.scalar().wgsl(false) },
            emitter.code,
        )
    }

    /// The load of what is to be returned, if it is stored so.
    pub fn stored(&self, rounding: Rounding, bindings: &mut Bindings) -> Option<String> {
        let instrs = &self.program.instrs;
        let (load, scale) = match &instrs[self.value] {
            Instr::Binary(BinaryOp::Mul, load, by) => match instrs[*by] {
                Instr::Constant(by) => (&instrs[*load], by),
                _ => return None,
            },
            load => (load, 1.0),
        };
        let load = Some(load).filter(|_| scale * rounding.scale == 1.0)?;
        self.function.emitter().stored(load, rounding.element, bindings)
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
        let stored = stores.iter_mut().flat_map(|store| store.view.stride_lists());
        let mut strides: Vec<_> = program.stride_lists().chain(stored).collect();
        let function = Function::new(params, &epilogue.shape, vector, &mut strides);
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
/// The same, with one number for a pixel.
pub const PIXELS: &[&str] = &["p", "c"];
/// Index parameters of convolution weights `[Cout, Cin/groups, kh, kw]`.
pub const WEIGHT: &[&str] = &["co", "ci", "r", "s"];
/// Index parameters of the left matrices `[batch, m, k]`.
pub const LEFT: &[&str] = &["z", "m", "k"];
/// Index parameters of the right matrices `[batch, k, n]`.
pub const RIGHT: &[&str] = &["z", "k", "n"];
/// Index parameters of a product `[batch, m, n]`.
pub const PRODUCT: &[&str] = &["z", "m", "n"];
