//! Prints the compiled training step of a network: `cargo run -p nn --example step_table -- resnet20 64 [views] [--plain]`.

use autograd::{Tensor, grad};
use nn::layers::Forward;
use schedule::{Options, Step};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("resnet20", String::as_str);
    let batch: usize = arguments.get(1).map_or(Ok(64), |b| b.parse())?;
    let views: usize = arguments.get(2).map_or(Ok(1), |v| v.parse())?;
    let model = nn::models::build(name, 100, 0)?;
    let x = Tensor::input("images", &[views * batch, 32, 32, 3]);
    let labels = Tensor::input_i32("labels", &[views * batch]);
    let mut forward = Forward::train(views);
    let logits = model.forward(&x, &mut forward).logits;
    let loss = logits.cross_entropy(&labels).mean_all();
    let sgd = nn::Sgd::new(&model.parameters(), Default::default());
    let gradients = grad(&loss, &sgd.tensors());
    let lr = Tensor::input("lr", &[]);
    let step = Step::new()
        .output("loss", &loss)
        .updates(sgd.updates(&gradients, &lr))
        .updates(forward.into_updates());
    let fuse = !arguments.iter().any(|a| a == "--plain");
    let started = std::time::Instant::now();
    let schedule = step.schedule_with(Options { fuse, ..Options::default() })?;
    print!("{}", schedule.table());
    println!("scheduled in {:?}", started.elapsed());
    Ok(())
}
