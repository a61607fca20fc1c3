//! The processes of a run: each trains on its part of every batch, and all make the same update.
//!
//! What trains knows processes by a number of their own, the rank, and by what they can do together
//! ([`Cluster`]). One process alone is the cluster of one.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(any(feature = "mpi", test))]
mod sums;

pub mod agreement;
pub mod cores;
mod processes;

use std::time::Duration;

use anyhow::Result;
use schedule::Alone;

pub use processes::Cluster;

/// What launchers give processes that are to meet through MPI: Open MPI's, those of MPICH and its relatives, and
/// all that speak PMIx.
const MEETING: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"];
/// Where launchers say how many processes they started.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Meets the other processes if a launcher of MPI started this one. One that does not answer for `limit` is
/// taken for dead, and all are ended.
///
/// # Errors
/// MPI cannot be started; this process is one of several that cannot meet.
pub fn join(limit: Duration) -> Result<Box<dyn Cluster>> {
    #[cfg(feature = "mpi")]
    if MEETING.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(Box::new(mpi::Mpi::join(limit)?));
    }
    let _ = (limit, MEETING);
    let size = SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
    let remedy = match cfg!(feature = "mpi") {
        true => {
            "start them by the launcher of the MPI that this program was built with (Slurm: srun --mpi=pmix)"
        }
        false => "build it with MPI: cargo build --release --workspace --features sld/mpi",
    };
    anyhow::ensure!(
        size.unwrap_or(1) < 2,
        "this is one of {} processes that cannot meet: each would train alone, in one folder; {remedy} (see \
         docs/cluster.md)",
        size.unwrap_or(1)
    );
    Ok(Box::new(Alone))
}
