//! The examples run to their end; each says itself whether what it did succeeded.
#![allow(dead_code, reason = "not every `main` is what is run")]

macro_rules! examples {
    ($($path:literal $name:ident $run:ident;)*) => {
        $(
            #[path = $path]
            mod $name;

            #[test]
            fn $name() {
                self::$name::$run().unwrap();
            }
        )*
    };
}

examples! {
    "../examples/mlp.rs" mlp main;
    "../examples/mnist_style.rs" mnist_style main;
    "../examples/own_layer.rs" own_layer main;
    "../examples/own_network.rs" own_network main;
    "../examples/own_distiller.rs" own_distiller main;
    "../examples/own_data.rs" own_data main;
    "../examples/own_run.rs" own_run main;
    "../examples/whole_way.rs" whole_way main;
    "../examples/vit.rs" vit main;
    "../examples/second_order.rs" second_order main;
    "../examples/inference.rs" inference demonstrate;
}
