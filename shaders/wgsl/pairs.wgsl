// Numbers as the sums of two 16-bit floats: rounded, and what that takes off, some power of two as large
// (Ootomo and Yokota, Recovering single precision accuracy from Tensor Cores, 2022).

fn pair_of(value: vec4<f32>) -> mat2x4<f16> {
    // Within the finite numbers: what is above them is infinite in the small part. And Mesa would take a number that was
    // rounded and is nothing else for the number itself, and all small parts for zero.
    let large = clamp(vec4<f16>(value), vec4<f16>(-65504.0h), vec4<f16>(65504.0h));
    return mat2x4<f16>(large, vec4<f16>((value - vec4<f32>(large)) * {{scale}}));
}

fn pair_sum(large: vec4<f16>, small: vec4<f16>) -> vec4<f32> {
    return vec4<f32>(large) + vec4<f32>(small) * {{inverse}};
}

fn pair_if(condition: bool, pair: mat2x4<f16>) -> mat2x4<f16> {
    return mat2x4<f16>(select(vec4<f16>(), pair[0], condition), select(vec4<f16>(), pair[1], condition));
}
