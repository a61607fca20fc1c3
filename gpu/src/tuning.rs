//! Kernels chosen by measuring: which of the ways to compute it is the fastest on this adapter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use autograd::{Error, Result};
use schedule::{Kernel, pending};
use shaders::{Assembled, Choice, Context, Launch, assemble, candidates};

use crate::choices::{Choices, Chosen, Measured, name};
use crate::context::{Gpu, lock};
use crate::dispatch::{Dispatch, Uniforms};
use crate::pipelines::Pipelines;
use crate::{platform, profile};

/// How kernels that can be computed in several ways are. What was given by
/// [`Device::choose`](schedule::Device::choose) is kept to in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// As is best on most adapters.
    #[default]
    Fixed,
    /// As is fastest on this one. A kernel is measured when it is compiled, if it is not known from before; on a
    /// device without timestamps as `Fixed`.
    Measured,
    /// By the way of this number, as far as there are so many: so that tests meet all of them.
    Number(usize),
}

/// Times of which the least counts.
const ROUNDS: usize = 5;
/// A way is left out of further rounds if its first time is this many times the least one.
const HOPELESS: f64 = 1.5;
/// A way takes the place of the fixed one only where it takes at most this part of its time.
const BETTER: f64 = 0.97;

/// How far the measuring of a program's kernels is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measuring {
    /// Kernels that are measured.
    pub done: usize,
    /// Kernels that were not known, each counted once.
    pub all: usize,
}

/// Is told how far it is.
type Watch = Box<dyn Fn(Measuring) + Send + Sync>;

/// The choices of a device.
pub struct Tuning {
    tune: Tune,
    known: Mutex<Known>,
    watch: Mutex<Option<Watch>>,
}

#[derive(Default)]
struct Known {
    /// By [`Device::choose`](schedule::Device::choose).
    given: Choices,
    measured: Choices,
    /// Where these are kept.
    file: Option<PathBuf>,
    used: Choices,
}

impl Tuning {
    pub fn new(tune: Tune) -> Tuning {
        Tuning { tune, known: Mutex::default(), watch: Mutex::default() }
    }

    /// See [`GpuDevice::watch`](crate::GpuDevice::watch).
    pub fn watch(&self, watch: impl Fn(Measuring) + Send + Sync + 'static) {
        *lock(&self.watch) = Some(Box::new(watch));
    }

    /// See [`GpuDevice::remember`](crate::GpuDevice::remember).
    pub fn remember(&self, file: PathBuf) {
        let mut known = lock(&self.known);
        // A damaged file is one without choices: what it held is measured again.
        known.measured.kernels.extend(read(&file).kernels);
        known.file = Some(file);
    }

    /// See [`Device::choose`](schedule::Device::choose).
    pub fn give(&self, choices: &str) -> Result<()> {
        let choices = Choices::parse(choices)?;
        lock(&self.known).given.kernels.extend(choices.kernels);
        Ok(())
    }

    /// See [`Device::choices`](schedule::Device::choices).
    pub fn used(&self) -> String {
        let known = lock(&self.known);
        // What was given may be needed later, by a step that is not compiled yet.
        let mut all = known.used.clone();
        all.kernels.extend(known.given.kernels.clone());
        all.text()
    }

    /// Keeps what was measured, in the file, too. That it cannot be written is no failure: it is measured again then.
    fn learn(&self, name: String, chosen: Chosen) {
        let mut known = lock(&self.known);
        known.measured.kernels.insert(name, chosen);
        if let Some(file) = &known.file {
            // What another process wrote meanwhile stays.
            let mut all = read(file);
            all.kernels.extend(known.measured.kernels.clone());
            let _ = write(file, &all.text());
        }
    }

    /// Makes kernels ready, each as is chosen. Before that measures those that are to be and are not known.
    pub fn assemble<'a>(
        &self,
        gpu: &Arc<Gpu>,
        context: Context,
        kernels: impl Iterator<Item = &'a Kernel>,
    ) -> Result<Vec<Assembled>> {
        let plans = kernels.map(|kernel| Plan::new(context, kernel)).collect::<Result<Vec<_>>>()?;
        if self.tune == Tune::Measured && gpu.timestamps {
            self.measure(gpu, context, &plans)?;
        }
        plans.into_iter().map(|plan| self.follow(context, plan)).collect()
    }

    /// Measures what is not known, each kernel once.
    fn measure(&self, gpu: &Arc<Gpu>, context: Context, plans: &[Plan]) -> Result<()> {
        let mut unknown: BTreeMap<&str, &Plan> =
            plans.iter().filter_map(|plan| Some((plan.name.as_deref()?, plan))).collect();
        {
            let known = lock(&self.known);
            unknown.retain(|&name, _| known.find(name, self.tune).is_none());
        }
        let all = unknown.len();
        for (done, (name, plan)) in unknown.into_iter().enumerate() {
            self.tell(Measuring { done, all });
            match measure(gpu, context, plan) {
                Ok(chosen) => self.learn(name.into(), chosen),
                // Beside what the step itself takes there may be no room to measure.
                Err(Error::OutOfMemory(_)) => {}
                Err(why) => return Err(why),
            }
        }
        if all > 0 {
            self.tell(Measuring { done: all, all });
        }
        Ok(())
    }

    fn tell(&self, measuring: Measuring) {
        if let Some(watch) = &*lock(&self.watch) {
            watch(measuring);
        }
    }

    fn follow(&self, context: Context, plan: Plan) -> Result<Assembled> {
        let Plan { kernel, fixed, ways, name: Some(name) } = plan else { return Ok(plan.fixed) };
        let mut known = lock(&self.known);
        let chosen = known.find(&name, self.tune).cloned().unwrap_or_else(|| {
            let number = if let Tune::Number(number) = self.tune { number } else { 0 };
            let choice = ways.get(number).copied().filter(|_| number > 0);
            Chosen { label: kernel.label.clone(), choice, measured: None }
        });
        // What a file says is taken only if it is one of the ways there are.
        let choice = chosen.choice.filter(|choice| ways.contains(choice));
        known.used.kernels.insert(name, Chosen { choice, ..chosen });
        match choice {
            Some(_) => assemble(Context { choice, ..context }, kernel),
            None => Ok(fixed),
        }
    }
}

impl Known {
    fn find(&self, name: &str, tune: Tune) -> Option<&Chosen> {
        let measured = || self.measured.kernels.get(name).filter(|_| tune == Tune::Measured);
        self.given.kernels.get(name).or_else(measured)
    }
}

/// A kernel and the ways to compute it.
struct Plan<'a> {
    kernel: &'a Kernel,
    /// As it is computed without measuring.
    fixed: Assembled,
    ways: Vec<Choice>,
    /// None where there is nothing to choose.
    name: Option<String>,
}

impl<'a> Plan<'a> {
    fn new(context: Context, kernel: &'a Kernel) -> Result<Plan<'a>> {
        let fixed = assemble(context, kernel)?;
        let ways = candidates(context, kernel);
        let is_open = ways.len() > 1 && !fixed.launches.is_empty();
        let name = is_open.then(|| name(&fixed, &ways));
        Ok(Plan { kernel, fixed, ways, name })
    }
}

/// Measures a kernel as it is and in other ways, on memory of its own.
fn measure(gpu: &Arc<Gpu>, context: Context, plan: &Plan) -> Result<Chosen> {
    let Plan { kernel, fixed, ways, .. } = plan;
    // A way that cannot be made to fit this device is none.
    let other = |&choice: &Choice| {
        let made = assemble(Context { choice: Some(choice), ..context }, kernel).ok()?;
        Some((Some(choice), made.launches))
    };
    let all: Vec<(Option<Choice>, Vec<Launch>)> =
        [(None, fixed.launches.clone())].into_iter().chain(ways[1..].iter().filter_map(other)).collect();
    let mut sizes = BTreeMap::new();
    for bound in all.iter().flat_map(|(_, launches)| launches).flat_map(|launch| &launch.bindings) {
        let size = sizes.entry(bound.storage).or_insert(0);
        *size = bound.bytes().max(*size);
    }
    let memory = sizes.into_iter().map(|(storage, size)| Ok((storage, gpu.buffer("measuring", size)?)));
    let memory = memory.collect::<Result<BTreeMap<_, _>>>()?;

    // Compiled apart from what is kept: all but one of them are not needed again.
    let pipelines = Pipelines::default();
    let made = Mutex::new(Vec::new());
    platform::for_each(all.len(), |number| {
        let (choice, launches) = &all[number];
        let bound = || -> Result<Vec<Dispatch>> {
            let compiled = pipelines.get(gpu, launches)?;
            let uniforms = Uniforms::new(gpu, launches)?;
            let dispatches = launches.iter().zip(compiled).enumerate().map(|(at, (launch, pipeline))| {
                uniforms.bind(gpu, at, launch.clone(), pipeline, |storage| memory.get(&storage))
            });
            dispatches.collect()
        };
        match bound() {
            Ok(dispatches) => lock(&made).push((number, *choice, dispatches)),
            Err(why) if choice.is_none() => return Err(why),
            // A driver may refuse a way.
            Err(_) => {}
        }
        Ok(())
    })?;
    let mut made = lock(&made).drain(..).collect::<Vec<_>>();
    made.sort_by_key(|(number, ..)| *number);

    // The first round also warms up: it only tells what is hopeless.
    let first = seconds(gpu, &made.iter().map(|(_, _, d)| &d[..]).collect::<Vec<_>>(), 1)?;
    let least = first.iter().copied().fold(f64::INFINITY, f64::min);
    let ways = made.len();
    let mut first = first.into_iter();
    made.retain(|(_, choice, _)| first.next().is_some_and(|t| t <= HOPELESS * least) || choice.is_none());
    let times = seconds(gpu, &made.iter().map(|(_, _, d)| &d[..]).collect::<Vec<_>>(), ROUNDS)?;
    let fixed = times[0];
    let (best, choice) = made
        .iter()
        .zip(&times)
        .map(|((_, choice, _), &time)| (time, *choice))
        .fold((fixed, None), |best, way| if way.0 < best.0 { way } else { best });
    let choice = choice.filter(|_| best <= BETTER * fixed);
    let measured = Measured { fixed: fixed * 1e6, best: best.min(fixed) * 1e6, ways };
    Ok(Chosen { label: kernel.label.clone(), choice, measured: Some(measured) })
}

/// The least seconds of each of several lists of dispatches, which take turns.
fn seconds(gpu: &Arc<Gpu>, ways: &[&[Dispatch]], rounds: usize) -> Result<Vec<f64>> {
    let round: Vec<&Dispatch> = ways.iter().copied().flatten().collect();
    let all: Vec<&Dispatch> = (0..rounds).flat_map(|_| round.iter().copied()).collect();
    let measured = pending::wait(profile::measure(gpu, &all)?)?;
    let mut least = vec![f64::INFINITY; ways.len()];
    for round in measured.chunks_exact(round.len()) {
        let mut at = 0;
        for (way, least) in ways.iter().zip(&mut least) {
            *least = round[at..at + way.len()].iter().sum::<f64>().min(*least);
            at += way.len();
        }
    }
    Ok(least)
}

fn read(file: &Path) -> Choices {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    Choices::parse(&text).unwrap_or_default()
}

/// Whole or not at all, whoever else writes.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Of each process and write its own.
    static WRITES: AtomicUsize = AtomicUsize::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let aside = file.with_extension(format!("{}.{number}.new", std::process::id()));
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, file));
    if written.is_err() {
        // What cannot be removed either does no harm.
        let _ = std::fs::remove_file(&aside);
    }
    written
}
