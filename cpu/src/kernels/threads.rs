//! A small thread pool for many short parallel loops.
//!
//! A training step is a few hundred loops of tens to hundreds of microseconds, so what matters is
//! how fast a loop starts and ends. Workers spin for a short while after each loop before they
//! sleep, and a loop ends as soon as its last task does, whether or not every worker has woken.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the spin loop before a worker sleeps: about 50 microseconds.
const SPINS: u32 = 2000;

type Task<'a> = &'a (dyn Fn(usize, usize) + Sync);

struct Job<'a> {
    task: Task<'a>,
    tasks: usize,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// The loop that runs, and the threads that wait for the next.
struct Queue {
    /// Number of the loop in the high half, tasks not yet claimed in the low half.
    state: AtomicU64,
    /// The current loop; valid while any of its tasks is unfinished.
    job: AtomicPtr<Job<'static>>,
    unfinished: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// A fixed set of threads, the caller's among them.
pub struct ThreadPool {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

thread_local! {
    /// This thread's number while it runs a task.
    static INSIDE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl ThreadPool {
    /// A pool of `threads` threads in all (at least one). Where the system refuses a thread, the
    /// pool is that much smaller.
    pub fn new(threads: usize) -> ThreadPool {
        let queue = Arc::new(Queue {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            unfinished: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|index| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().name(format!("cpu-{index}")).spawn(move || queue.work(index)).ok()
            })
            .collect();
        ThreadPool { queue, workers, caller: Mutex::new(()) }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(index, thread)` for every index below `tasks`, each exactly once, and returns
    /// when all are done. `thread` is below [`ThreadPool::threads`], and no two tasks run at once with
    /// the same one. Tasks are handed out in order, to whichever thread is free.
    ///
    /// A call from within a task runs on that thread alone. A panic in a task is passed on when
    /// the loop is over.
    pub fn run(&self, tasks: usize, task: Task<'_>) {
        if let Some(thread) = INSIDE.get() {
            // Inside a task of another pool, that one's numbers may be too large for this.
            let thread = if self.workers.is_empty() { 0 } else { thread };
            return (0..tasks).for_each(|index| task(index, thread));
        }
        if tasks == 0 {
            return;
        }
        let guard = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        let job = Job { task, tasks, panic: Mutex::new(None) };
        let queue = &*self.queue;
        if self.workers.is_empty() || tasks == 1 {
            for index in 0..tasks {
                job.call(index, 0);
            }
        } else {
            assert!(tasks <= u32::MAX as usize);
            // The lifetime is erased: workers touch the job only while they hold one of its tasks,
            // and this function does not return before all of those are finished.
            queue.job.store((&raw const job).cast_mut().cast(), Relaxed);
            queue.unfinished.store(tasks, Relaxed);
            let number = (queue.state.load(Relaxed) >> 32).wrapping_add(1);
            queue.state.store(number << 32 | tasks as u64, SeqCst);
            if queue.sleepers.load(SeqCst) > 0 {
                drop(queue.lock.lock().unwrap_or_else(PoisonError::into_inner));
                queue.wake.notify_all();
            }
            while queue.claim(0) {}
            let mut spins = 0;
            while queue.unfinished.load(Acquire) > 0 {
                spin(&mut spins);
            }
        }
        let panic = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.queue.stop.store(true, SeqCst);
        drop(self.queue.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.queue.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panics were already passed on by `run`.
            let _ = worker.join();
        }
    }
}

impl Job<'_> {
    fn call(&self, index: usize, thread: usize) {
        INSIDE.set(Some(thread));
        let result = catch_unwind(AssertUnwindSafe(|| (self.task)(index, thread)));
        INSIDE.set(None);
        if let Err(panic) = result {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

impl Queue {
    /// Takes a task of the current loop and runs it; false when none is left.
    fn claim(&self, thread: usize) -> bool {
        let mut state = self.state.load(Acquire);
        loop {
            if state as u32 == 0 {
                return false;
            }
            match self.state.compare_exchange_weak(state, state - 1, AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: the claimed task is unfinished, so `run` has not returned and the job is alive.
        let job = unsafe { &*self.job.load(Relaxed) };
        job.call(job.tasks - state as u32 as usize, thread);
        self.unfinished.fetch_sub(1, Release);
        true
    }

    fn work(&self, thread: usize) {
        let mut spins = 0;
        loop {
            if self.claim(thread) {
                spins = 0;
            } else if self.stop.load(Relaxed) {
                return;
            } else if spins < SPINS {
                spin(&mut spins);
            } else {
                let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleepers.fetch_add(1, SeqCst);
                let idle = |_: &mut ()| self.state.load(SeqCst) as u32 == 0 && !self.stop.load(SeqCst);
                drop(self.wake.wait_while(guard, idle));
                self.sleepers.fetch_sub(1, SeqCst);
                spins = 0;
            }
        }
    }
}

/// One turn of a waiting loop. Gives the processor away now and then, so that waiting does not
/// starve the thread waited for where there are more threads than cores.
fn spin(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(256) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_threads_do_not_collide() {
        let pool = ThreadPool::new(3);
        let busy: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
        for tasks in [0, 1, 2, 3, 7, 100] {
            for _ in 0..200 {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|index, thread| {
                    assert!(!busy[thread].swap(true, SeqCst), "two tasks on thread {thread}");
                    counts[index].fetch_add(1, SeqCst);
                    busy[thread].store(false, SeqCst);
                });
                assert!(counts.iter().all(|c| c.load(SeqCst) == 1));
            }
        }
    }

    #[test]
    fn a_loop_inside_a_task_runs_on_its_thread() {
        let pool = ThreadPool::new(2);
        let count = AtomicUsize::new(0);
        pool.run(4, &|_, outer| {
            pool.run(5, &|_, inner| {
                assert_eq!(outer, inner);
                count.fetch_add(1, SeqCst);
            })
        });
        assert_eq!(count.load(SeqCst), 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = ThreadPool::new(2);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(8, &|index, _| assert_ne!(index, 5, "task five"));
        }));
        assert!(result.is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, &|_, _| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.load(SeqCst), 8);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = ThreadPool::new(2);
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(3));
            let seen = [const { AtomicBool::new(false) }; 2];
            // Each task waits for the other, so both threads must take part.
            pool.run(2, &|index, _| {
                seen[index].store(true, SeqCst);
                while !seen[1 - index].load(SeqCst) {
                    std::thread::yield_now();
                }
            });
        }
    }
}
