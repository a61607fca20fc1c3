// One thread a result: the entry point of the simple kernels.

struct Params {
    // Threads, and the number of the first.
    count: u32,
    first: u32,
    // Where uniform bindings begin.
    window: u32,
    // The number of the first thread whose work is not done yet.
    skip: u32,
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
    let i = i32(linear + params.first);
{{body}}}
