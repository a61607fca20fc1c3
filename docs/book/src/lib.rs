//! The code of the book: a module a chapter, beside the chapter's text.
//!
//! What stands in the book comes from here. Code is a region of these files (mdBook's anchors); what a
//! program prints and every picture is written to `generated/` by `cargo run --release -p book -- write`.
//! `tests/book.rs` runs all of it again and compares, so text and program cannot drift apart.

// The chapters are the documentation.
#![allow(missing_docs)]

pub mod backwards;
pub mod batch_norm;
pub mod checks;
pub mod convolution;
pub mod derivative;
pub mod distillation;
pub mod excerpt;
pub mod exercises;
pub mod kernel;
pub mod node;
pub mod operation;
pub mod passes;
pub mod picture;
pub mod rounding;
pub mod second;
pub mod solutions;
pub mod training;

use autograd::Result;

/// Every program of the book, by the name of the file that holds its output.
pub const PROGRAMS: &[(&str, fn() -> Result<()>)] = &[
    ("derivative_errors", derivative::errors),
    ("derivative_dual", derivative::dual),
    ("node_graph", node::graph),
    ("node_rules", node::rules),
    ("backwards_tape", backwards::tape),
    ("backwards_grad", backwards::by_the_engine),
    ("backwards_check", backwards::check),
    ("backwards_price", backwards::price),
    ("second_sizes", second::sizes),
    ("second_newton", second::newton),
    ("second_penalty", second::penalty),
    ("second_product", second::product),
    ("passes_written", passes::written),
    ("passes_simplified", passes::simplified),
    ("passes_counted", passes::counted),
    ("passes_inlined", passes::inlined),
    ("passes_finished", passes::finished),
    ("kernel_shader", kernel::shader),
    ("kernel_counted", kernel::counted),
    ("kernel_bounds", kernel::bounds),
    ("convolution_compared", convolution::compared),
    ("convolution_transposes", convolution::transposes),
    ("convolution_four", convolution::four_products),
    ("convolution_errors", convolution::errors),
    ("batch_norm_depth", batch_norm::depth),
    ("batch_norm_gradient", batch_norm::gradient),
    ("batch_norm_scale", batch_norm::scale),
    ("batch_norm_variance", batch_norm::variance),
    ("training_softmax", training::softmax),
    ("training_descent", training::descent),
    ("training_held_out", training::held_out),
    ("distillation_softened", distillation::softened),
    ("distillation_squared", distillation::squared),
    ("distillation_swapped", distillation::swapped),
    ("distillation_pulls", distillation::pulls),
    ("distillation_terms", distillation::terms),
    ("rounding_neighbours", rounding::neighbours),
    ("rounding_order", rounding::order),
    ("rounding_summed", rounding::summed),
    ("rounding_threads", rounding::threads),
    ("rounding_kink", rounding::kink),
    ("rounding_large", rounding::large),
    ("rounding_half", rounding::half),
    ("rounding_pairs", rounding::pairs),
];

/// Every picture, by the name of its file.
pub const PICTURES: &[(&str, fn() -> Result<String>)] = &[
    ("derivative", derivative::picture),
    ("node", node::picture),
    ("backwards", backwards::picture),
    ("second", second::picture),
    ("passes", passes::picture),
    ("kernel", kernel::picture),
    ("convolution", convolution::picture),
    ("batch_norm", batch_norm::picture),
    ("training", training::picture),
    ("distillation_teacher", distillation::teacher_picture),
    ("distillation_student", distillation::student_picture),
    ("rounding", rounding::picture),
    ("operation", operation::picture),
];
