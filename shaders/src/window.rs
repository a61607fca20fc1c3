//! Which buffers a kernel over images reads through uniform bindings.
//!
//! Software drivers gather from uniform buffers ten times faster than from storage, but WebGPU promises
//! only 64 KiB a binding. So a kernel that goes over images is launched several times, each time with
//! uniform bindings to the few images it works on: the same module, other offsets.

use std::collections::BTreeMap;

use schedule::ir::{BufferId, Instr, Program, Reg, Store, View};

use crate::bindings::{Bindings, Window};
use crate::emit::live;
use crate::{Bound, Context, Element};

/// Where uniform bindings may begin, in elements.
pub const ALIGNMENT: usize = 64;
/// Elements from which on a map is worth several launches.
pub const WORTH: usize = 1 << 16;

/// Windows side by side in one launch; each repeats the kernel's text.
const MOST_SECTIONS: usize = 4;
/// Threads of a fold's launch: a subgroup for each of two processors.
const FOLD_THREADS: usize = 16;

/// A program over the index of an image tensor, as of an operand or an epilogue.
pub struct Reader<'a> {
    pub shape: &'a [usize],
    pub program: &'a Program,
    pub roots: Vec<Reg>,
}

/// The buffers that go through uniform bindings.
pub struct Windows {
    /// Images of a launch: of a window, or of several side by side.
    pub images: usize,
    /// Windows side by side.
    pub sections: usize,
    buffers: BTreeMap<BufferId, Window>,
}

impl Windows {
    /// The windows of a kernel over `images` images that leaves `reserved` uniform bindings to others.
    pub fn new(
        context: Context,
        images: usize,
        stores: &[Store],
        readers: &[Reader],
        reserved: usize,
    ) -> Windows {
        let most = context.target.limits.uniform_bytes as usize / 4;
        let wanted = readers.iter().flat_map(|reader| {
            loads(reader.program, &reader.roots).map(move |(buffer, view)| {
                let stride = if !may_move(context, stores, buffer) {
                    None
                } else if context.buffers[buffer].len() <= most {
                    Some(0)
                } else {
                    image_stride(view, reader.shape, images).filter(|stride| *stride <= most)
                };
                (buffer, stride)
            })
        });
        let room = (context.target.limits.uniform_buffers as usize).saturating_sub(reserved);
        let chosen = agreed(wanted, room);
        let largest = chosen.values().copied().max().unwrap_or(0);
        let count = most.checked_div(largest).unwrap_or(images).min(images);
        let window = |stride| if stride == 0 { Window::Whole } else { Window::Images { count, stride } };
        Windows {
            images: count,
            sections: 1,
            buffers: chosen.into_iter().map(|(buffer, stride)| (buffer, window(stride))).collect(),
        }
    }

    /// The windows of a map over this space, or `None` if there is no need for any. All that it loads element
    /// by element moves with the launch.
    pub fn of_map(context: Context, shape: &[usize], stores: &[Store], program: &Program) -> Option<Windows> {
        let most = context.target.limits.uniform_bytes as usize / 4;
        let len: usize = shape.iter().product();
        if !context.target.software || len < WORTH || !len.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let roots: Vec<Reg> = stores.iter().map(|s| s.value).collect();
        let dense = View::dense(shape);
        let window = Window::Images { count: most / ALIGNMENT, stride: ALIGNMENT };
        let wanted = loads(program, &roots).map(|(buffer, view)| {
            let window = if !may_move(context, stores, buffer) {
                None
            } else if context.buffers[buffer].len() <= most {
                Some(Window::Whole)
            } else {
                (*view == dense).then_some(window)
            };
            (buffer, window)
        });
        let room = (context.target.limits.uniform_buffers as usize).saturating_sub(1);
        let buffers = agreed(wanted, room);
        let units = len / ALIGNMENT;
        let sections = sections(room, &buffers, units.div_euclid(most / ALIGNMENT));
        let images = if sections == 0 { units } else { sections * most / ALIGNMENT };
        (!buffers.is_empty()).then_some(Windows { images, sections: sections.max(1), buffers })
    }

    /// Whether all that a reader loads goes through uniform bindings.
    pub fn hold(&self, reader: &Reader) -> bool {
        loads(reader.program, &reader.roots).all(|(buffer, _)| self.buffers.contains_key(&buffer))
    }

    /// To be called before anything is written.
    pub fn declare(&self, bindings: &mut Bindings) {
        for (buffer, window) in &self.buffers {
            bindings.window(*buffer, *window);
        }
    }

    /// For each launch its first image, how many it has, and the first of its windows, which may begin
    /// before it so as not to reach past the end.
    pub fn launches(&self, images: usize) -> impl Iterator<Item = [usize; 3]> {
        let most = self.images.max(1);
        (0..images)
            .step_by(most)
            .map(move |first| [first, most.min(images - first), first.min(images - most)])
    }
}

/// The windows of a fold over the rows of `[parts, rows, channels]` in memory.
pub struct FoldWindows {
    pub windows: Windows,
    pub channels: usize,
    /// Rows that a thread folds.
    pub chunk_len: usize,
    parts: usize,
    rows: usize,
}

impl FoldWindows {
    /// `program` is over `[parts, channels, rows]`, or, with `outer` 1, over `[channels, rows]`.
    pub fn new(
        context: Context,
        [parts, channels, rows]: [usize; 3],
        outer: usize,
        program: &Program,
        roots: &[Reg],
    ) -> Option<FoldWindows> {
        let most = context.target.limits.uniform_bytes as usize / 4;
        let chunks = (FOLD_THREADS * 4 / channels).max(1);
        let chunk_len = most / channels / chunks;
        let window_rows = chunk_len * chunks;
        let is_aligned = |rows: usize| (rows * channels).is_multiple_of(ALIGNMENT);
        if !context.target.software
            || parts * channels * rows < WORTH
            || chunk_len == 0
            || window_rows > rows
            || chunk_len == rows
            || !is_aligned(window_rows)
            || !is_aligned(rows)
        {
            return None;
        }
        let mut buffers = BTreeMap::new();
        let is_row = |view: &View| {
            let strides = [(channels * rows) as i64, 1, channels as i64];
            view.offset == 0 && view.bounds.is_empty() && view.strides[..] == strides[2 - outer..]
        };
        for (buffer, _) in loads(program, roots) {
            let mut views = loads(program, roots).filter(|(other, _)| *other == buffer);
            if !is_f32(context, buffer) {
                continue;
            }
            if context.buffers[buffer].len() <= most {
                buffers.insert(buffer, Window::Whole);
            } else if views.all(|(_, view)| is_row(view)) {
                // A unit of the window's beginning is as many rows as alignment asks for.
                let window = Window::Images { count: window_rows * channels / ALIGNMENT, stride: ALIGNMENT };
                buffers.insert(buffer, window);
            }
        }
        let fits = buffers.len() < context.target.limits.uniform_buffers as usize;
        let room = (context.target.limits.uniform_buffers as usize).saturating_sub(1);
        let mut sections = sections(room, &buffers, rows / window_rows);
        // Where windows are shifted at the end, chunks would lie across two.
        while sections > 1 && rows % (window_rows * sections) != 0 {
            sections -= 1;
        }
        let windows = Windows { images: window_rows * sections, sections, buffers };
        (sections > 0 && fits).then_some(FoldWindows { windows, channels, chunk_len, parts, rows })
    }

    /// For each launch its part, its first row, its rows, and where the windows begin.
    pub fn launches(&self) -> impl Iterator<Item = [usize; 4]> {
        (0..self.parts).flat_map(move |part| {
            self.windows.launches(self.rows).map(move |[first, rows, window]| {
                [part, first, rows, (part * self.rows + window) * self.channels / ALIGNMENT]
            })
        })
    }
}

/// How many windows side by side a launch can have, none if nothing moves: every launch has a cost of its
/// own.
fn sections(room: usize, buffers: &BTreeMap<BufferId, Window>, most: usize) -> usize {
    let moving = buffers.values().filter(|window| **window != Window::Whole).count();
    if moving == 0 {
        return 0;
    }
    ((room - (buffers.len() - moving)) / moving).min(MOST_SECTIONS).min(most).max(1)
}

/// The loads that `roots` depend on.
fn loads<'a>(program: &'a Program, roots: &[Reg]) -> impl Iterator<Item = (BufferId, &'a View)> {
    let alive = live(program, roots);
    program.instrs.iter().zip(alive).filter_map(|(instr, alive)| match instr {
        Instr::Load { buffer, view } if alive => Some((*buffer, view)),
        _ => None,
    })
}

/// Those buffers whose loads all want the same, at most `room`: the first ones.
fn agreed<W: Copy + PartialEq>(
    wanted: impl Iterator<Item = (BufferId, Option<W>)>,
    room: usize,
) -> BTreeMap<BufferId, W> {
    let mut found: Vec<(BufferId, Option<W>)> = Vec::new();
    for (buffer, window) in wanted {
        match found.iter_mut().find(|(known, _)| *known == buffer) {
            Some((_, known)) => *known = known.filter(|known| Some(*known) == window),
            None => found.push((buffer, window)),
        }
    }
    found.into_iter().filter_map(|(buffer, window)| Some((buffer, window?))).take(room).collect()
}

/// Whether a kernel with these stores may read a buffer through a uniform binding.
fn may_move(context: Context, stores: &[Store], buffer: BufferId) -> bool {
    is_f32(context, buffer) && !stores.iter().any(|s| shares_memory(context, s.buffer, buffer))
}

fn is_f32(context: Context, buffer: BufferId) -> bool {
    context.places[buffer].element == Element::F32
}

fn shares_memory(context: Context, a: BufferId, b: BufferId) -> bool {
    context.places[a].memory == context.places[b].memory
}

/// The bindings of a launch whose windows begin at this image.
pub fn moved(bindings: &[(Bound, usize)], image: usize) -> Vec<Bound> {
    bindings.iter().map(|(bound, stride)| Bound { offset: bound.offset + stride * image, ..*bound }).collect()
}

/// Elements from one image to the next, where everything loaded for an image lies between its first
/// element and the next image's.
fn image_stride(view: &View, shape: &[usize], images: usize) -> Option<usize> {
    let mut leading = 0;
    let mut count = 1;
    while count < images {
        count *= shape.get(leading)?;
        leading += 1;
    }
    if count != images || leading == 0 || !view.bounds.is_empty() || view.offset < 0 {
        return None;
    }
    let stride = |d: usize| view.strides.get(d).copied().unwrap_or(0);
    let dense = (1..leading).all(|d| shape[d - 1] == 1 || stride(d - 1) == stride(d) * shape[d] as i64);
    let each = usize::try_from(stride(leading - 1)).ok()?;
    let inner = (leading..shape.len()).map(|d| (stride(d), shape[d].max(1) as i64 - 1));
    let mut last = view.offset;
    for (stride, steps) in inner {
        if stride < 0 {
            return None;
        }
        last += stride * steps;
    }
    (dense && each > 0 && each % ALIGNMENT == 0 && last < each as i64).then_some(each)
}
