//! Where in a program an expression belongs: the part of the step, and the layer.
//!
//! A scope changes nothing about an expression or what is computed; it is for people who look at a
//! schedule. Whoever writes expressions says where they are with [`part`] and [`layer`], until the guard
//! that these return is dropped. What is written between layers belongs to the layer that it follows.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

/// The part that [`crate::grad()`] writes. Its layers are those of the expressions differentiated.
pub const BACKWARD: &str = "backward";

/// A place in a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Of the step, such as `student`; empty where nobody said.
    pub part: &'static str,
    /// Path of the layer, such as `layer1.0.conv1`.
    pub layer: Option<Arc<str>>,
}

thread_local!(static CURRENT: RefCell<Scope> = const { RefCell::new(Scope { part: "", layer: None }) });

/// Ends a scope when it is dropped. Guards end in the opposite order of their beginning.
#[must_use = "the scope ends when the guard is dropped"]
pub struct Guard {
    before: Scope,
    // Scopes are a thread's own.
    here: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.before));
    }
}

/// This thread's expressions belong to this scope from here on.
pub fn enter(scope: Scope) -> Guard {
    Guard { before: CURRENT.replace(scope), here: PhantomData }
}

/// This thread's expressions belong to this part of the step from here on.
pub fn part(part: &'static str) -> Guard {
    enter(Scope { part, ..current() })
}

/// This thread's expressions belong to this layer from here on.
pub fn layer(path: &str) -> Guard {
    enter(Scope { layer: Some(path.into()), ..current() })
}

/// The scope of an expression of this thread, where layers do not say otherwise.
pub(crate) fn current() -> Scope {
    CURRENT.with_borrow(Scope::clone)
}
