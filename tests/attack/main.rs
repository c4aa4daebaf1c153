//! Attacks. Each row of docs/attacks.md is tried against the daemon as shipped, where it must fail,
//! and in a control run without the countermeasure, where it must be seen to work.
//!
//! One file per thing attacked. `row.rs` judges and publishes; `switches.rs` says how a
//! countermeasure is taken away. The attackers themselves are scripts in `tricks/`.

mod boundaries;
mod control;
mod identity;
mod leaks;
mod listeners;
mod older_sockets;
mod proxy_ports;
mod row;
mod scope;
mod switches;
mod tricks;
