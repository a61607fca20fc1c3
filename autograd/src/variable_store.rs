//! Where the values of variables are.

use crate::error::Result;
use crate::tensor::Variable;

/// Holds the values of variables (a device's memory). They are keyed by [`Variable::id`].
pub trait VariableStore {
    /// Overwrites a variable. Wrong length, NaN and infinity are errors and change nothing.
    fn write(&self, variable: &Variable, values: &[f32]) -> Result<()>;

    /// Reads a variable back (its initial value if no step and no write has touched it).
    fn read(&self, variable: &Variable) -> Result<Vec<f32>>;
}
