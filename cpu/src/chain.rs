//! Chains: kernels that treat every image apart, run one after the other on a few images at a time.
//!
//! In a network that is not being trained (a teacher, an evaluation) no kernel looks at more than one
//! image. Run over a whole batch, each writes megabytes that the next reads back from far away. Here a
//! thread takes a few images through all the kernels; what these hand on lies in memory of the thread's
//! own that fits the second-level cache, and threads meet only at the end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use web_time::Instant;

use schedule::{
    Body, BufferId, ConvKind, Instr, Kernel, Map, PoolKind, Program, Role, Schedule, Store, View, reach,
};

use crate::block;
use crate::dispatch;
use crate::kernels::ThreadPool;
use crate::launch::{Compile, Launch, Runtime};
use crate::memory::{Floats, Memory, SharedSlice, lines};

/// Fewer kernels than this are not worth it.
const SHORTEST: usize = 3;
/// Images of a block. With fewer every kernel's weights are read too often, and more are no faster.
const BLOCKS: Range<usize> = 6..11;
/// Bytes of the largest tensor of a block, at most. Beyond, the arithmetic takes so long that it does not
/// matter where a tensor comes from.
const LARGEST: usize = 1 << 20;

/// How the kernels of a chain use a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// All images use the same elements: weights.
    Whole,
    /// Each image has a part of its own, one after the other.
    Parts,
}

/// The use of buffers by a kernel or by several.
type Uses = BTreeMap<BufferId, Use>;

/// A chain that was found in a schedule.
#[derive(Debug)]
pub struct Found {
    /// Its kernels in the schedule.
    pub kernels: Range<usize>,
    images: usize,
    /// Images of a block.
    block: usize,
    uses: Uses,
    /// What no kernel outside needs: it lies in the threads' own memory.
    pub own: BTreeSet<BufferId>,
}

/// The chains of a schedule, in order, for so many threads. `frozen` says which buffers keep their
/// contents from call to call.
pub fn find(schedule: &Schedule, frozen: &[bool], threads: usize) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < schedule.kernels.len() {
        match longest(schedule, frozen, at, threads) {
            Some(chain) => {
                at = chain.kernels.end;
                found.push(chain);
            }
            None => at += 1,
        }
    }
    found
}

/// The longest chain that begins with kernel `first`.
fn longest(schedule: &Schedule, frozen: &[bool], first: usize, threads: usize) -> Option<Found> {
    let Body::Convolution { kind: ConvKind::Forward, geometry, .. } = &schedule.kernels[first].body else {
        return None;
    };
    let images = geometry.batch;
    let mut uses = Uses::new();
    let mut end = first;
    for kernel in &schedule.kernels[first..] {
        let joined =
            uses_of(schedule, kernel, images, frozen).and_then(|of_kernel| merged(&uses, &of_kernel));
        let Some(joined) = joined else { break };
        uses = joined;
        end += 1;
    }
    // Shorter and shorter, until blocks cannot meet in shared memory.
    while end >= first + SHORTEST {
        let kernels = first..end;
        let of_kernels =
            kernels.clone().filter_map(|k| uses_of(schedule, &schedule.kernels[k], images, frozen));
        let uses: Uses = of_kernels.flatten().collect();
        let own = own_buffers(schedule, &kernels);
        if are_apart(schedule, &uses, &own) {
            let largest = own.iter().map(|&b| 4 * schedule.buffers[b].len() / images).max()?;
            let fits = |&block: &usize| {
                let blocks = images / block;
                // At most an eighth of the threads' time is lost at the end.
                let is_balanced = 8 * blocks.next_multiple_of(threads) <= 9 * blocks;
                images.is_multiple_of(block) && block * largest <= LARGEST && is_balanced
            };
            let block = BLOCKS.rev().find(fits)?;
            return Some(Found { kernels, images, block, uses, own });
        }
        end -= 1;
    }
    None
}

/// Both uses, unless they contradict each other.
fn merged(a: &Uses, b: &Uses) -> Option<Uses> {
    let agree = b.iter().all(|(buffer, of_b)| a.get(buffer).is_none_or(|of_a| of_a == of_b));
    agree.then(|| a.iter().chain(b).map(|(&buffer, &of)| (buffer, of)).collect())
}

/// Temporaries that nothing but these kernels reads or writes.
fn own_buffers(schedule: &Schedule, kernels: &Range<usize>) -> BTreeSet<BufferId> {
    let (inside, outside): (Vec<_>, Vec<_>) =
        schedule.kernels.iter().enumerate().partition(|(number, _)| kernels.contains(number));
    let mut own: BTreeSet<BufferId> = inside.iter().flat_map(|(_, kernel)| kernel.writes()).collect();
    own.retain(|&b| matches!(schedule.buffers[b].role, Role::Temporary { .. }));
    for (_, kernel) in outside {
        kernel.buffers().iter().for_each(|b| {
            own.remove(b);
        });
    }
    schedule.outputs.iter().map(|(_, buffer)| buffer).chain(&schedule.updated).for_each(|b| {
        own.remove(b);
    });
    own
}

/// Whether different blocks may be at different kernels at the same time: no two buffers share memory,
/// apart from the chain's own.
fn are_apart(schedule: &Schedule, uses: &Uses, own: &BTreeSet<BufferId>) -> bool {
    let mut slots = HashSet::new();
    uses.keys().filter(|buffer| !own.contains(buffer)).all(|&buffer| match schedule.buffers[buffer].role {
        Role::Temporary { slot } => slots.insert(slot),
        _ => true,
    })
}

/// How a kernel uses its buffers, if it treats each of `images` images apart.
fn uses_of(schedule: &Schedule, kernel: &Kernel, images: usize, frozen: &[bool]) -> Option<Uses> {
    let mut uses = Uses::new();
    let len = |buffer: BufferId| schedule.buffers[buffer].len();
    let mut add = |buffer: BufferId, of: Use| *uses.entry(buffer).or_insert(of) == of;
    let apart = match &kernel.body {
        Body::Convolution { kind: ConvKind::Forward, geometry, lhs, rhs, epilogue } => {
            let of_images = |shape: &[usize]| shape.first() == Some(&images);
            geometry.batch == images
                && of_images(&lhs.shape)
                && of_images(&epilogue.shape)
                && rhs.program.buffers().all(|b| frozen[b] && add(b, Use::Whole))
                && program_uses(&lhs.program, &lhs.shape, images, len, &mut add)
                && program_uses(&epilogue.program, &epilogue.shape, images, len, &mut add)
                && stores_use(&epilogue.stores, &epilogue.shape, images, len, &mut add)
                && epilogue.fold.as_ref().is_none_or(|fold| {
                    let space = fold.space(&epilogue.shape);
                    fold.kept > 0
                        && program_uses(&fold.finish, &space, images, len, &mut add)
                        && stores_use(&fold.stores, &space, images, len, &mut add)
                })
        }
        Body::Map { parts } => parts.iter().all(|Map { shape, program, stores }| {
            shape.first() == Some(&images)
                && program_uses(program, shape, images, len, &mut add)
                && stores_use(stores, shape, images, len, &mut add)
        }),
        Body::Pool { kind: PoolKind::MaxGather | PoolKind::Average, geometry, inputs, output } => {
            geometry.batch == images
                && inputs.iter().chain([output]).all(|&b| len(b) % images == 0 && add(b, Use::Parts))
        }
        _ => false,
    };
    let writes_own = kernel
        .writes()
        .iter()
        .all(|&buffer| matches!(schedule.buffers[buffer].role, Role::Temporary { .. } | Role::Output));
    (images > 1 && apart && writes_own).then_some(uses)
}

/// Whether each image stores parts of its own.
fn stores_use(
    stores: &[Store],
    shape: &[usize],
    images: usize,
    len: impl Fn(BufferId) -> usize,
    add: &mut impl FnMut(BufferId, Use) -> bool,
) -> bool {
    stores.iter().all(|store| {
        let of = view_use(&store.view, shape, images, len(store.buffer));
        of == Some(Use::Parts) && add(store.buffer, Use::Parts)
    })
}

fn program_uses(
    program: &Program,
    shape: &[usize],
    images: usize,
    len: impl Fn(BufferId) -> usize,
    add: &mut impl FnMut(BufferId, Use) -> bool,
) -> bool {
    program.instrs.iter().all(|instr| match instr {
        Instr::Load { buffer, view } => {
            view_use(view, shape, images, len(*buffer)).is_some_and(|of| add(*buffer, of))
        }
        instr => instr.view().is_none_or(|view| !view.varies_along(0)),
    })
}

/// What a view over `shape`, whose first dim counts images, reaches of a buffer of `len` elements.
fn view_use(view: &View, shape: &[usize], images: usize, len: usize) -> Option<Use> {
    if !view.varies_along(0) {
        return Some(Use::Whole);
    }
    let part = (len / images) as i64;
    let (low, high) = reach(view.offset, &view.strides[1..], &shape[1..]);
    let is_within = low >= 0 && high < part && view.bounds.iter().all(|bound| bound.strides[0] == 0);
    (len.is_multiple_of(images) && view.strides[0] == part && is_within).then_some(Use::Parts)
}

/// The kernel for so many images.
fn resized(kernel: &Kernel, images: usize) -> Kernel {
    let mut kernel = kernel.clone();
    match &mut kernel.body {
        Body::Convolution { geometry, lhs, epilogue, .. } => {
            geometry.batch = images;
            lhs.shape[0] = images;
            epilogue.shape[0] = images;
        }
        Body::Map { parts } => parts.iter_mut().for_each(|part| part.shape[0] = images),
        Body::Pool { geometry, .. } => geometry.batch = images,
        _ => {}
    }
    kernel
}

/// A chain, compiled.
pub struct Chain {
    kernels: Vec<Box<dyn Launch>>,
    blocks: usize,
    /// Where the buffers that it uses lie.
    homes: Vec<(BufferId, Home)>,
    /// Each thread's own memory.
    threads: Vec<Mutex<Own>>,
    /// What the kernels believe to run on: one thread.
    alone: ThreadPool,
}

#[derive(Clone, Copy)]
enum Home {
    /// In the schedule's memory, all of it.
    Whole,
    /// In the schedule's memory, so many elements a block.
    Parts(usize),
    /// In the thread's memory, at this element.
    Own(usize),
}

struct Own {
    floats: Floats,
    area: Floats,
    memory: Memory,
    /// Seconds of each kernel since the chain was last asked for them.
    seconds: Vec<f64>,
}

impl Chain {
    /// Compiles a chain; `compile` is what the schedule's other kernels are compiled from.
    pub fn new(schedule: &Schedule, found: &Found, compile: &Compile) -> Chain {
        let list = &schedule.kernels[found.kernels.clone()];
        let in_block = |buffer: BufferId| schedule.buffers[buffer].len() / found.images * found.block;
        let inner = Compile { threads: 1, regions: compile.regions.clone(), frozen: compile.frozen.clone() };
        let compiled = list.iter().map(|k| dispatch::compile(&inner, &resized(k, found.block)));
        let kernels: Vec<Box<dyn Launch>> = compiled.collect();

        // Own buffers that share memory in the schedule do so here: the kernels run in the same order.
        let mut slots: BTreeMap<usize, usize> = BTreeMap::new();
        for &buffer in &found.own {
            let len = slots.entry(compile.regions[buffer]).or_default();
            *len = lines(in_block(buffer)).max(*len);
        }
        let start = |region: usize| slots.range(..region).map(|(_, len)| len).sum::<usize>();
        let home = |(&buffer, of): (&BufferId, &Use)| match of {
            _ if found.own.contains(&buffer) => (buffer, Home::Own(start(compile.regions[buffer]))),
            Use::Whole => (buffer, Home::Whole),
            Use::Parts => (buffer, Home::Parts(in_block(buffer))),
        };
        let homes: Vec<(BufferId, Home)> = found.uses.iter().map(home).collect();
        let count = schedule.buffers.len();
        let mut lens = vec![0; count];
        for (&buffer, of) in &found.uses {
            lens[buffer] = if *of == Use::Parts { in_block(buffer) } else { schedule.buffers[buffer].len() };
        }
        let area = kernels.iter().map(|kernel| kernel.area_len()).max().unwrap_or(0);
        let own = |_| {
            let memory = Memory { bases: vec![std::ptr::null_mut(); count], lens: lens.clone() };
            let (floats, area) = (Floats::zeros(slots.values().sum()), Floats::zeros(area));
            Mutex::new(Own { floats, area, memory, seconds: vec![0.0; kernels.len()] })
        };
        let threads = (0..compile.threads).map(own).collect();
        Chain { blocks: found.images / found.block, threads, homes, kernels, alone: ThreadPool::new(1) }
    }
}

impl Launch for Chain {
    /// For [`Chain::prepare`].
    fn area_len(&self) -> usize {
        self.kernels.iter().map(|kernel| kernel.area_len()).max().unwrap_or(0)
    }

    fn bytes(&self) -> u64 {
        let own = |own: &Mutex<Own>| {
            let own = own.lock().unwrap_or_else(PoisonError::into_inner);
            own.floats.bytes() + own.area.bytes()
        };
        self.threads.iter().map(own).sum::<u64>()
            + self.kernels.iter().map(|kernel| kernel.bytes()).sum::<u64>()
    }

    /// Packs weights.
    unsafe fn prepare(&mut self, runtime: &Runtime) {
        // SAFETY: the caller's promise. Weights are whole, so they lie where the schedule has them.
        self.kernels.iter_mut().for_each(|kernel| unsafe { kernel.prepare(runtime) });
    }

    /// Runs all kernels for all images.
    unsafe fn run(&self, runtime: &Runtime) {
        runtime.pool.run(self.blocks, &|block, thread| {
            let own = &mut *self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
            for &(buffer, home) in &self.homes {
                own.memory.bases[buffer] = match home {
                    Home::Whole => runtime.memory.base(buffer),
                    Home::Parts(len) => runtime.memory.base(buffer).wrapping_add(block * len),
                    Home::Own(start) => own.floats.as_mut_ptr().wrapping_add(start),
                };
            }
            for (kernel, seconds) in self.kernels.iter().zip(&mut own.seconds) {
                let start = Instant::now();
                let inner = Runtime {
                    isa: runtime.isa,
                    launch: block::launch(),
                    pool: &self.alone,
                    memory: &own.memory,
                    area: SharedSlice::new(own.area.as_mut_slice()),
                };
                // SAFETY: the caller's promise; blocks write parts of their own, and temporaries are the
                // thread's.
                unsafe { kernel.run(&inner) };
                *seconds += start.elapsed().as_secs_f64();
            }
        });
    }

    /// The kernels' shares of the time that the chain takes.
    unsafe fn profile(&mut self, runtime: &Runtime) -> Vec<f64> {
        let mut each = vec![0.0; self.kernels.len()];
        self.take_seconds(|_, _| {});
        let start = Instant::now();
        // SAFETY: the caller's promise.
        unsafe { self.run(runtime) };
        let took = start.elapsed().as_secs_f64();
        self.take_seconds(|number, seconds| each[number] += seconds);
        let all = each.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        each.iter().map(|seconds| seconds / all * took).collect()
    }
}

impl Chain {
    /// Hands over the seconds of each thread's kernels, and sets them back.
    fn take_seconds(&mut self, mut f: impl FnMut(usize, f64)) {
        for own in &mut self.threads {
            let own = own.get_mut().unwrap_or_else(PoisonError::into_inner);
            own.seconds
                .iter_mut()
                .enumerate()
                .for_each(|(number, seconds)| f(number, std::mem::take(seconds)));
        }
    }
}

#[cfg(test)]
mod tests {
    use autograd::{Conv2d, Tensor, Variable, Window, grad};
    use schedule::{Device, Step, Value};

    use super::*;
    use crate::CpuDevice;
    use crate::random_programs::Dice;

    const IMAGES: usize = 32;

    /// A frozen network with a residual, a strided and a 1x1 convolution and a pool; some of what it
    /// computes on the way is read outside; then a product over all images.
    fn network() -> ([Tensor; 3], Vec<f32>) {
        let mut dice = Dice::new(5);
        let mut weight = |name: &str, shape: &[usize]| {
            let values = dice.values(shape.iter().product()).iter().map(|v| 0.2 * v).collect();
            Variable::new(name, shape, values).expect("as many values as the shape has").tensor()
        };
        let images = Tensor::input("images", &[IMAGES, 12, 12, 3]);
        let same = Conv2d::new(1, 1);
        let first = (&images * 2.0 - 0.5).conv2d(&weight("w1", &[16, 3, 3, 3]), same).relu();
        let second = first.conv2d(&weight("w2", &[16, 16, 3, 3]), same).relu();
        let third =
            (second.conv2d(&weight("w3", &[16, 16, 3, 3]), same) + &first + weight("b3", &[16])).relu();
        let deeper = third.conv2d(&weight("w6", &[16, 16, 3, 3]), same).relu();
        let deepest = deeper.conv2d(&weight("w7", &[16, 16, 3, 3]), same).relu() + &third;
        let fourth = deepest.conv2d(&weight("w4", &[32, 16, 3, 3]), Conv2d::new(2, 1)).relu();
        let fifth = fourth.conv2d(&weight("w5", &[24, 32, 1, 1]), Conv2d::new(1, 0)).relu();
        let pooled = fifth.max_pool(Window::new(2, 2, 0));
        let logits = pooled.reshape(&[IMAGES, 9 * 24]).matmul(&weight("fc", &[216, 10]));
        // The mean looks at all images.
        let mean = fourth.mean(&[0]);
        ([logits, second, mean], dice.values(IMAGES * 12 * 12 * 3))
    }

    fn chains(step: &Step, threads: usize) -> Vec<Found> {
        let schedule = step.schedule_with(CpuDevice::new(1).options()).expect("a good step");
        find(&schedule, &schedule.frozen(), threads)
    }

    fn run(step: &Step, images: &[f32], threads: usize) -> Vec<Vec<f32>> {
        let mut run = CpuDevice::new(threads).compile_step(step).expect("a good step");
        // Twice: what the first call leaves in memory must not matter.
        for _ in 0..2 {
            run.call(&[("images", Value::F32(images))]).expect("a good call");
        }
        ["logits", "second", "mean"].map(|name| run.output(name).expect("an output")).into()
    }

    #[test]
    fn a_frozen_network_is_a_chain_with_the_same_bits() {
        let (outputs, images) = network();
        let step = Step::new().output("logits", &outputs[0]).output("second", &outputs[1]);
        let step = step.output("mean", &outputs[2]);
        let found = chains(&step, 2);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].kernels.len() >= 5 && found[0].block == 8, "{found:?}");
        // What is read outside stays in shared memory, the rest does not.
        assert!(found[0].own.len() >= 2 && found[0].own.len() < found[0].kernels.len(), "{found:?}");
        let one_by_one = {
            // Four blocks do not fit three threads.
            assert!(chains(&step, 3).is_empty());
            run(&step, &images, 3)
        };
        for threads in [1, 2, 4] {
            assert!(run(&step, &images, threads) == one_by_one, "{threads} threads");
        }
        let exact = autograd::evaluate(
            &outputs,
            &[("images".to_string(), images.iter().map(|&v| f64::from(v)).collect())].into(),
            &Default::default(),
            &Default::default(),
        );
        for (result, exact) in one_by_one.iter().zip(exact.expect("a good step")) {
            let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (&r, e) in result.iter().zip(exact) {
                assert!((f64::from(r) - e).abs() < 1e-5 * largest, "{r}, not {e}");
            }
        }
    }

    /// Weights that the step changes, statistics over all images, and too few images: no chains.
    #[test]
    fn what_looks_at_all_images_is_no_chain() {
        let images = Tensor::input("images", &[IMAGES, 8, 8, 16]);
        let weights = ["a", "b", "c"].map(|name| Variable::full(name, &[16, 16, 3, 3], 0.01));
        let layer = |x: Tensor, w: &Variable| x.conv2d(&w.tensor(), Conv2d::new(1, 1)).relu();
        let y = weights.iter().fold(images.clone(), layer);
        let frozen = Step::new().output("y", &y);
        assert_eq!(chains(&frozen, 1).len(), 1);
        let loss = (&y * &y).sum_all();
        let tensors = weights.each_ref().map(Variable::tensor);
        let gradients = grad(&loss, &tensors);
        let updates = weights.iter().zip(&gradients).map(|(w, g)| (w.clone(), w.tensor() - g * 0.1));
        assert!(chains(&Step::new().updates(updates), 1).is_empty());

        let scale = Tensor::full(&[16], 1.0);
        let normalised = |x: Tensor, w: &Variable| {
            x.conv2d(&w.tensor(), Conv2d::new(1, 1)).batch_norm(&scale, &scale, 1e-5, 1).output.relu()
        };
        let y = weights.iter().fold(images, normalised);
        assert!(chains(&Step::new().output("y", &y), 1).is_empty());
    }
}
