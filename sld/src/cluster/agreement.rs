//! Whether all processes of a cluster are about to do the same.

use anyhow::{Result, ensure};

use super::processes::Cluster;

/// Compares what each process says of itself: pairs of a name and a value.
///
/// # Errors
/// They differ: in what, and who says what. All processes get the same error.
pub fn check(cluster: &dyn Cluster, own: &[(String, String)]) -> Result<()> {
    if cluster.size() == 1 {
        return Ok(());
    }
    let all: Vec<Vec<(String, String)>> = cluster
        .gather(serde_json::to_vec(own)?)?
        .iter()
        .map(|bytes| serde_json::from_slice(bytes))
        .collect::<Result<_, _>>()?;
    let lines = differences(&all);
    ensure!(
        lines.is_empty(),
        "the processes are not alike; nothing was changed\n{}\nstart all with the same program, config and data",
        lines.join("\n")
    );
    Ok(())
}

/// A line for each name of which not all say the same as the first.
fn differences(all: &[Vec<(String, String)>]) -> Vec<String> {
    let value = |rank: usize, name: &str| {
        let found = all[rank].iter().find(|(other, _)| other == name);
        found.map_or("nothing", |(_, value)| value)
    };
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in all.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let line = |name: &&String| {
        let other = (1..all.len()).find(|&rank| value(rank, name) != value(0, name))?;
        Some(format!("  {name}: {} on rank 0, {} on rank {other}", value(0, name), value(other, name)))
    };
    names.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn what_differs_is_named_with_both_sides() {
        let says = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let all = [
            says(&[("a", "1"), ("b", "2")]),
            says(&[("a", "1"), ("b", "2")]),
            says(&[("b", "3"), ("c", "4")]),
        ];
        assert_eq!(
            differences(&all),
            [
                "  a: 1 on rank 0, nothing on rank 2",
                "  b: 2 on rank 0, 3 on rank 2",
                "  c: nothing on rank 0, 4 on rank 2"
            ]
        );
        assert!(differences(&all[..2]).is_empty());
    }
}
