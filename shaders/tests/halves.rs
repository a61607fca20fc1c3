//! What is stored in 16 bits in mixed precision.

use autograd::tensor::Conv2d;
use autograd::{Tensor, Variable, Window, grad};
use schedule::{Body, ConvKind, Instr, Kernel, Role, Step};
use shaders::{Element, Limits, Operands, Precomputed, Target, precompute};

const IMAGES: [usize; 4] = [4, 8, 8, 16];

/// A step's schedule on an adapter, with all that is stored in 16 bits.
fn stored(step: &Step, operands: Operands) -> Precomputed {
    let target = Target { operands, ..Target::WEBGPU };
    precompute(step.schedule_with(target.schedule_options()).unwrap(), &target)
}

/// Of each buffer that some kernels write, whether it is in 16 bits.
fn written(made: &Precomputed, kernels: impl Fn(&Kernel) -> bool) -> Vec<bool> {
    let kernels = made.schedule.kernels.iter().filter(|kernel| kernels(kernel));
    kernels.flat_map(Kernel::writes).map(|buffer| made.places[buffer].element == Element::F16).collect()
}

fn is_convolution(kernel: &Kernel, wanted: ConvKind) -> bool {
    matches!(&kernel.body, Body::Convolution { kind, .. } if *kind == wanted)
}

fn weight(name: &str) -> Variable {
    Variable::full(name, &[16, 16, 3, 3], 0.1)
}

/// Normalised by its own statistics, with what was there before added to it.
fn normalised(y: &Tensor, before: &Tensor) -> Tensor {
    let (mean, variance) = (y.mean(&[0, 1, 2]), y.variance(&[0, 1, 2]));
    let over = |statistic: &Tensor| statistic.reshape(&[1, 1, 1, 16]).broadcast_to(y.shape());
    (&(&(y - &over(&mean)) / &(&over(&variance) + 1e-5).sqrt()) + before).relu()
}

/// Two blocks of a residual network and its training.
fn training() -> Step {
    let weights = ["a", "b", "c"].map(weight);
    let x = Tensor::input("x", &IMAGES);
    let states: Vec<Tensor> = weights.iter().map(Variable::tensor).collect();
    let convolution = |x: &Tensor, i: usize| x.conv2d(&states[i], Conv2d::new(1, 1));
    let first = normalised(&convolution(&x, 0), &x);
    let second = normalised(&convolution(&first, 1), &first);
    let third = normalised(&convolution(&second, 2), &second);
    let loss = third.mean_all();
    let gradients = grad(&loss, &states);
    let new = states.iter().zip(&gradients).map(|(w, gradient)| w - &(gradient * 0.1));
    Step::new().output("loss", &loss).updates(weights.into_iter().zip(new))
}

#[test]
fn activations_are_and_gradients_and_statistics_are_not() {
    let made = stored(&training(), Operands::F16);
    assert_eq!(written(&made, |kernel| is_convolution(kernel, ConvKind::Forward)), [true; 3]);
    for kind in [ConvKind::InputGrad, ConvKind::WeightGrad] {
        let gradients = written(&made, |kernel| is_convolution(kernel, kind));
        assert!(gradients.len() >= 2 && !gradients.contains(&true), "{kind:?}: {gradients:?}");
    }
    let folded = written(&made, |kernel| matches!(kernel.body, Body::Reduce { .. }));
    assert!(folded.len() > 6 && !folded.contains(&true), "{folded:?}");
    for (buffer, place) in made.schedule.buffers.iter().zip(&made.places) {
        let is_large =
            matches!(buffer.role, Role::Temporary { .. }) && buffer.len() >= IMAGES.iter().product();
        assert!(is_large || place.element == Element::F32, "{}: {:?}", buffer.label, buffer.role);
    }
}

#[test]
fn nothing_is_where_nothing_is_rounded() {
    let made = stored(&training(), Operands::F32);
    assert!(made.places.iter().all(|place| place.element == Element::F32));
}

/// What a caller reads, and what a pool takes as a plain array.
#[test]
fn what_other_than_programs_read_is_not() {
    let (x, w) = (Tensor::input("x", &IMAGES), weight("w").tensor());
    let y = x.conv2d(&w, Conv2d::new(1, 1));
    let again = y.conv2d(&w, Conv2d::new(1, 1));
    let forward = |step: &Step| {
        written(&stored(step, Operands::F16), |kernel| is_convolution(kernel, ConvKind::Forward))
    };
    assert_eq!(forward(&Step::new().output("sum", &again.sum_all())), [true, false]);
    assert_eq!(forward(&Step::new().output("sum", &again.sum_all()).output("y", &y)), [false, false]);
    let pooled = y.max_pool(Window::new(2, 2, 0)).sum_all();
    assert_eq!(
        forward(&Step::new().output("sum", &again.sum_all()).output("pooled", &pooled)),
        [false, false]
    );
}

/// The gradient of a loss on a convolution's result is made by that convolution's kernel. It is stored as convolutions
/// round it: scaled, and only if nothing else reads it.
#[test]
fn a_gradient_is_where_convolutions_alone_read_it() {
    let (x, target) = (Tensor::input("x", &IMAGES), Tensor::input("target", &IMAGES));
    let (a, b) = (weight("a").tensor(), weight("b").tensor());
    let y = x.conv2d(&a, Conv2d::new(1, 1)).conv2d(&b, Conv2d::new(1, 1));
    let difference = &y - &target;
    let loss = (&difference * &difference).mean_all();
    let gradients = grad(&loss, &[a, b, y]);
    let step = Step::new().output("a", &gradients[0]).output("b", &gradients[1]);
    let made = stored(&step, Operands::F16);
    let is_forward = |kernel: &Kernel| is_convolution(kernel, ConvKind::Forward);
    assert_eq!(written(&made, is_forward), [true, true]);
    let scales: Vec<bool> = made
        .schedule
        .kernels
        .iter()
        .filter_map(|kernel| match &kernel.body {
            Body::Convolution { kind: ConvKind::Forward, epilogue, .. } => Some(&epilogue.program),
            _ => None,
        })
        .map(|program| program.instrs.contains(&Instr::Constant(1024.0)))
        .collect();
    assert_eq!(scales, [false, true]);

    let made = stored(&step.output("sum", &gradients[2].sum_all()), Operands::F16);
    assert_eq!(written(&made, is_forward), [true, false]);
}

/// Pairs take no less memory than `f32`, so only what convolutions read as it is, is stored so: activations after their
/// ReLU and gradients, and not what is still to be normalised.
#[test]
fn pairs_are_what_convolutions_read_as_it_is() {
    let limits = Limits { workgroup_bytes: 32 << 10, ..Limits::WEBGPU };
    let target = Target { operands: Operands::Split, limits, ..Target::WEBGPU };
    let made = precompute(training().schedule_with(target.schedule_options()).unwrap(), &target);
    let mut pairs = 0;
    for (buffer, place) in made.places.iter().enumerate().filter(|(_, place)| place.element != Element::F32) {
        assert_eq!(place.element, Element::Pair);
        let is_operand = |kernel: &Kernel| match &kernel.body {
            Body::Convolution { lhs, rhs, .. } => {
                lhs.program.buffers().chain(rhs.program.buffers()).any(|read| read == buffer)
            }
            _ => false,
        };
        assert!(made.schedule.kernels.iter().any(is_operand), "`{}`", made.schedule.buffers[buffer].label);
        pairs += 1;
    }
    assert!(pairs >= 4, "{pairs}");
    let forward = made.schedule.kernels.iter().filter(|kernel| is_convolution(kernel, ConvKind::Forward));
    let results: Vec<Element> =
        forward.flat_map(Kernel::writes).map(|buffer| made.places[buffer].element).collect();
    assert!(results.len() >= 3 && !results.contains(&Element::Pair), "{results:?}");
}

/// A slot that holds nothing but halves takes half the memory.
#[test]
fn slots_are_as_large_as_what_they_hold() {
    let (x, w) = (Tensor::input("x", &IMAGES), weight("w").tensor());
    let step =
        Step::new().output("sum", &x.conv2d(&w, Conv2d::new(1, 1)).conv2d(&w, Conv2d::new(1, 1)).sum_all());
    let len: usize = IMAGES.iter().product();
    for (operands, bytes) in [(Operands::F32, 4 * len), (Operands::F16, 2 * len)] {
        let made = stored(&step, operands);
        let first = made.schedule.kernels.iter().find(|kernel| is_convolution(kernel, ConvKind::Forward));
        let buffer = first.expect("two convolutions").writes()[0];
        let Role::Temporary { slot } = made.schedule.buffers[buffer].role else { panic!("no temporary") };
        assert_eq!(4 * made.schedule.slots[slot], bytes);
    }
}
