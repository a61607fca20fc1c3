// One thread a result: the entry point of the simple kernels.

struct Params {
    // Threads that have work.
    count: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{{bindings}}
{{functions}}
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
    let i = i32(linear);
{{body}}}
