//! Why the programs could not be loaded, attached or spoken to.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What failed; start-up ends with it, and says what the operator can do.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object is refused.
    #[error(
        "cannot load the eBPF programs (needs root or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, Linux 6.1 or later)"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A program without which there is nothing is refused by the verifier, or unknown to the
    /// kernel.
    #[error("this kernel cannot run Tacit: it refuses program `{name}` ({reason})")]
    Program {
        /// Its name in the object.
        name: &'static str,
        /// The kernel's own words.
        reason: String,
        /// Why.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map is missing or of another shape.
    #[error(
        "map `{name}` cannot be used; if it was pinned by another version, `tacit uninstall` removes it"
    )]
    Map {
        /// Its name in the object.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// The kernel refuses a change of what holds.
    #[error("the kernel does not take the scopes into its map `{name}`")]
    Unwritten {
        /// Its name in the object.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// The object lacks something: it was built from other sources.
    #[error("the eBPF object has no `{0}`")]
    Missing(&'static str),
    /// The kernel's type information does not tell where a field is.
    #[error("the kernel's BTF does not describe `{0}`; the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    Offset(&'static str),
    /// A link cannot be made or replaced.
    #[error("cannot attach program `{name}`")]
    Attach {
        /// Its name in the object.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something under bpffs cannot be made, opened or removed.
    #[error("cannot use {path}")]
    Pin {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A strict scope on a kernel that lacks what keeps it.
    #[error(
        "scope `{cgroup}` is strict, which this kernel cannot keep: it refuses program `{program}`, and so {means}"
    )]
    Strict {
        /// The scope's cgroup.
        cgroup: String,
        /// The missing program.
        program: &'static str,
        /// What could happen without it.
        means: &'static str,
    },
    /// More scopes, or deeper ones, than the programs can hold.
    #[error("scope `{cgroup}`: {problem}")]
    Scope {
        /// The scope's cgroup.
        cgroup: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl From<aya::EbpfError> for LoadError {
    fn from(error: aya::EbpfError) -> Self {
        Self::Load(Box::new(error))
    }
}
