// An implicit matrix product for GPUs: both operands go through workgroup memory, a thread keeps a block
// of results in registers.
//
// Rows are positions of a grid of images; the sum runs over taps (positions of the left operand around a
// row's own) and over k. The right operand is packed [z][tap][k][column].

struct Params {
    // Workgroups that have work.
    count: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{{bindings}}
{{tiles}}
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
    let block = i32(linear) % {{column_blocks}};
    let first = ((i32(linear) / {{column_blocks}}) % {{row_tiles}}) * {{rows}};
    let z = i32(linear) / {{blocks_and_tiles}};
{{accumulators}}
{{row_positions}}
    for (var tap_y = 0; tap_y < {{taps_y}}; tap_y++) {
        for (var tap_x = 0; tap_x < {{taps_x}}; tap_x++) {
            let tap = {{tap_number}};
            let right = ((z * {{taps}} + tap) * {{k_padded}} * {{right_row}} + block * {{columns}}) / 4;
{{tap_positions}}
            for (var base = 0; base < {{k_padded}}; base += {{k}}) {
{{load}}
                workgroupBarrier();
{{stage}}
                workgroupBarrier();
{{multiply}}
            }
        }
    }
{{finish}}}
