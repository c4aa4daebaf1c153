//! Why a daemon does not start: each reason with what the operator can do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::admin::SocketError;
use crate::api::ApiSocketError;
use crate::audit::log::LogError;
use crate::bpf::LoadError;
use crate::federation::{CertificateError, EndpointError};
use crate::files::KnownError;
use crate::identity::CaError;
use crate::state::StateError;
use crate::sys::cgroup::CgroupError;
use crate::sys::privilege::PrivilegeError;

/// Why the daemon cannot start. Each says what the operator can do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The runtime cannot be made.
    #[error("the asynchronous runtime cannot start")]
    Runtime(#[source] io::Error),
    /// A protection of the daemon itself failed.
    #[error("the daemon cannot protect its memory from other processes")]
    Protect(#[source] io::Error),
    /// A port that anybody may ask.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// What such a port shows.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Privileges are missing, or cannot be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// No cgroup2.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// Its own cgroup.
    #[error("the daemon cannot get a cgroup of its own at {path}; it needs root")]
    Cgroup {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its own cgroup, when it is to go.
    #[error("the cgroup {path} cannot be removed; is a daemon of this instance still in it?")]
    CgroupLeft {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon of this instance.
    #[error(
        "process {pid} is in {path}: a daemon of this instance runs already; stop it, or set capture.instance"
    )]
    AlreadyRunning {
        /// Who.
        pid: u32,
        /// Its cgroup.
        path: String,
    },
    /// What earlier daemons have written to files.
    #[error(transparent)]
    Files(#[from] KnownError),
    /// The daemon that runs does not let itself be replaced.
    #[error("the daemon that runs is not replaced; it goes on")]
    NotReplaced(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon that runs is another.
    #[error(
        "the daemon that answers (process {pid}) is not replaced, and goes on: its {what} is another"
    )]
    OtherInstance {
        /// Who.
        pid: u32,
        /// What differs.
        what: &'static str,
    },
    /// The conversation with it broke off.
    #[error(
        "the daemon that runs is not replaced, and goes on: the conversation with it broke off"
    )]
    Succession(#[source] io::Error),
    /// Uninstalling under a daemon that runs.
    #[error("a daemon answers at {socket}; stop it first")]
    StillRunning {
        /// Its control socket.
        socket: PathBuf,
    },
    /// No place to pin.
    #[error("the BPF file system cannot be had at {path}; see capture.bpffs")]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A port is taken.
    #[error(
        "cannot listen on {address}; see proxy.outbound_port, proxy.inbound_port and admin.metrics_listen"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The programs.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// The embedded CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// What is kept of changes.
    #[error(transparent)]
    State(#[from] StateError),
    /// The audit log.
    #[error("the audit log cannot be opened")]
    Audit(#[source] LogError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The socket of the Workload API.
    #[error(transparent)]
    WorkloadSocket(#[from] ApiSocketError),
    /// The machine does not answer.
    #[error("{what} cannot be read")]
    Machine {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}
