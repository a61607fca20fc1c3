//! Processes that are threads of this one.

use autograd::tensor::Transfer;
use schedule::{Communicator, PendingSum};
use sld::cluster::Cluster;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

/// Where the members of a cluster meet: threads of this process.
pub struct Hub {
    size: usize,
    meeting: Mutex<Meeting>,
    changed: Condvar,
}

#[derive(Default)]
struct Meeting {
    given: BTreeMap<usize, Vec<u8>>,
    /// What all gave, while they take it; how many still have to.
    complete: Vec<Vec<u8>>,
    left: usize,
}

impl Hub {
    pub fn new(size: usize) -> Arc<Hub> {
        Arc::new(Hub { size, meeting: Mutex::default(), changed: Condvar::new() })
    }

    fn gather(&self, rank: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut meeting = self.changed.wait_while(self.meeting.lock().unwrap(), |m| m.left > 0).unwrap();
        meeting.given.insert(rank, bytes);
        if meeting.given.len() == self.size {
            meeting.complete = std::mem::take(&mut meeting.given).into_values().collect();
            meeting.left = self.size;
            self.changed.notify_all();
        }
        let mut meeting = self.changed.wait_while(meeting, |m| m.left == 0).unwrap();
        let all = meeting.complete.clone();
        meeting.left -= 1;
        self.changed.notify_all();
        all
    }
}

/// A process of a cluster that are threads.
pub struct Member {
    pub hub: Arc<Hub>,
    pub rank: usize,
}

struct Sum(Vec<f32>);

impl PendingSum for Sum {
    fn finish(self: Box<Self>) -> autograd::Result<Vec<f32>> {
        Ok(self.0)
    }
}

impl Communicator for Member {
    fn begin_sum(&self, values: Vec<f32>, transfer: Transfer) -> autograd::Result<Box<dyn PendingSum>> {
        let rounded = |v: f32| match transfer {
            Transfer::F32 => v,
            Transfer::Bf16 => f32::from_bits((v.to_bits() + 0x8000) & 0xffff_0000),
        };
        let bytes = values.iter().flat_map(|&v| rounded(v).to_le_bytes()).collect();
        let mut sum = vec![0.0; values.len()];
        for given in self.hub.gather(self.rank, bytes) {
            let (words, _) = given.as_chunks::<4>();
            assert_eq!(words.len(), sum.len(), "all begin the same sums");
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum += f32::from_le_bytes(*word));
        }
        Ok(Box::new(Sum(sum)))
    }
}

impl Cluster for Member {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.hub.size
    }
    fn sum(&self, values: &mut [f64]) -> anyhow::Result<()> {
        let all = self.hub.gather(self.rank, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        for (at, value) in values.iter_mut().enumerate() {
            let number = |given: &Vec<u8>| f64::from_le_bytes(given.as_chunks::<8>().0[at]);
            *value = all.iter().map(number).sum();
        }
        Ok(())
    }
    fn broadcast(&self, bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        Ok(self.hub.gather(self.rank, bytes).swap_remove(0))
    }
    fn gather(&self, bytes: Vec<u8>) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.hub.gather(self.rank, bytes))
    }
    fn neighbours(&self) -> Vec<usize> {
        (0..self.hub.size).collect()
    }
    fn abandon(&self) {}
}
