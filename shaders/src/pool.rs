//! Pooling and its gradients.

use std::fmt::Display;

use autograd::Result;
use schedule::{BufferId, PoolGeometry, PoolKind};

use crate::assembled::Assembled;
use crate::bindings::Bindings;
use crate::launch::Context;
use crate::template::fill;
use crate::thread::finish_launch;

const FUNCTIONS: &str = include_str!("../wgsl/pool.wgsl");
const OUTPUT: &str = include_str!("../wgsl/pool_output.wgsl");
const INPUT: &str = include_str!("../wgsl/pool_input.wgsl");

pub fn assemble(
    context: Context,
    label: &str,
    kind: PoolKind,
    g: &PoolGeometry,
    inputs: &[BufferId],
    output: BufferId,
) -> Result<Assembled> {
    let vectors = g.channels.is_multiple_of(4);
    let (value, integer, suffix) = if vectors { ("vec4<f32>", "vec4<i32>", "4") } else { ("f32", "i32", "") };
    let channels = if vectors { g.channels / 4 } else { g.channels };

    let mut bindings = Bindings::new(context, [output]);
    if !vectors {
        inputs.iter().chain([&output]).for_each(|&b| bindings.require_scalar(b));
    }
    let names: Vec<String> = inputs.iter().map(|&b| bindings.buffer(b, vectors)).collect();
    let out = bindings.buffer(output, vectors);
    // The functions are in every module; those not called are never compiled. `x` must exist.
    let first = names[0].clone();

    let gather = format!(
        "let at = window_maximum(n, oy, ox, c);\n{}    {out}[i] = result;\n",
        lanes(vectors, |lane| format!(
            "    result{lane} = {}[(n * {} + at{lane}) * {channels} + c]{lane};\n",
            names.last().map_or("", String::as_str),
            g.height * g.width,
        ))
    );
    let average = format!(
        "    for (var r = 0; r < {kh}; r++) {{\n        let y = oy * {sy} + r - {py};\n        \
         if y < 0 || y >= {height} {{ continue; }}\n        \
         for (var s = 0; s < {kw}; s++) {{\n            let x = ox * {sx} + s - {px};\n            \
         if x < 0 || x >= {width} {{ continue; }}\n            \
         result += {first}[((n * {height} + y) * {width} + x) * {channels} + c];\n        }}\n    }}\n    \
         {out}[i] = result / divisor(oy, ox);\n",
        kh = g.window.size[0],
        kw = g.window.size[1],
        sy = g.window.stride[0],
        sx = g.window.stride[1],
        py = g.window.padding[0],
        px = g.window.padding[1],
        height = g.height,
        width = g.width,
    );
    let scatter = format!(
        "result += select({value}(0.0), dy, window_maximum(n, oy, ox, c) == {integer}(y * {} + x));",
        g.width
    );
    let spread = "result += dy / divisor(oy, ox);".to_string();

    let (body, extra): (String, Vec<(&str, &dyn Display)>) = match kind {
        PoolKind::MaxGather => (format!("{OUTPUT}    {gather}"), vec![]),
        PoolKind::Average => (format!("{OUTPUT}{average}"), vec![]),
        PoolKind::MaxScatter => {
            (INPUT.to_string(), vec![("dy", &names[1]), ("add", &scatter), ("output", &out)])
        }
        PoolKind::AverageTransposed => {
            (INPUT.to_string(), vec![("dy", &names[0]), ("add", &spread), ("output", &out)])
        }
    };
    let body = fill_geometry(&body, g, channels, value, &extra);
    let functions =
        fill_geometry(FUNCTIONS, g, channels, value, &[("I", &integer), ("x", &first), ("suffix", &suffix)]);
    let pixels = match kind {
        PoolKind::MaxGather | PoolKind::Average => g.out_height * g.out_width,
        PoolKind::MaxScatter | PoolKind::AverageTransposed => g.height * g.width,
    };
    let count = g.batch * pixels * channels;
    if count == 0 {
        return Ok(Assembled::default());
    }
    let (declarations, bound) = bindings.finish();
    let launch = finish_launch(context, label, count, &declarations, &functions, &body, bound);
    Ok(Assembled { launches: vec![launch], ..Default::default() })
}

/// One statement, or one for each of `.x`, `.y`, `.z`, `.w`.
fn lanes(vectors: bool, f: impl Fn(&str) -> String) -> String {
    if vectors { [".x", ".y", ".z", ".w"].map(f).concat() } else { f("") }
}

fn fill_geometry(
    text: &str,
    g: &PoolGeometry,
    channels: usize,
    value: &str,
    extra: &[(&str, &dyn Display)],
) -> String {
    let window = &g.window;
    let area = window.size[0] * window.size[1];
    let (in_pixels, out_pixels) = (g.height * g.width, g.out_height * g.out_width);
    let slots: [(&str, &dyn Display); 16] = [
        ("T", &value),
        ("channels", &channels),
        ("height", &g.height),
        ("width", &g.width),
        ("in_pixels", &in_pixels),
        ("out_height", &g.out_height),
        ("out_width", &g.out_width),
        ("out_pixels", &out_pixels),
        ("kh", &window.size[0]),
        ("kw", &window.size[1]),
        ("stride_y", &window.stride[0]),
        ("stride_x", &window.stride[1]),
        ("padding_y", &window.padding[0]),
        ("padding_x", &window.padding[1]),
        ("count_padding", &window.count_padding),
        ("area", &area),
    ];
    let mut all: Vec<_> =
        slots.into_iter().filter(|(name, _)| text.contains(&format!("{{{{{name}}}}}"))).collect();
    all.extend(extra.iter().copied());
    fill(text, &all)
}
