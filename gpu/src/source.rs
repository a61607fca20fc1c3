//! What runs for a kernel, to be read: its WGSL, and its launches.

use std::collections::BTreeSet;
use std::fmt::Write;

use autograd::Result;
use schedule::{BufferId, Kernel, Schedule, Work};
use shaders::{Access, Bound, Launch, Sequence, Storage, Target, assemble, precompute, precompute_alone};

/// What a device that offers `target` runs for one kernel of the schedule: every launch's WGSL, with its
/// workgroups and bindings above it.
///
/// # Errors
/// [`autograd::Error::Limit`] where the kernel cannot be made to fit the target's limits.
pub fn source(schedule: &Schedule, kernel: &Kernel, target: &Target) -> Result<String> {
    let precomputed = precompute_alone(schedule, kernel, target);
    let (schedule, context) = (&precomputed.schedule, precomputed.context(target));
    let mut text = String::new();
    let assembled = schedule.all_kernels().map(|kernel| assemble(context, kernel)).collect::<Result<_>>()?;
    let sequence = Sequence::new(context, schedule, assembled)?;
    let buffers: BTreeSet<BufferId> = schedule.kernels.iter().flat_map(Kernel::buffers).collect();
    let once = sequence.prepare.iter().map(|launch| ("once: ", launch));
    for (when, launch) in once.chain(sequence.call.iter().map(|launch| ("", launch))) {
        let [x, y, z] = launch.groups;
        let _ =
            writeln!(text, "// {when}{}: {x} x {y} x {z} workgroups, count = {}", launch.label, launch.count);
        for (number, bound) in launch.bindings.iter().enumerate() {
            let access = match bound.access {
                Access::Read => "reads",
                Access::ReadWrite => "writes",
            };
            let what = match bound.storage {
                Storage::Scratch(_) => "scratch".into(),
                Storage::Packed(_) => "packed operands".into(),
                Storage::Memory(memory) => {
                    let there = buffers.iter().filter(|&&b| precomputed.places[b].memory == memory);
                    there.map(|&b| schedule.buffers[b].label.as_str()).collect::<Vec<_>>().join(", ")
                }
            };
            let kib = bound.bytes().div_ceil(1024);
            let _ = writeln!(text, "// binding {}: {access} {what}, {kib} KiB", number + 1);
        }
        let _ = writeln!(text, "{}\n", launch.source.trim_end());
    }
    Ok(text)
}

/// A table of what a call launches on a device that offers `target`, each kernel computed in the way that is taken without
/// measuring: of every launch the number of workgroups (`4x64+2`), and the bytes that its bindings reach.
///
/// # Errors
/// [`autograd::Error::Limit`] where a kernel cannot be made to fit the target's limits.
pub fn launches(schedule: &Schedule, target: &Target) -> Result<String> {
    let precomputed = precompute(schedule.clone(), target);
    let (run, context) = (&precomputed.schedule, precomputed.context(target));
    let assembled = run.all_kernels().map(|kernel| assemble(context, kernel)).collect::<Result<_>>()?;
    let Sequence { call, starts, .. } = Sequence::new(context, run, assembled)?;
    let of = |kernel: usize| &call[starts[kernel]..starts.get(kernel + 1).copied().unwrap_or(call.len())];
    let moved = |launches: &[Launch]| launches.iter().flat_map(|l| &l.bindings).map(Bound::bytes).sum();
    let every_call = Schedule { prepare: vec![], ..run.clone() };
    let mut text = every_call.table_of("workgroups", |number, kernel| {
        let each: Vec<usize> = of(number).iter().map(Launch::workgroups).collect();
        let alike = each.chunk_by(|a, b| a == b).map(|alike| match alike {
            [groups] => groups.to_string(),
            _ => format!("{}x{}", alike.len(), alike[0]),
        });
        (alike.collect::<Vec<_>>().join("+"), Work { bytes: moved(of(number)), ..run.work(kernel) })
    });
    let ahead = &call[..starts.first().copied().unwrap_or(call.len())];
    let _ = writeln!(
        text,
        "{} launches of {} workgroups; of these {} of {}, before all kernels, pack what products read, {:.1} MiB",
        call.len(),
        call.iter().map(Launch::workgroups).sum::<usize>(),
        ahead.len(),
        ahead.iter().map(Launch::workgroups).sum::<usize>(),
        moved(ahead) as f64 / 1048576.0
    );
    Ok(text)
}

/// A table of what a call launches on a device that offers no more than WebGPU guarantees everywhere: of every launch the
/// number of workgroups, and the bytes that its bindings reach.
pub fn webgpu_launches(schedule: &Schedule) -> Result<String> {
    launches(schedule, &Target::WEBGPU)
}

/// What a device that offers no more than WebGPU guarantees everywhere runs for one kernel of the schedule: every launch's
/// WGSL, with its workgroups and bindings above it.
pub fn webgpu_source(schedule: &Schedule, kernel: &Kernel) -> Result<String> {
    source(schedule, kernel, &Target::WEBGPU)
}

/// How schedules for [`webgpu_source`] and [`webgpu_launches`] are made.
pub fn webgpu_options() -> schedule::Options {
    Target::WEBGPU.schedule_options()
}
