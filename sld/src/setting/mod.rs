//! Settings: structs whose fields are config keys, each declared once.
//!
//! [`settings!`] makes a struct from lines of path, field, type, default and checks; the field's
//! documentation is the key's help. Reading a file, `KEY VALUE` on the command line, printing, and the hint
//! for a mistyped key all follow from that line, so that a key cannot be known to one and not to another.

pub mod check;
mod field;
mod key;
mod mistake;
mod value;

pub use field::{Choice, Field};
pub use key::{Given, Key, Settings};
pub use mistake::{Mistake, Position};
pub use value::{Node, Value, parse};

/// Declares a struct whose fields are config keys: lines of
/// `/// help` `"PATH": field: Type = default, check, ...;`.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[doc = $help:literal])+ $path:literal: $field:ident: $type:ty = $default:expr $(, $check:expr)*;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[doc = $help])+ pub $field: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        #[allow(unused_variables)] // of a struct without keys
        impl $crate::setting::Settings for $name {
            fn keys(&self) -> &'static [$crate::setting::Key] {
                const { &[$($crate::setting::Key::new($path, concat!($($help),+))),*] }
            }
            fn set(&mut self, path: &str, given: &$crate::setting::Given) -> Option<Result<(), String>> {
                $(if path == $path {
                    let read = <$type as $crate::setting::Field>::read(given);
                    $(let read = read.and_then(|value| $check(&value).map(|()| value));)*
                    return Some(read.map(|value| self.$field = value));
                })*
                None
            }
            fn get(&self, path: &str) -> Option<String> {
                $(if path == $path {
                    return Some($crate::setting::Field::show(&self.$field));
                })*
                None
            }
        }
    };
}
pub use settings;

/// Defines an enum with the names its values have in a config.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $text, "` in a config.")]
            ///
            $(#[$vdoc])*
            $variant),*
        }

        impl $crate::setting::Choice for $name {
            const WHAT: &'static str = $what;
            fn names() -> Vec<&'static str> {
                vec![$($text),*]
            }
            fn from_name(name: &str) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($text) { return Some($name::$variant); })*
                None
            }
            fn name(&self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
}
pub(crate) use choice;
