// The weight gradient as a matrix product over pixels, for drivers whose threads are the lanes of one
// processor's vectors (see gemm_subgroup.wgsl). A workgroup is one subgroup and has one tap, {{rows}}
// input channels, a block of output channels and, for each group of {{group}} lanes, one chunk of the
// pixels. Lanes load a pixel's input channels each and broadcast them; the chunks' sums go to scratch and
// are added up in order by the next launch.

struct Params {
    // Workgroups that have work.
    count: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{{bindings}}
{{functions}}
@compute @workgroup_size({{threads}})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let linear = group.y * groups.x + group.x;
    if linear >= params.count {
        return;
    }
    let column_block = i32(linear) % {{column_blocks}};
    let row_block = (i32(linear) / {{column_blocks}}) % {{row_blocks}};
    let tap = (i32(linear) / {{blocks}}) % {{taps}};
    let z = (i32(linear) / {{blocks_taps}}) % {{z}};
    let chunk = (i32(linear) / {{blocks_taps_z}}) * {{groups}} + i32(lane) / {{group}};
    let member = i32(lane) % {{group}};
    let row = row_block * {{rows}};
    let column = (column_block * {{group}} + member) * {{columns_4}};
    let move_y = (tap / {{kw}}) * {{dilation_y}} - {{padding_y}};
    let move_x = (tap % {{kw}}) * {{dilation_x}} - {{padding_x}};
    let end = min((chunk + 1) * {{chunk_len}}, {{pixels}});
{{accumulators}}
    // The same number of rounds for all lanes, so that all take part in every broadcast.
    for (var round = 0; round < {{chunk_len}}; round += {{group}}) {
        let first = chunk * {{chunk_len}} + round;
        let pixel = first + member;
        let y = ((pixel / {{out_width}}) % {{out_height}}) * {{stride_y}} + move_y;
        let x = (pixel % {{out_width}}) * {{stride_x}} + move_x;
        let inside = pixel < end && u32(y) < {{height}}u && u32(x) < {{width}}u;
        let sn = select(0, pixel / {{out_pixels}}, inside);
        let sy = select(0, y, inside);
        let sx = select(0, x, inside);
{{multiply}}
    }
{{finish}}}
