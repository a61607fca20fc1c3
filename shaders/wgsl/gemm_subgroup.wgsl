// An implicit matrix product for drivers whose threads are the lanes of one processor's vectors: a
// workgroup is one subgroup, no workgroup memory. Lanes in groups of {{group}} own {{columns}} result
// columns each; a lane loads rows of the left operand as vectors along k, and every row reaches the
// group's other lanes by a broadcast.
//
// Rows are positions of a grid [{{grid_n}}, {{grid_h}}, {{grid_w}}]; the sum runs over taps (positions of
// the left operand around a row's own) and over k. The right operand is packed [z][tap][k][column].

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
    let block = i32(linear) % {{column_blocks}};
    let tile = (i32(linear) / {{column_blocks}}) % {{row_tiles}};
    let z = i32(linear) / {{blocks_and_tiles}};
    let member = i32(lane) % {{group}};
    let first = tile * {{tile_rows}} + (i32(lane) / {{group}}) * {{rows}};
    // This lane's first vector of columns.
    let column = (block * {{group}} + member) * {{columns}};
{{accumulators}}
{{row_positions}}
    for (var tap_y = 0; tap_y < {{taps_y}}; tap_y++) {
        for (var tap_x = 0; tap_x < {{taps_x}}; tap_x++) {
            let tap = {{tap_number}};
            let right = (z * {{taps}} + tap) * {{k_padded}} * {{right_row}} + column;
{{tap_positions}}
            for (var k = 0; k < {{k_padded}}; k += 4) {
{{multiply}}
            }
        }
    }
{{finish}}}
