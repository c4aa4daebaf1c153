//! Chains that are right, and chains with one thing wrong: each is refused for that thing.

mod chains;
mod leaves;
mod pki;
