// An implicit matrix product: both operands go through workgroup memory, threads or matrix units keep
// blocks of results. A workgroup has one tile of the result, and all of k or one chunk of it.

struct Params {
    // Workgroups that have work.
    count: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{{bindings}}
{{memory}}
{{functions}}
@compute @workgroup_size({{threads}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
{{parameters}}) {
    let linear = group.y * groups.x + group.x;
    if linear >= params.count {
        return;
    }
    let thread = i32(local);
    let block = i32(linear % {{column_tiles}}u);
    let row_tile = i32(linear / {{column_tiles}}u % {{row_tiles}}u);
    let first = {{first}};
    let end = {{end}};
    let slice = i32(linear / {{workgroups}}u % {{slices}}u);
{{of_slice}}    let chunk = i32(linear / {{workgroups_slices}}u);
{{accumulators}}
{{once}}
{{steps}}{{ending}}}
