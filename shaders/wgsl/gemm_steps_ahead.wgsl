    // What is staged next is on its way while what was staged last is multiplied. The other half of workgroup
    // memory takes it, so one barrier a step is enough.
    var step = 0;
    for (var tap_y = 0; tap_y < {{taps_y}}; tap_y++) {
        for (var tap_x = 0; tap_x < {{taps_x}}; tap_x++) {
{{tap}}
            for (var base = {{start}}; base < {{end}}; base += {{step}}) {
{{load}}
{{multiply}}
                step++;
{{stage}}
                workgroupBarrier();
            }
        }
    }
{{multiply}}
