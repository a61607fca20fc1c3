// An implicit matrix product on software drivers, see gemm_window.rs: a quad of lanes computes
// {{tile_h}}x{{tile_w}} neighbouring pixels of one image and 16 columns, each lane four of them. For every
// four values of k the pixels around the tile are loaded once, one a lane, and reach the quad's other
// lanes by broadcasts; all taps use them from there. The images and the packed right operand, a block of
// columns [tap][k][16], are uniform bindings.

struct Params {
    // Workgroups that have work, and their tiles.
    count: u32,
    tiles: u32,
    // The first image of the launch, and of its windows.
    image: u32,
    window: u32,
    z: u32,
    block: u32,
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
    let member = i32(lane) % 4;
    let number = i32(linear) * {{quads}} + i32(lane) / 4;
    // A quad without a tile takes part in the broadcasts all the same.
    let tile = min(number, i32(params.tiles) - 1);
    let n = i32(params.image) + tile / {{image_tiles}};
    let top = ((tile / {{row_tiles}}) % {{column_tiles}}) * {{tile_h}};
    let left = (tile % {{row_tiles}}) * {{tile_w}};
    let z = i32(params.z);
    let column = i32(params.block) * 16 + member * 4;
{{accumulators}}
{{positions}}
    for (var k = 0; k < {{k_padded}}; k += 4) {
{{multiply}}
    }
    if number < i32(params.tiles) {
{{finish}}    }
}
