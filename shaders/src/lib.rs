//! The WGSL kernels, one file a kernel family, and their assembly.
