//! Identities over an issuer whose failures and whose clock the test decides; the CA on real files.

mod ca;
mod clocks;
mod jwt;
mod renewal;
mod rotation;
mod stage;
