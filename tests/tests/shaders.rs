//! Every WGSL module that the project's programs need, for many kinds of adapter: valid, and translated
//! to SPIR-V (Vulkan), MSL (Metal) and HLSL (DX12). No device is needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use autograd::Tensor;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{ResourceBinding, ShaderStage};
use nn::{Forward, Model, models};
use rayon::prelude::*;
use schedule::{Kernel, Options, Schedule, Step};
use shaders::{Access, Context, Launch, Limits, Operands, Sequence, Target};
use sld::distill::Sld;
use sld::training::{Networks, Setup, step::expressions};
use sld_tests::operations::{Case, fixture_cases, own_cases};

/// Images of a view.
const BATCH: usize = 2;

/// The adapters: what WebGPU guarantees; Metal, which keeps a binding to itself; other graphics cards; and those that
/// multiply in 16 bits, with and without matrix units, or in pairs of them.
fn targets() -> Vec<(String, Target)> {
    let large = Limits {
        storage_buffers: 64,
        binding_bytes: 2 << 30,
        workgroup_bytes: 48 << 10,
        invocations: 1024,
        groups: 65_535,
    };
    let fewer = Limits { storage_buffers: 30, workgroup_bytes: 32 << 10, ..large };
    let targets = [
        (Operands::F32, Limits::WEBGPU),
        (Operands::F32, fewer),
        (Operands::F32, large),
        (Operands::F16, Limits::WEBGPU),
        (Operands::Matrix, large),
        (Operands::Split, large),
    ];
    let named = |(operands, limits): (Operands, Limits)| {
        let name = format!("operands {operands:?}, {} bindings", limits.storage_buffers);
        (name, Target { lanes: 32, operands, limits })
    };
    targets.map(named).to_vec()
}

/// Every operation, fused and unfused; every network's training step by distillation, and its evaluation.
fn schedules(options: Options) -> Vec<(String, Schedule)> {
    let cases: Vec<Case> = fixture_cases().into_iter().chain(own_cases()).collect();
    let operations = cases.par_iter().flat_map_iter(|case| {
        [true, false].map(|fuse| (case.name.clone(), case.step(), Options { fuse, ..options }))
    });
    let mut networks: Vec<(&str, usize)> = models::names().map(|name| (name, models::side(name))).collect();
    networks.extend(models::names().filter(|name| name.starts_with("vgg")).map(|name| (name, 64)));
    let networks = networks.par_iter().flat_map_iter(|&(name, size)| {
        let of = |kind: &str, step| (format!("{name} {kind} at {size}"), step, options);
        [of("evaluates", evaluation(name, size)), of("trains", training(name, size))]
    });
    operations
        .chain(networks)
        .map(|(name, step, options)| {
            let schedule = step.schedule_with(options).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, schedule)
        })
        .collect()
}

fn build(name: &str) -> Model {
    models::build(name, 100, 1).unwrap_or_else(|error| panic!("{error}"))
}

fn evaluation(name: &str, size: usize) -> Step {
    let images = Tensor::input("images", &[BATCH, size, size, 3]);
    Step::new().output("logits", &build(name).forward(&images, &mut Forward::eval()).logits)
}

fn training(name: &str, size: usize) -> Step {
    let student = build(name);
    let teacher = match size {
        32 => "resnet8",
        64 => "vgg8",
        _ => "imagenet/ResNet18",
    };
    let teacher = Some(build(teacher));
    let setup = Setup { size: [size, size], ..Setup::default() };
    let networks = Networks::new(student, teacher, &Sld::default(), setup).expect("SLD takes every pair");
    expressions(&networks, &Sld::default(), BATCH, [size, size]).0
}

/// The schedule whose kernels are made in every way that there is.
const IN_EVERY_WAY: &str = "resnet8x4 trains at 32";

/// The launches of a schedule on a target, with those of its kernels' other ways if they are asked for.
fn launches(schedule: &Schedule, target: &Target, every_way: bool) -> autograd::Result<Vec<Launch>> {
    let made = shaders::precompute(schedule.clone(), target);
    let (run, context) = (&made.schedule, made.context(target));
    let sequence = |number: usize| {
        let assemble = |kernel: &Kernel| {
            let choice = shaders::candidates(context, kernel).get(number).copied();
            shaders::assemble(Context { choice, ..context }, kernel)
        };
        Sequence::new(context, run, run.all_kernels().map(assemble).collect::<autograd::Result<_>>()?)
    };
    let most = run.all_kernels().map(|kernel| shaders::candidates(context, kernel).len()).max().unwrap_or(0);
    let mut launches = Vec::new();
    for number in 0..if every_way { most.max(1) } else { 1 } {
        let Sequence { prepare, call, .. } = sequence(number)?;
        launches.extend(prepare);
        launches.extend(call);
    }
    launches.dedup_by(|a, b| Arc::ptr_eq(&a.source, &b.source));
    Ok(launches)
}

/// A module and how it is bound.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Module {
    source: Arc<str>,
    bindings: Vec<Access>,
    /// In what it multiplies, if it does.
    operands: Operands,
}

impl Module {
    fn has_16_bit_storage(&self) -> bool {
        self.source.lines().any(|line| line.contains("var<storage") && line.contains("f16"))
    }
}

/// Number `i` of group 0, for every binding: the uniform, then storage.
fn bindings(module: &Module) -> impl Iterator<Item = (ResourceBinding, u8, bool)> {
    let storage = module.bindings.iter().map(|&access| access == Access::ReadWrite);
    std::iter::once(false)
        .chain(storage)
        .enumerate()
        .map(|(i, mutable)| (ResourceBinding { group: 0, binding: i as u32 }, i as u8, mutable))
}

/// Parses, validates and translates as wgpu does on its three native back ends, with bounds checks as in
/// debug builds.
fn translate(module: &Module) -> Result<(), String> {
    let parsed = naga::front::wgsl::parse_str(&module.source)
        .map_err(|error| format!("parsing: {}", error.emit_to_string(&module.source)))?;
    let mut capabilities = Capabilities::empty();
    if module.operands != Operands::F32 {
        capabilities |= Capabilities::SHADER_FLOAT16;
    }
    if module.operands.are_matrices() {
        capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&parsed)
        .map_err(|error| format!("validating: {}", error.emit_to_string(&module.source)))?;
    let restrict = naga::proc::BoundsCheckPolicy::Restrict;
    let bounds_check_policies = naga::proc::BoundsCheckPolicies {
        index: restrict,
        buffer: restrict,
        image_load: restrict,
        binding_array: naga::proc::BoundsCheckPolicy::Unchecked,
    };

    let mut allowed = vec![spv::Capability::Shader];
    if module.operands != Operands::F32 {
        allowed.extend([spv::Capability::Float16, spv::Capability::StorageBuffer16BitAccess]);
    }
    if module.operands.are_matrices() {
        allowed.extend([
            spv::Capability::GroupNonUniform,
            spv::Capability::CooperativeMatrixKHR,
            spv::Capability::VulkanMemoryModel,
        ]);
    }
    let options = spv::Options {
        lang_version: match module.operands {
            operands if operands.are_matrices() => (1, 4),
            Operands::F32 => (1, 0),
            _ => (1, 3),
        },
        capabilities: Some(allowed.into_iter().collect()),
        bounds_check_policies,
        ..Default::default()
    };
    let main = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(&parsed, &info, &options, Some(&main)).map_err(|e| format!("SPIR-V: {e}"))?;
    if module.operands.are_matrices() {
        // Matrices of this size are Vulkan's alone.
        return Ok(());
    }

    let slots = bindings(module).map(|(binding, slot, mutable)| {
        (binding, msl::BindTarget { buffer: Some(slot), mutable, ..Default::default() })
    });
    let resources = msl::EntryPointResources {
        resources: slots.collect(),
        sizes_buffer: Some(module.bindings.len() as u8 + 1),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: (2, 1),
        per_entry_point_map: [("main".to_string(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        bounds_check_policies,
        ..Default::default()
    };
    let main = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, "main".into())),
        ..Default::default()
    };
    let (metal, names) =
        msl::write_string(&parsed, &info, &options, &main).map_err(|error| format!("MSL: {error}"))?;
    names
        .entry_point_names
        .into_iter()
        .next()
        .ok_or("MSL: no entry point")?
        .map_err(|e| format!("MSL: {e}"))?;

    let registers = bindings(module).map(|(binding, register, _)| {
        (binding, hlsl::BindTarget { register: register.into(), ..Default::default() })
    });
    let options = hlsl::Options {
        // Without 16-bit floats the old compiler that Windows brings along is enough.
        shader_model: match module.operands {
            Operands::F32 => hlsl::ShaderModel::V5_1,
            _ => hlsl::ShaderModel::V6_2,
        },
        binding_map: registers.collect(),
        special_constants_binding: Some(hlsl::BindTarget { space: 255, ..Default::default() }),
        fake_missing_bindings: false,
        ..Default::default()
    };
    let main = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, "main".into())) };
    let mut direct = String::new();
    let names = hlsl::Writer::new(&mut direct, &options, &main)
        .write(&parsed, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    names
        .entry_point_names
        .into_iter()
        .next()
        .ok_or("HLSL: no entry point")?
        .map_err(|error| format!("HLSL: {error}"))?;
    let made = [words.len(), metal.len(), direct.len()];
    if made.contains(&0) { Err(format!("an empty translation: {made:?}")) } else { Ok(()) }
}

#[test]
fn every_module_is_valid_and_translates() {
    let start = Instant::now();
    let targets = targets();
    let mut made: Vec<(Options, Vec<(String, Schedule)>)> = Vec::new();
    for (_, target) in &targets {
        let options = target.schedule_options();
        if made.iter().all(|(o, _)| *o != options) {
            made.push((options, schedules(options)));
        }
    }
    let pairs: Vec<_> = targets
        .iter()
        .flat_map(|target| {
            let of_target = made.iter().filter(|(options, _)| *options == target.1.schedule_options());
            of_target.flat_map(move |(_, schedules)| schedules.iter().map(move |schedule| (schedule, target)))
        })
        .collect();
    // Each once, with one of the kernels that need it: all of them together would take gigabytes.
    let modules: Mutex<HashMap<Module, String>> = Mutex::default();
    pairs.par_iter().for_each(|((name, schedule), (target_name, target))| {
        let what = format!("{name}, for {target_name}");
        let every_way = name == IN_EVERY_WAY;
        let launches =
            launches(schedule, target, every_way).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut modules = modules.lock().expect("no thread panicked");
        for launch in launches {
            let bindings = launch.bindings.iter().map(|bound| bound.access).collect();
            // Kernels that multiply nothing are the same in all precisions.
            let is_half = launch.source.contains("f16");
            let operands = if is_half { target.operands } else { Operands::F32 };
            let module = Module { source: launch.source, bindings, operands };
            modules.entry(module).or_insert_with(|| format!("{what}, kernel `{}`", launch.label));
        }
    });
    let modules = modules.into_inner().expect("no thread panicked");
    let assembled = start.elapsed().as_secs_f64();
    let failures: BTreeMap<String, String> = modules
        .par_iter()
        .filter_map(|(module, what)| translate(module).err().map(|error| (what.clone(), error)))
        .collect();
    println!(
        "{} WGSL modules of {} schedules for {} targets: {assembled:.1} s to make, {:.1} s to check",
        modules.len(),
        pairs.len() / targets.len(),
        targets.len(),
        start.elapsed().as_secs_f64() - assembled
    );
    assert!(made.iter().all(|(_, schedules)| schedules.iter().any(|(name, _)| name == IN_EVERY_WAY)));
    assert!(modules.len() > 1000, "only {} modules", modules.len());
    let halves = modules.keys().filter(|module| module.has_16_bit_storage()).count();
    println!("{halves} of them store in 16 bits");
    assert!(halves > 100, "only {halves} modules store in 16 bits");
    let shown: Vec<String> =
        failures.iter().take(5).map(|(what, error)| format!("{what}: {error}")).collect();
    assert!(failures.is_empty(), "{} modules fail:\n{}", failures.len(), shown.join("\n"));
}
