//! Two nodes with two daemons, and programs that know nothing of either. Judged from outside:
//! by what the programs saw, what the wire carried and what the audit logs say.
//!
//! Each test makes its own lab and takes it away. Start with `programs.rs`.

mod absence;
mod aftermath;
mod attribution;
mod authorities;
mod bypasses;
mod denials;
mod denied;
mod endpoints;
mod expiry;
mod families;
mod fast_open;
mod federation;
mod fetched;
mod files;
mod flood;
mod full;
mod full_disk;
mod listeners;
mod live_entries;
mod mode_change;
mod observed;
mod one_host;
mod original_destination;
mod overload;
mod payload;
mod permissive;
mod policy;
mod ports;
mod privilege;
mod programs;
mod reloads;
mod scope_changes;
mod scopes;
mod server_names;
mod shared_listeners;
mod signs_of_life;
mod silent_peers;
mod strict;
mod transports;
