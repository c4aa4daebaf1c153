//! What the daemon may still do once it stands: capabilities by a list with reasons, and system calls
//! without those that only an intruder would make. Whoever takes the daemon over has no more than
//! that. Not Landlock: a process in a Landlock domain may not look at processes outside it
//! (`/proc/PID/exe`, security/landlock/ptrace.c), which is what attestation does.

mod calls;
mod capabilities;
#[cfg(test)]
mod tests;

pub use calls::{Programs, forbid_calls};
pub use capabilities::{KEPT, KEPT_FOR_COMMANDS, KEPT_FOR_FILES, Kept, PrivilegeError, keep_only};
