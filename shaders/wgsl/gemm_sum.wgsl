    // Four columns of a row a thread: the chunks' sums in order.
    let column = (i % {{quads}}) * 4;
    let row = (i / {{quads}}) % {{rows}};
    let z = i / {{row_quads}};
    var sum = vec4<f32>(0.0);
    for (var chunk = 0; chunk < {{chunks}}; chunk++) {
        sum += {{partials}}[chunk * {{stride}} + i];
    }
    finish4(row, z, column, sum);
