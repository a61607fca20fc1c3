//! Runs of several processes: the same as one process's, whatever happens to them.

#[cfg(feature = "mpi")]
mod machines;
#[cfg(feature = "mpi")]
#[path = "../batches/process.rs"]
mod process;
#[cfg(feature = "mpi")]
mod runs;
#[path = "../small/mod.rs"]
mod small;

#[cfg(not(feature = "mpi"))]
#[test]
#[ignore = "needs MPI: cargo test --workspace --release --features sld/mpi --test mpi"]
fn several_processes_are_as_one() {}

/// A program without MPI that is one of several would train the same run as the others, in one folder.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_process_that_cannot_meet_the_others_is_refused() {
    let folder = small::folder();
    let mut command = small::train(folder.path(), "vanilla", &[], &[]);
    let launched = command.env("OMPI_COMM_WORLD_SIZE", "2");
    small::refused(launched, &["one of 2 processes that cannot meet", "--features sld/mpi"]);
    assert!(!folder.path().join("run").exists(), "nothing was begun");
}
