    let slot = lane * {{across}} + column;
{{store}}
    for (var distance = {{half}}; distance > 0; distance /= 2) {
        workgroupBarrier();
        if lane < distance {
            let other = slot + distance * {{across}};
{{merge}}
{{store}}
        }
    }
