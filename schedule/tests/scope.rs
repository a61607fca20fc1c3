//! Where kernels belong: what the scopes of expressions say, and that they change nothing else.

use autograd::{Tensor, Variable, grad, scope};
use schedule::{Kernel, Schedule, Step};

/// A product and a loss with its gradient and update, with or without scopes.
fn step(scopes: bool) -> Step {
    let weight = Variable::full("net.fc.weight", &[8, 4], 0.5);
    let x = Tensor::input("x", &[16, 4]);
    let part = |name| scopes.then(|| scope::part(name));
    let logits = {
        let _part = part("student");
        let product = {
            let _layer = scopes.then(|| scope::layer("net.fc"));
            x.matmul(&weight.tensor().transpose())
        };
        // Between layers: still the one before.
        product.relu()
    };
    let _part = part("loss");
    let loss = logits.exp().sum_all();
    let gradient = &grad(&loss, &[weight.tensor()])[0];
    let _part = part("update");
    let value = weight.tensor() - gradient * 0.1;
    Step::new().output("loss", &loss).output("logits", &logits).update(&weight, &value)
}

#[test]
fn kernels_belong_where_their_expressions_were_written() {
    let schedule = step(true).schedule().unwrap();
    let places: Vec<(&str, Option<String>)> = schedule
        .kernels
        .iter()
        .map(|kernel| schedule.scope(kernel))
        .map(|scope| (scope.part, scope.layer.map(|layer| layer.to_string())))
        .collect();
    let layer = || Some("net.fc".to_string());
    for wanted in [("student", layer()), ("loss", None), ("backward", layer())] {
        assert!(places.contains(&wanted), "{wanted:?} of {places:?}");
    }
}

#[test]
fn scopes_change_nothing_else() {
    let text = |schedule: Schedule| {
        let kernels: Vec<Kernel> = schedule.kernels;
        // Variables have numbers of their own in each step; kernels name buffers only.
        format!("{kernels:?} {:?}", schedule.slots)
    };
    assert_eq!(text(step(true).schedule().unwrap()), text(step(false).schedule().unwrap()));
}

#[test]
fn a_scope_ends_with_its_guard() {
    let here = || Tensor::scalar(1.0).scope().clone();
    {
        let _part = scope::part("a");
        {
            let _layer = scope::layer("b.c");
            assert_eq!((here().part, here().layer.as_deref()), ("a", Some("b.c")));
        }
        assert_eq!((here().part, here().layer), ("a", None));
    }
    assert_eq!(here(), scope::Scope::default());
    // Also where something goes wrong in between.
    let _ = std::panic::catch_unwind(|| {
        let _part = scope::part("lost");
        panic!("on purpose");
    });
    assert_eq!(here(), scope::Scope::default());
}
