//! Clusters of processes that an MPI launcher started.
//!
//! One thread talks to MPI, so that sums are under way while the device computes. Everybody else hands it work.
//! It never waits without end: a process that does not answer in time is named, and all are ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use autograd::tensor::Transfer;
use mpi::Threading;
use mpi::datatype::PartitionMut;
use mpi::request::{self, LocalScope, Request};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives, Destination, Equivalence, Root, Source};
use schedule::{Communicator, PendingSum};

use super::processes::Cluster;
use super::sums::{self, Bf16, Number};
use crate::cli::output::last_words;

/// Elements up to which a sum is made of one message to each process.
const FEW: usize = 1 << 13;
/// How long a waiting thread stays awake before it sleeps between looks.
const AWAKE: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_micros(50);
/// How long those that gave up waiting are listened to, to find out who did not.
const INQUEST: Duration = Duration::from_secs(3);
/// Marks the message of a process that gave up waiting.
const GAVE_UP: i32 = 7;
/// How an ended program ends.
const FAILURE: i32 = 1;

/// This process among those that the launcher started.
pub struct Mpi {
    facts: Facts,
    /// Dropped before the thread is joined.
    jobs: Option<Sender<Job>>,
    abandoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Facts {
    rank: usize,
    size: usize,
    /// The ranks on this machine.
    neighbours: Vec<usize>,
}

type Job = Box<dyn FnOnce(&World) + Send>;

impl Mpi {
    /// Meets the others. A process that does not answer for `limit` is taken for dead.
    ///
    /// # Errors
    /// MPI cannot be started.
    pub fn join(limit: Duration) -> Result<Mpi> {
        let (jobs, inbox) = channel::<Job>();
        let (tell, told) = channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&abandoned);
        let serve = move || {
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = World { comm: universe.world(), limit, abandoned: flag };
            if tell.send(world.facts()).is_ok() {
                inbox.iter().for_each(|job| job(&world));
            }
        };
        let thread =
            std::thread::Builder::new().name("mpi".into()).spawn(serve).context("a thread for MPI")?;
        let facts = told.recv().map_err(|_| anyhow!("MPI could not be started"))?;
        Ok(Mpi { facts, jobs: Some(jobs), abandoned, thread: Some(thread) })
    }

    /// Has the thread do something.
    fn begin<T: Send + 'static>(&self, work: impl FnOnce(&World) -> T + Send + 'static) -> Receiver<T> {
        let (tell, told) = channel();
        if let Some(jobs) = &self.jobs {
            // If the thread is gone, so is `tell`, which the receiver notices.
            jobs.send(Box::new(move |world| drop(tell.send(work(world))))).ok();
        }
        told
    }

    fn done<T>(told: &Receiver<T>) -> Result<T> {
        told.recv().map_err(|_| anyhow!("the thread that talks to the other processes has ended"))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was reported already.
            thread.join().ok();
        }
    }
}

/// A sum that the thread is making.
struct UnderWay(Receiver<Vec<f32>>);

impl PendingSum for UnderWay {
    fn finish(self: Box<Self>) -> autograd::Result<Vec<f32>> {
        Mpi::done(&self.0).map_err(|why| autograd::Error::Device(why.to_string()))
    }
}

impl Communicator for Mpi {
    fn begin_sum(&self, values: Vec<f32>, transfer: Transfer) -> autograd::Result<Box<dyn PendingSum>> {
        let told = match transfer {
            Transfer::F32 => self.begin(move |world| world.sum(values)),
            Transfer::Bf16 => self.begin(move |world| {
                let rounded: Vec<u16> = values.iter().map(|&v| Bf16::narrow(v)).collect();
                world.sum_of::<Bf16>(rounded).into_iter().map(Bf16::widen).collect()
            }),
        };
        Ok(Box::new(UnderWay(told)))
    }
}

impl Cluster for Mpi {
    fn rank(&self) -> usize {
        self.facts.rank
    }
    fn size(&self) -> usize {
        self.facts.size
    }
    fn neighbours(&self) -> Vec<usize> {
        self.facts.neighbours.clone()
    }
    fn sum(&self, values: &mut [f64]) -> Result<()> {
        let own = values.to_vec();
        values.copy_from_slice(&Mpi::done(&self.begin(move |world| world.sum(own)))?);
        Ok(())
    }
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Mpi::done(&self.begin(move |world| world.broadcast(bytes)))
    }
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Mpi::done(&self.begin(move |world| world.gather(&bytes)))
    }
    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // Whatever the thread is at: this comes next.
        let told = self.begin(|world| world.comm.abort(FAILURE));
        told.recv().ok();
    }
}

/// MPI, as its thread sees it.
struct World {
    comm: SimpleCommunicator,
    limit: Duration,
    abandoned: Arc<AtomicBool>,
}

impl World {
    fn facts(&self) -> Facts {
        let machine = self.comm.split_shared(self.comm.rank());
        let mut ranks = vec![0i32; machine.size() as usize];
        machine.all_gather_into(&self.comm.rank(), &mut ranks[..]);
        Facts {
            rank: self.comm.rank() as usize,
            size: self.size(),
            neighbours: ranks.into_iter().map(|rank| rank as usize).collect(),
        }
    }

    fn size(&self) -> usize {
        self.comm.size() as usize
    }

    /// The sum over all processes of numbers that travel as they are.
    fn sum<N: Number<Wire = N> + Equivalence>(&self, values: Vec<N>) -> Vec<N> {
        self.sum_of::<N>(values)
    }

    /// The sum over all processes, made in the order of ranks, so that it is the same bits wherever, whenever
    /// and by whatever MPI it is made: each process sums a part of all vectors, then all exchange these.
    fn sum_of<N: Number>(&self, mut values: Vec<N::Wire>) -> Vec<N::Wire>
    where
        N::Wire: Equivalence,
    {
        let size = self.size();
        if values.len() <= FEW {
            let mut all = vec![N::Wire::default(); size * values.len()];
            request::scope(|scope| {
                self.wait(self.comm.immediate_all_gather_into(scope, &values[..], &mut all[..]));
            });
            return sums::in_order::<N>(&all, size);
        }
        let len = values.len();
        values.resize(len.next_multiple_of(size), N::Wire::default());
        let mut own = vec![N::Wire::default(); values.len()];
        request::scope(|scope| {
            self.wait(self.comm.immediate_all_to_all_into(scope, &values[..], &mut own[..]));
        });
        let own = sums::in_order::<N>(&own, size);
        request::scope(|scope| {
            self.wait(self.comm.immediate_all_gather_into(scope, &own[..], &mut values[..]));
        });
        values.truncate(len);
        values
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let root = self.comm.process_at_rank(0);
        let mut len = bytes.len() as u64;
        request::scope(|scope| self.wait(root.immediate_broadcast_into(scope, &mut len)));
        bytes.resize(len as usize, 0);
        // MPI counts in 32 bits.
        for piece in bytes.chunks_mut(1 << 30) {
            request::scope(|scope| self.wait(root.immediate_broadcast_into(scope, piece)));
        }
        bytes
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lens = vec![0i32; self.size()];
        let len = bytes.len() as i32;
        request::scope(|scope| self.wait(self.comm.immediate_all_gather_into(scope, &len, &mut lens[..])));
        let starts: Vec<i32> = lens
            .iter()
            .scan(0, |next, &len| {
                *next += len;
                Some(*next - len)
            })
            .collect();
        let mut all = vec![0u8; lens.iter().map(|&len| len as usize).sum()];
        let mut parts = PartitionMut::new(&mut all[..], &lens[..], &starts[..]);
        request::scope(|scope| {
            self.wait(self.comm.immediate_all_gather_varcount_into(scope, bytes, &mut parts));
        });
        let part = |(&start, &len): (&i32, &i32)| all[start as usize..(start + len) as usize].to_vec();
        starts.iter().zip(&lens).map(part).collect()
    }

    /// Waits until a meeting of all processes is over. Ends all of them if somebody does not come.
    fn wait<'a, D: ?Sized>(&self, mut meeting: Request<'a, D, &LocalScope<'a>>) {
        let begun = Instant::now();
        loop {
            meeting = match meeting.test() {
                Ok(_) => return,
                Err(unfinished) => unfinished,
            };
            if self.abandoned.load(Ordering::Relaxed) {
                self.comm.abort(FAILURE);
            }
            let waited = begun.elapsed();
            if waited > self.limit {
                self.give_up();
            }
            if waited < AWAKE { std::thread::yield_now() } else { std::thread::sleep(NAP) }
        }
    }

    /// Says who did not come and ends all processes. Those that wait tell rank 0, who names the others; if it
    /// does not, it is the one.
    fn give_up(&self) -> ! {
        let (rank, first) = (self.comm.rank(), self.comm.process_at_rank(0));
        let limit = self.limit.as_secs();
        let mut waiting = vec![rank];
        let begun = Instant::now();
        if rank != 0 {
            first.send_with_tag(&rank, GAVE_UP);
        }
        while begun.elapsed() < if rank == 0 { INQUEST } else { 3 * INQUEST } {
            // (Looking also moves messages that are under way.)
            if let Some((message, _)) = self.comm.any_process().immediate_matched_probe_with_tag(GAVE_UP) {
                waiting.push(message.matched_receive::<i32>().0);
            }
            std::thread::sleep(NAP);
        }
        let silent: Vec<String> =
            (0..self.comm.size()).filter(|r| !waiting.contains(r)).map(|r| r.to_string()).collect();
        let who = if rank == 0 { silent.join(", ") } else { "0".into() };
        last_words(format_args!(
            "error: rank {who} has not answered for {limit} s: all processes are ended; go on from the last \
             checkpoint with --resume (if it was only slow, give more time with --rank-timeout)"
        ));
        self.comm.abort(FAILURE)
    }
}
