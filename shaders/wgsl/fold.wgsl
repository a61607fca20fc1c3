// One stage of a fold. A workgroup has {{across}} neighbouring outer indices (or fours of them) and
// {{deep}} lanes for each, which take turns with the values of one chunk: neighbouring threads read
// neighbouring values. The lanes' states are merged in a fixed tree, so the result does not depend on timing.

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
) {
    let linear = i32(group.y * groups.x + group.x);
    if linear >= i32(params.count) {
        return;
    }
    let thread = i32(local);
    let lane = {{lane}};
    let column = {{column}};
    let outer = (linear % {{outer_groups}}) * {{across}} + column;
    let chunk = linear / {{outer_groups}};
    // Threads past the end repeat the last index, and store nothing.
    let o = min(outer, {{last}});
    let start = chunk * {{chunk_len}};
    let end = min(start + {{chunk_len}}, {{len}});
{{outer_indices}}
    // See `rounded_off_`.
    let zero = params.count >> 31u;
    var count = 0.0;
{{initial}}
    for (var j = start + lane; j < end; j += {{deep}}) {
{{update}}
    }
{{tree}}
    if lane == 0 && outer <= {{last}} {
{{finish}}
    }
}
