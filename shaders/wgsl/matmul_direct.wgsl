    // One element of [batch, m, n] a thread.
    let n = i % {{n}};
    let m = (i / {{n}}) % {{m}};
    let z = i / {{mn}};
    var sum = 0.0;
    for (var k = 0; k < {{k}}; k++) {
        sum += lhs(z, m, k) * rhs(z, k, n);
    }
    finish(z, m, n, sum);
