//! Which layer expressions belong to.

use autograd::{Variable, scope};

/// Until the guard is dropped, expressions belong to the layer with this parameter, a `LAYER.weight`: a table
/// of the step names it.
pub fn within(parameter: &Variable) -> scope::Guard {
    scope::layer(parameter.name().rsplit_once('.').map_or("", |(layer, _)| layer))
}
