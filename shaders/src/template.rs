//! Slots in WGSL text.

use std::fmt::Display;

/// Fills the slots `{{name}}` of a template. Every slot must be given and every given name used: a
/// leftover of either kind is a mistake in this crate, and shows as invalid WGSL.
pub fn fill(template: &str, slots: &[(&str, &dyn Display)]) -> String {
    let mut text = template.to_string();
    for (name, value) in slots {
        let slot = format!("{{{{{name}}}}}");
        debug_assert!(text.contains(&slot), "template has no slot {name}");
        text = text.replace(&slot, &value.to_string());
    }
    debug_assert!(!text.contains("{{"), "unfilled slot in {text}");
    text
}
