// Folds: one thread an outer index (or four neighbours) and one chunk of the inner values. With more
// than one chunk this stage writes partial states, and `reduce_merge.wgsl` merges them in order, so the
// result does not depend on timing.

struct Params {
    // Threads: outer indices times chunks.
    count: u32,
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
    let o = i32(linear) % {{outer_count}};
    let chunk = i32(linear) / {{outer_count}};
    let start = chunk * {{chunk_len}};
    let end = min(start + {{chunk_len}}, {{inner_count}});
{{outer_indices}}
{{initial}}
    for (var j = start; j < end; j++) {
{{inner_indices}}
{{program}}
{{update}}
    }
{{finish}}}
