//! Asks an operation that was just added: its value on the CPU device, its gradient, and the gradient of that.

use autograd::{Tensor, grad};
use schedule::{Device, Step, Value};

fn main() -> autograd::Result<()> {
    let x = Tensor::input("x", &[4]);
    let y = (&x * 2.0).sin();
    let dy = grad(&y, std::slice::from_ref(&x)).remove(0);
    let ddy = grad(&dy, std::slice::from_ref(&x)).remove(0);

    let values = [-3.0f32, -0.5, 0.0, 1.0];
    let step = Step::new().output("sin 2x", &y).output("2 cos 2x", &dy).output("-4 sin 2x", &ddy);
    let mut run = cpu::CpuDevice::new(1).compile_step(&step)?;
    run.call(&[("x", Value::F32(&values))])?;
    let exact: [(&str, fn(f64) -> f64); 3] = [
        ("sin 2x", |x| (2.0 * x).sin()),
        ("2 cos 2x", |x| 2.0 * (2.0 * x).cos()),
        ("-4 sin 2x", |x| -4.0 * (2.0 * x).sin()),
    ];
    for (name, exact) in exact {
        let found = run.output(name)?;
        let close = found.iter().zip(values).all(|(&y, x)| (f64::from(y) - exact(x.into())).abs() < 1e-5);
        println!("{name}: {}", if close { "right" } else { "wrong" });
    }
    println!("in {} kernel", run.schedule().kernels.len());
    Ok(())
}
