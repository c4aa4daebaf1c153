//! What only some kernels have. The runner asks the kernel and names the modules here that are not
//! run for want of a feature; a test that is run needs its feature and fails without it.

mod netem;
mod sctp;
