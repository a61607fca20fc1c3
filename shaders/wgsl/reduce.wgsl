// Folds: one thread an outer index (or four neighbours) and one chunk of the inner values. With more
// than one chunk this stage writes partial states, and `reduce_merge.wgsl` merges them in order, so the
// result does not depend on timing.

struct Params {
    // Threads: outer indices times chunks.
    count: u32,
    // The first outer index and the first chunk of the launch.
    outer: u32,
    chunk: u32,
    // Where uniform bindings begin.
    window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{{bindings}}
@compute @workgroup_size({{threads}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let linear = (group.y * groups.x + group.x) * {{threads}}u + thread;
    if linear >= params.count {
        return;
    }
    let o = i32(params.outer) + i32(linear) % {{outer_count}};
    let first_chunk = i32(params.chunk) + i32(linear) / {{outer_count}};
{{outer_indices}}
{{chunks}}}
