    // One weight a thread: the chunks' sums in order.
    let s = i % {{kw}};
    let r = (i / {{kw}}) % {{kh}};
    let ci = (i / {{taps}}) % {{group_in}};
    let co = i / {{group_weights}};
    var sum = 0.0;
    for (var chunk = 0; chunk < {{chunks}}; chunk++) {
        sum += {{partials}}[chunk * {{weights}} + i];
    }
    finish(co, ci, r, s, sum);
