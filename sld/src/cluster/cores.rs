//! How the processes of one machine share its cores.

use anyhow::Result;

use super::processes::Cluster;

/// Cores that this process may use, if it is alone; at least one.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Cores that this process may use, where each core is shared by all processes that are bound to it; at least
/// one.
///
/// # Errors
/// The cluster's.
pub fn share(cluster: &dyn Cluster) -> Result<usize> {
    if cluster.size() == 1 {
        return Ok(available());
    }
    let own = allowed();
    let all = cluster.gather(own.clone())?;
    let neighbours: Vec<&Vec<u8>> = cluster.neighbours().into_iter().map(|rank| &all[rank]).collect();
    Ok(share_of(&own, &neighbours).min(available()).max(1))
}

/// Of cores that are bytes (1: may be used), one's own share, rounded down. Where nothing is known of cores, each
/// process has one.
fn share_of(own: &[u8], all: &[&Vec<u8>]) -> usize {
    let users = |core: usize| all.iter().filter(|mask| mask.get(core) == Some(&1)).count();
    let shares =
        own.iter().enumerate().filter(|(_, may)| **may == 1).map(|(core, _)| 1.0 / users(core).max(1) as f64);
    // (Rounding errors of thirds must not cost a core.)
    (shares.sum::<f64>() + 1e-6) as usize
}

/// A byte for each core of the machine: whether this process may use it.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<u8> {
    let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the call writes at most as many bytes as it is told that there are; zeros are a valid set.
    unsafe {
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) != 0 {
            return Vec::new();
        }
        let set = set.assume_init();
        (0..libc::CPU_SETSIZE as usize).map(|core| u8::from(libc::CPU_ISSET(core, &set))).collect()
    }
}

/// A byte for each core of the machine: whether this process may use it.
#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<u8> {
    vec![1; available()]
}

#[cfg(test)]
mod tests {
    use super::share_of;

    #[test]
    fn cores_are_shared_by_those_bound_to_them() {
        let (all, left, right) = (vec![1; 6], vec![1, 1, 1, 0, 0, 0], vec![0, 0, 0, 1, 1, 1]);
        assert_eq!(share_of(&all, &[&all]), 6);
        assert_eq!(share_of(&all, &[&all, &all, &all]), 2);
        assert_eq!(share_of(&left, &[&left, &right]), 3);
        assert_eq!(share_of(&left, &[&left, &left, &left, &right]), 1);
        assert_eq!(share_of(&left, &[&left, &left, &left, &left]), 0);
    }
}
