//! The native device: runs a schedule on all cores.
