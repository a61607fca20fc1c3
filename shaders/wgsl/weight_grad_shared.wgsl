// The weight gradient as a matrix product over pixels, for GPUs. Rows are (tap, input channel), columns
// output channels; a workgroup has one tile of those and one chunk of the pixels, and its sums go to
// scratch, to be added up in order by the next launch.

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
    let z = (i32(linear) / {{blocks}}) % {{z}};
    let chunk = i32(linear) / {{blocks_z}};
    let end = min((chunk + 1) * {{chunk_len}}, {{pixels}});
{{accumulators}}
{{row_positions}}
    for (var pixel0 = chunk * {{chunk_len}}; pixel0 < (chunk + 1) * {{chunk_len}}; pixel0 += {{k}}) {
{{load}}
        workgroupBarrier();
{{stage}}
        workgroupBarrier();
{{multiply}}
    }
{{finish}}}
