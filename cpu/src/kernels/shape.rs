//! The geometry of a convolution.

/// A two-dimensional convolution of `[n, h, w, cin]` images with `[cout, cin / groups, kh, kw]`
/// weights. Pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Input channels, all groups together.
    pub cin: usize,
    /// Output channels, all groups together.
    pub cout: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Step between output pixels, in input pixels.
    pub stride: [usize; 2],
    /// Zero pixels added on each side.
    pub pad: [usize; 2],
    /// Step between kernel taps, in input pixels.
    pub dilation: [usize; 2],
    /// Independent groups of channels; both channel counts are multiples of it.
    pub groups: usize,
}

impl ConvShape {
    /// A square kernel with padding `k / 2`, no dilation and one group: what residual networks are
    /// made of.
    pub fn same(n: usize, size: usize, cin: usize, cout: usize, k: usize, stride: usize) -> ConvShape {
        ConvShape {
            n,
            h: size,
            w: size,
            cin,
            cout,
            kh: k,
            kw: k,
            stride: [stride; 2],
            pad: [k / 2; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// Output height.
    pub fn oh(&self) -> usize {
        extent(self.h, self.kh, self.stride[0], self.pad[0], self.dilation[0])
    }

    /// Output width.
    pub fn ow(&self) -> usize {
        extent(self.w, self.kw, self.stride[1], self.pad[1], self.dilation[1])
    }

    /// Input channels of one group.
    pub fn cin_per_group(&self) -> usize {
        self.cin / self.groups
    }

    /// Output channels of one group.
    pub fn cout_per_group(&self) -> usize {
        self.cout / self.groups
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.cin
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.n * self.oh() * self.ow() * self.cout
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.cout * self.cin_per_group() * self.kh * self.kw
    }

    /// Floating-point operations of a direct convolution that counts padded taps, two for each
    /// multiply-add. The same for all three passes.
    pub fn flops(&self) -> f64 {
        2.0 * self.output_len() as f64 * (self.cin_per_group() * self.kh * self.kw) as f64
    }

    /// Whether this describes a convolution: nothing zero but the padding, channels divisible by
    /// the groups, and a kernel that fits into the padded image.
    pub fn is_valid(&self) -> bool {
        let positive = [self.n, self.h, self.w, self.cin, self.cout, self.kh, self.kw, self.groups]
            .iter()
            .chain(&self.stride)
            .chain(&self.dilation)
            .all(|&v| v > 0);
        positive
            && self.cin.is_multiple_of(self.groups)
            && self.cout.is_multiple_of(self.groups)
            && self.dilation[0] * (self.kh - 1) < self.h + 2 * self.pad[0]
            && self.dilation[1] * (self.kw - 1) < self.w + 2 * self.pad[1]
    }
}

fn extent(size: usize, k: usize, stride: usize, pad: usize, dilation: usize) -> usize {
    (size + 2 * pad).saturating_sub(dilation * (k - 1) + 1) / stride + 1
}
