//! Python's pickle format, read as data.
//!
//! A pickle is a program for a stack machine (its opcodes are documented in CPython's `pickletools`). The
//! machine here ([`load`]) builds values and nothing else. What Python would call stays a
//! description of the call, an [`Object`]: a name, arguments, state. Whoever knows the name gives it a
//! meaning (a tensor, a numpy array). There is no way from a name to anything that runs, and a name that
//! is not on the list of `globals.rs` is refused.
//!
//! Values live in an arena and refer to each other by index, so cycles and any depth of nesting cost
//! nothing to hold and nothing to drop. Texts and bytes are borrowed from the input. Each opcode takes
//! constant time or time linear in what it pops; memory is at most proportional to the bytes read.

mod globals;
mod machine;
#[cfg(test)]
mod tests;
mod value;

pub use machine::load;
pub use value::{Global, GlobalId, Node, NodeId, Object, Pickle, PickleError, Value};
