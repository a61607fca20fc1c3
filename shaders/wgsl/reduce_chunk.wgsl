    {
    let chunk = first_chunk + {{chunk}};
    let start = chunk * {{chunk_len}};
    let end = min(start + {{chunk_len}}, {{inner_count}});
{{initial}}
    for (var j = start; j < end; j++) {
{{inner_indices}}
{{program}}
{{update}}
    }
{{finish}}    }
