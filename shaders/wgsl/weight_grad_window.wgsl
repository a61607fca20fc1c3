// The weight gradient on software drivers, see weight_grad_window.rs: a quad of lanes has four input
// channels, 16 output channels, four a lane, and all taps. It goes over tiles of {{tile_h}}x{{tile_w}} pixels
// of the gradient: the input's pixels around a tile are loaded once, one a lane, and reach the other lanes
// by broadcasts. Both operands are uniform bindings. The chunks' sums go to scratch and are added up in
// order by the last launch.

struct Params {
    // Workgroups that have work.
    count: u32,
    // Tiles of the launch's images.
    tiles: u32,
    // The first image of the launch, and of its windows.
    image: u32,
    window: u32,
    z: u32,
    block: u32,
    // The number of the launch's first chunk.
    chunk: u32,
    // Tiles of a chunk.
    chunk_tiles: u32,
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
    let row = (number % {{row_blocks}}) * 4;
    let chunk = number / {{row_blocks}};
    let z = i32(params.z);
    let column = i32(params.block) * 16 + member * 4;
{{accumulators}}
{{positions}}
    for (var i = 0; i < i32(params.chunk_tiles); i++) {
        let tile = chunk * i32(params.chunk_tiles) + i;
        let here = tile < i32(params.tiles);
        let at = select(0, tile, here);
        let n = i32(params.image) + at / {{image_tiles}};
        let top = ((at / {{row_tiles}}) % {{column_tiles}}) * {{tile_h}};
        let left = (at % {{row_tiles}}) * {{tile_w}};
{{multiply}}
    }
    if chunk < {{chunks}} {
{{finish}}    }
}
