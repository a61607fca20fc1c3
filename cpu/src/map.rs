//! Elementwise kernels.

use schedule::{Program, Store};

use crate::block;
use crate::launch::{Compile, Launch, Runtime};
use crate::program::{BlockProgram, Output, Spec};

/// Below this many elements times instructions a second thread is not worth waking.
const SMALL: usize = 1 << 16;
/// Elements times instructions of a task, at least.
const TASK: usize = 1 << 15;

/// A program evaluated at every index of a shape.
pub struct Map {
    program: BlockProgram,
    /// Tiling rows of a task.
    task: usize,
    tasks: usize,
}

impl Map {
    pub fn new(compile: &Compile, shape: &[usize], program: &Program, stores: &[Store]) -> Map {
        let outputs: Vec<Output> = stores.iter().map(Output::from).collect();
        Map::with_outputs(compile, shape, program, &outputs)
    }

    pub fn with_outputs(compile: &Compile, shape: &[usize], program: &Program, outputs: &[Output]) -> Map {
        let program = BlockProgram::new(&Spec { outputs, ..Spec::new(compile, shape, program) });
        let steps = program.per_block.len() + program.stores.len() + 1;
        let tiling = &program.tiling;
        let rows = tiling.rows();
        let row_work = (tiling.inner * steps).max(1);
        let task = if compile.threads == 1 || rows * row_work < SMALL {
            rows
        } else {
            // Enough tasks that a slow thread does not hold up the others.
            rows.div_ceil(compile.threads * 8).max(TASK.div_ceil(row_work)).next_multiple_of(tiling.chunk)
        };
        Map { tasks: rows.div_ceil(task.max(1)), program, task }
    }

    /// Runs with the addresses of the program's externals.
    ///
    /// # Safety
    /// As for [`block::run`], over the whole space.
    pub unsafe fn evaluate(&self, runtime: &Runtime, externals: &[*mut f32]) {
        if self.program.len() == 0 {
            return;
        }
        let externals = Externals(externals);
        // SAFETY: the caller's promise; tasks are disjoint.
        runtime.pool.run(self.tasks, &|task, _| unsafe { self.run_task(runtime, task, externals.get()) });
    }

    /// Runs one of its tasks.
    ///
    /// # Safety
    /// As for [`block::run`], over the task's rows: a store writes only what its own index may have
    /// loaded.
    unsafe fn run_task(&self, runtime: &Runtime, task: usize, externals: &[*mut f32]) {
        let rows = self.program.tiling.rows();
        let range = task * self.task..((task + 1) * self.task).min(rows);
        // SAFETY: the caller's promise.
        unsafe { block::run(runtime, &self.program, range, externals, |_| {}) };
    }

    /// Elements times instructions.
    fn work(&self) -> usize {
        self.program.len() * (self.program.per_block.len() + self.program.stores.len() + 1)
    }
}

/// Independent programs over shapes of their own, as one parallel loop over all their tasks.
pub struct Maps {
    /// None of them empty.
    parts: Vec<Map>,
    /// Each part's number of the first task; the last entry is the number of tasks.
    starts: Vec<usize>,
    /// Too little work to wake other threads for.
    small: bool,
}

impl Maps {
    pub fn new(compile: &Compile, parts: &[schedule::Map]) -> Maps {
        let compiled = parts.iter().map(|part| Map::new(compile, &part.shape, &part.program, &part.stores));
        let mut parts: Vec<Map> = compiled.filter(|map| map.program.len() > 0).collect();
        // Long parts first, so that none is begun when the others are almost done.
        parts.sort_by_key(|map| std::cmp::Reverse(map.work()));
        let mut starts = vec![0];
        starts.extend(parts.iter().scan(0, |sum, map| {
            *sum += map.tasks;
            Some(*sum)
        }));
        Maps { small: parts.iter().map(Map::work).sum::<usize>() < SMALL, parts, starts }
    }
}

impl Launch for Maps {
    unsafe fn run(&self, runtime: &Runtime) {
        let tasks = self.starts[self.parts.len()];
        let run = |number: usize, _: usize| {
            let part = self.starts.partition_point(|&start| start <= number) - 1;
            // SAFETY: the caller's promise; no part touches what another writes.
            unsafe { self.parts[part].run_task(runtime, number - self.starts[part], &[]) };
        };
        if self.small { (0..tasks).for_each(|number| run(number, 0)) } else { runtime.pool.run(tasks, &run) }
    }
}

/// Addresses that several threads use, each at its own elements.
#[derive(Clone, Copy)]
pub struct Externals<'a>(pub &'a [*mut f32]);

// SAFETY: only addresses.
unsafe impl Sync for Externals<'_> {}

impl<'a> Externals<'a> {
    pub fn get(self) -> &'a [*mut f32] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use schedule::{Body, View};

    use super::*;
    use crate::isa::Isa;
    use crate::kernels::ThreadPool;
    use crate::memory::SharedSlice;
    use crate::random_programs::{Buffers, Dice, close, random_program, random_shape};

    fn stores(
        dice: &mut Dice,
        shape: &[usize],
        program: &Program,
        buffers: &mut Vec<Vec<f32>>,
    ) -> Vec<Store> {
        let len: usize = shape.iter().product();
        (0..1 + dice.below(3))
            .map(|number| {
                let value =
                    if number == 0 { program.instrs.len() - 1 } else { dice.below(program.instrs.len()) };
                let mut view = View::dense(shape);
                if dice.chance(3) {
                    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
                    view.strides = View::dense(&reversed).strides.into_iter().rev().collect();
                }
                view.offset = dice.below(3) as i64;
                buffers.push(vec![-7.0; len + view.offset as usize]);
                Store { buffer: buffers.len() - 1, view, value }
            })
            .collect()
    }

    fn run(map: &Map, isa: Isa, pool: &ThreadPool, buffers: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut copies = Buffers::new(buffers);
        let memory = copies.memory();
        let runtime =
            Runtime { isa, launch: block::launch(), pool, memory: &memory, area: SharedSlice::new(&mut []) };
        // SAFETY: the buffers are as long as their views reach.
        unsafe { map.evaluate(&runtime, &[]) };
        copies.0.iter().map(|floats| floats.as_slice().to_vec()).collect()
    }

    fn check(
        seed: u64,
        threads: usize,
        shape: &[usize],
        program: &Program,
        stores: &[Store],
        buffers: &[Vec<f32>],
    ) {
        let pool = ThreadPool::new(threads);
        let mut expected = reference::Memory::of(buffers);
        let (shape_of, program_of, stores_of) = (shape.to_vec(), program.clone(), stores.to_vec());
        expected.run(&Body::map(shape_of, program_of, stores_of));
        for &isa in Isa::available() {
            let regions = (0..buffers.len()).collect();
            let compile = Compile { threads, regions, ..Compile::default() };
            let map = Map::new(&compile, shape, program, stores);
            let results = run(&map, isa, &pool, buffers);
            for (buffer, result) in results.iter().enumerate() {
                for (i, (&result, &expected)) in result.iter().zip(expected.buffer(buffer)).enumerate() {
                    assert!(
                        close(result, expected, 2e-5),
                        "seed {seed}, {isa:?}, buffer {buffer} element {i}: {result}, not {expected}\n\
                         {shape:?}\n{program:#?}\n{stores:#?}\n{:#?}",
                        map.program
                    );
                }
            }
        }
    }

    #[test]
    fn random_programs_agree_with_plain_evaluation() {
        for seed in 0..400 {
            let mut dice = Dice::new(seed);
            let shape = random_shape(&mut dice, 4, 20_000);
            let mut buffers = Vec::new();
            let program = random_program(&mut dice, &shape, &mut buffers);
            let stores = stores(&mut dice, &shape, &program, &mut buffers);
            check(seed, 1 + seed as usize % 3, &shape, &program, &stores, &buffers);
        }
    }

    /// Stores that overwrite what the same index loads, as an optimizer's update does.
    #[test]
    fn random_programs_in_place() {
        for seed in 0..300 {
            let mut dice = Dice::new(seed + 1000);
            let shape = random_shape(&mut dice, 3, 5000);
            let mut buffers = Vec::new();
            let mut program = random_program(&mut dice, &shape, &mut buffers);
            let len = shape.iter().product();
            let mut stores = Vec::new();
            let first = program.instrs.len();
            for number in 0..2 {
                buffers.push(dice.values(len));
                let (buffer, view) = (buffers.len() - 1, View::dense(&shape));
                program.instrs.push(schedule::Instr::Load { buffer, view: view.clone() });
                stores.push(Store {
                    buffer,
                    view,
                    value: if dice.chance(2) { first + 1 - number } else { first + 2 },
                });
            }
            use autograd::tensor::BinaryOp;
            use schedule::Instr;
            program.instrs.push(Instr::Binary(BinaryOp::Sub, first, first + 1));
            program.instrs.push(Instr::Binary(BinaryOp::Mul, first + 2, first));
            check(seed, 1, &shape, &program, &stores, &buffers);
        }
    }
}
