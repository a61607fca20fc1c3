//! What the processes of a cluster can do together.

use anyhow::Result;
use schedule::{Alone, Communicator};

/// The processes that run together. All of them call the same functions in the same order.
pub trait Cluster: Communicator {
    /// This process's number, from 0. Rank 0 talks to people and writes files.
    fn rank(&self) -> usize;
    /// Number of processes.
    fn size(&self) -> usize;
    /// The ranks of the processes on this machine, this one included, ascending.
    fn neighbours(&self) -> Vec<usize>;
    /// Sums each number over all processes.
    ///
    /// # Errors
    /// As for all of these functions: a process ended, or does not answer.
    fn sum(&self, values: &mut [f64]) -> Result<()>;
    /// Everybody gets what rank 0 gives.
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>>;
    /// What each process gives, by rank.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Whether this process is the one that talks and writes.
    fn leads(&self) -> bool {
        self.rank() == 0
    }
    /// Ends all processes, because this one cannot go on.
    fn abandon(&self);
}

impl Cluster for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn sum(&self, _: &mut [f64]) -> Result<()> {
        Ok(())
    }
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(bytes)
    }
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }
    fn neighbours(&self) -> Vec<usize> {
        vec![0]
    }
    fn abandon(&self) {}
}
