//! The WGSL of a kernel, to be read.

use std::collections::BTreeSet;
use std::fmt::Write;

use autograd::Result;
use schedule::{BufferId, Kernel, Schedule};
use shaders::{Access, Context, Sequence, Storage, Target, assemble, precompute};

/// What a device that offers `target` runs for one kernel of the schedule: every launch's WGSL, with its
/// workgroups and bindings above it.
///
/// # Errors
/// [`autograd::Error::Limit`] where the kernel cannot be made to fit the target's limits.
pub fn source(schedule: &Schedule, kernel: &Kernel, target: &Target) -> Result<String> {
    let alone = Schedule { prepare: vec![], kernels: vec![kernel.clone()], ..schedule.clone() };
    let precomputed = precompute(alone, target);
    let places = precomputed.places();
    let schedule = &precomputed.schedule;
    let frozen = schedule.frozen();
    let context = Context {
        buffers: &schedule.buffers,
        places: &places,
        frozen: &frozen,
        target,
        choice: None,
        tight: false,
    };
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
                    let there = buffers.iter().filter(|&&b| places[b].memory == memory);
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

/// The same for a device that offers no more than WebGPU guarantees everywhere.
pub fn webgpu_source(schedule: &Schedule, kernel: &Kernel) -> Result<String> {
    source(schedule, kernel, &Target::WEBGPU)
}

/// How schedules for [`webgpu_source`] are made.
pub fn webgpu_options() -> schedule::Options {
    Target::WEBGPU.schedule_options()
}
