// The second stage of a fold: one thread an outer index (or four) merges the chunks' states in order.

struct Params {
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
    let o = i32(linear);
{{outer_indices}}
{{initial}}
    for (var chunk = 0; chunk < {{chunks}}; chunk++) {
        let start = chunk * {{chunk_len}};
        let count_b = f32(min({{chunk_len}}, {{inner_count}} - start));
        let count_a = f32(start);
{{merge}}
    }
{{finish}}}
