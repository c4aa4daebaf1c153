//! Never in the clear, never stuck: death, restart and upgrade of the daemon under load. Judged by
//! what applications noticed, what the wire carried and what the audit logs say.

mod kept;
mod kills;
mod load;
mod replaced;
mod unkept;
