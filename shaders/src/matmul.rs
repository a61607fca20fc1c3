//! Batched matrix products.

use autograd::{Error, Result};
use schedule::Body;

use crate::assembled::Assembled;
use crate::choice::Tiling;
use crate::gemm::Gemm;
use crate::gemm_kernel;
use crate::launch::Context;
use crate::operand::{LEFT, PRODUCT, RIGHT};
use crate::template::fill;
use crate::thread::{self, Functions};

const DIRECT: &str = include_str!("../wgsl/matmul_direct.wgsl");

pub fn assemble(context: Context, label: &str, body: &Body) -> Result<Assembled> {
    let Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } = body else {
        return Err(Error::Device(format!("kernel `{label}` is no matrix product")));
    };
    let functions = Functions {
        lhs: Some((lhs, LEFT)),
        rhs: Some((rhs, RIGHT)),
        finish: Some((epilogue, PRODUCT)),
        scratch: None,
    };
    let count = batch * m * n;
    if count == 0 {
        return Ok(Assembled::default());
    }
    let tiled = Gemm::matrix([*batch, *m, *n, *k], lhs, rhs, epilogue);
    if let Some(tiled) = gemm_kernel::assemble(context, label, &[tiled]) {
        return Ok(tiled);
    }
    let body = fill(DIRECT, &[("n", n), ("m", m), ("mn", &(m * n)), ("k", k)]);
    let launch = thread::launch(context, label, count, functions, |_| body.clone());
    Ok(Assembled { launches: vec![launch], ..Default::default() })
}

/// See [`gemm_kernel::candidates`].
pub fn candidates(context: Context, body: &Body) -> Vec<Tiling> {
    match body {
        Body::MatMul { batch, m, n, k, lhs, rhs, epilogue } if batch * m * n > 0 => {
            gemm_kernel::candidates(context, &[Gemm::matrix([*batch, *m, *n, *k], lhs, rhs, epilogue)])
        }
        _ => Vec::new(),
    }
}
