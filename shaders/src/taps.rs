//! Where an implicit product meets the elements of a window, along one axis.

use schedule::ConvGeometry;

use crate::emit::signed;

/// One axis of the taps. Tap `t` of a phase is element `first + t * step` of the window, and reads the left operand at
/// `row * stride + offset + t * move_by`, if that is within `0..size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapAxis {
    /// One, or the phases of a strided convolution's input gradient that have as many rows: each is a dense product, with
    /// its own part of the window.
    pub phases: Vec<Phase>,
    pub step: usize,
    pub stride: i64,
    pub move_by: i64,
    /// Size of the left operand along this axis.
    pub size: usize,
    /// Grid rows along this axis.
    pub grid: usize,
    /// Grid row `i` of a phase is row `i * out_stride + out_offset` of `out_size` of the result.
    pub out_stride: usize,
    pub out_size: usize,
}

/// What differs from phase to phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Taps.
    pub count: usize,
    pub first: usize,
    pub offset: i64,
    pub out_offset: usize,
}

impl TapAxis {
    /// A grid that is the result, one tap, no movement.
    pub fn identity(size: usize) -> TapAxis {
        let phases = vec![Phase { count: 1, first: 0, offset: 0, out_offset: 0 }];
        TapAxis { phases, step: 1, stride: 1, move_by: 1, size, grid: size, out_stride: 1, out_size: size }
    }

    /// Axis `d` of a convolution's forward pass.
    pub fn forward(g: &ConvGeometry, d: usize) -> TapAxis {
        let offset = -(g.conv.padding[d] as i64);
        let grid = [g.out_height, g.out_width][d];
        TapAxis {
            phases: vec![Phase { count: g.kernel[d], first: 0, offset, out_offset: 0 }],
            stride: g.conv.stride[d] as i64,
            move_by: g.conv.dilation[d] as i64,
            size: [g.height, g.width][d],
            ..TapAxis::identity(grid)
        }
    }

    /// Axis `d` of a convolution's input gradient: one for each number of rows.
    pub fn input_grad(g: &ConvGeometry, d: usize) -> Vec<TapAxis> {
        let (stride, dilation) = (g.conv.stride[d], g.conv.dilation[d]);
        let (result, size) = ([g.height, g.width][d], [g.out_height, g.out_width][d]);
        let step = (1..=stride).find(|step| (step * dilation).is_multiple_of(stride)).unwrap_or(1);
        let mut axes: Vec<TapAxis> = Vec::new();
        for out_offset in 0..stride.min(result) {
            let at = |r: usize| (out_offset + g.conv.padding[d]) as i64 - (r * dilation) as i64;
            let hits: Vec<usize> = (0..g.kernel[d]).filter(|&r| at(r) % stride as i64 == 0).collect();
            let first = hits.first().copied().unwrap_or(0);
            let offset = if hits.is_empty() { 0 } else { at(first) / stride as i64 };
            let phase = Phase { count: hits.len(), first, offset, out_offset };
            let grid = (result - out_offset).div_ceil(stride);
            match axes.iter_mut().find(|axis| axis.grid == grid) {
                Some(axis) => axis.phases.push(phase),
                None => axes.push(TapAxis {
                    phases: vec![phase],
                    step,
                    move_by: -((step * dilation / stride) as i64),
                    size,
                    out_stride: stride,
                    out_size: result,
                    ..TapAxis::identity(grid)
                }),
            }
        }
        axes
    }

    /// Most taps of a phase.
    pub fn most_taps(&self) -> usize {
        self.phases.iter().map(|phase| phase.count).max().unwrap_or(0)
    }

    /// Whether every tap reads within the left operand.
    pub fn stays_inside(&self) -> bool {
        let within = |at: i64| (0..self.size as i64).contains(&at);
        self.phases.iter().all(|phase| {
            let across = (self.grid as i64 - 1) * self.stride;
            let moved = (phase.count as i64 - 1) * self.move_by;
            [0, across, moved, across + moved].iter().all(|by| within(phase.offset + by))
        })
    }

    /// The WGSL of what `f` tells of the phase whose number is the variable `phase`.
    pub fn of_phase(&self, phase: &str, f: impl Fn(&Phase) -> i64) -> String {
        let mut values = self.phases.iter().map(|phase| signed(f(phase)));
        let first = values.next().unwrap_or_default();
        if values.clone().all(|value| value == first) {
            return first;
        }
        let numbered = values.enumerate();
        numbered.fold(first, |text, (i, value)| format!("select({text}, {value}, {phase} == {})", i + 1))
    }
}
