//! The entry points: what is checked before a kernel runs, and which one does.

use super::plan::{Chosen, Pass, Plan};
use super::{Pool, Sink, Source, Workspace, general};

/// `y = conv(x, w)`: `x` is `[n, h, w, cin]`, the result `[n, oh, ow, cout]`.
///
/// # Panics
/// If `plan` is for another pass or a length does not fit it.
pub fn forward(
    pool: &Pool,
    plan: &Plan,
    x: &dyn Source,
    packed: &[f32],
    y: &dyn Sink,
    workspace: &mut Workspace,
) {
    assert_eq!(plan.pass, Pass::Forward, "the plan is for another pass");
    images(pool, plan, x, plan.shape.input_len(), packed, y, plan.shape.output_len(), workspace);
}

/// The gradient of [`forward`] with respect to `x`: `dy` is `[n, oh, ow, cout]`, the result
/// `[n, h, w, cin]`.
///
/// # Panics
/// If `plan` is for another pass or a length does not fit it.
pub fn input_grad(
    pool: &Pool,
    plan: &Plan,
    dy: &dyn Source,
    packed: &[f32],
    dx: &dyn Sink,
    workspace: &mut Workspace,
) {
    assert_eq!(plan.pass, Pass::InputGrad, "the plan is for another pass");
    images(pool, plan, dy, plan.shape.output_len(), packed, dx, plan.shape.input_len(), workspace);
}

#[allow(clippy::too_many_arguments)]
fn images(
    pool: &Pool,
    plan: &Plan,
    source: &dyn Source,
    source_len: usize,
    packed: &[f32],
    sink: &dyn Sink,
    sink_len: usize,
    workspace: &mut Workspace,
) {
    if let Some(data) = source.direct() {
        assert_eq!(data.len(), source_len, "operand of {:?}", plan.shape);
    }
    if let Some(data) = sink.target() {
        assert_eq!(data.len(), sink_len, "result of {:?}", plan.shape);
    }
    assert_eq!(packed.len(), plan.packed_len(), "packed weights of {:?}", plan.shape);
    let scratch = workspace.get(plan.workspace_len(pool.threads()));
    match &plan.chosen {
        Chosen::General => {
            general::run(pool, &plan.shape, plan.pass, source, packed, sink, scratch);
        }
        Chosen::Depthwise(plan) => plan.run(pool, source, packed, sink, scratch),
        Chosen::Direct(plan) => plan.run(pool, source, packed, sink, scratch),
        Chosen::Winograd(plan) => plan.run(pool, source, packed, sink, scratch),
        Chosen::DirectWeights(_) | Chosen::WinogradWeights(_) => {
            unreachable!("not a plan for images")
        }
    }
}

/// The gradient of [`forward`] with respect to the weights, as PyTorch lays them out,
/// `[cout, cin / groups, kh, kw]`: `x` is `[n, h, w, cin]`, `dy` is `[n, oh, ow, cout]`.
///
/// # Panics
/// If `plan` is for another pass or a length does not fit it.
pub fn weight_grad(
    pool: &Pool,
    plan: &Plan,
    x: &dyn Source,
    dy: &dyn Source,
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    assert_eq!(plan.pass, Pass::WeightGrad, "the plan is for another pass");
    if let Some(data) = x.direct() {
        assert_eq!(data.len(), plan.shape.input_len(), "input of {:?}", plan.shape);
    }
    if let Some(data) = dy.direct() {
        assert_eq!(data.len(), plan.shape.output_len(), "output gradient of {:?}", plan.shape);
    }
    assert_eq!(dw.len(), plan.shape.weight_len(), "weight gradient of {:?}", plan.shape);
    let scratch = workspace.get(plan.workspace_len(pool.threads()));
    match &plan.chosen {
        Chosen::General => general::weight_grad(pool, &plan.shape, x, dy, dw, scratch),
        Chosen::Depthwise(plan) => plan.run_weights(pool, x, dy, dw, scratch),
        Chosen::DirectWeights(plan) => plan.run(pool, x, dy, dw, scratch),
        Chosen::WinogradWeights(plan) => plan.run(pool, x, dy, dw, scratch),
        Chosen::Direct(_) | Chosen::Winograd(_) => unreachable!("not a plan for weights"),
    }
}
