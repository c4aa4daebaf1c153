//! One daemon takes the place of another, as serde sees it; field names are public.

use serde::{Deserialize, Serialize};

/// A process that wants to take the daemon's place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    /// Its version.
    pub version: String,
    /// The version of the contract between its programs and itself.
    pub abi_version: u32,
}

/// It may try; the daemon goes on until it has succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacing {
    /// Pid of the daemon.
    pub pid: u32,
}
