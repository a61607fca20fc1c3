    for (var tap_y = 0; tap_y < {{taps_y}}; tap_y++) {
        for (var tap_x = 0; tap_x < {{taps_x}}; tap_x++) {
{{tap}}
            for (var base = {{start}}; base < {{end}}; base += {{step}}) {
{{load}}
                workgroupBarrier();
{{stage}}
                workgroupBarrier();
{{multiply}}
            }
        }
    }
