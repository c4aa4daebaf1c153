//! How a command can fail, and the exit code that says so to scripts.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use super::entries::SpireError;
use crate::audit::log::QueryError;
use crate::config::Problems;
use crate::identity::CaError;

/// Exit codes. Public, and told by `tacit --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Success,
    /// It failed; or it worked, and what it found is not well (`status`, `doctor`).
    Failure,
    /// The command line is wrong.
    Usage,
    /// The configuration is not valid.
    ConfigInvalid,
    /// No daemon answers.
    DaemonUnreachable,
    /// The audit log was tampered with.
    VerificationFailed,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The configuration.
    #[error("the configuration is not valid:\n{0}")]
    Config(Problems),
    /// Nobody serves the socket.
    #[error(
        "no daemon answers at {socket}; is `tacit run` running, and is this its socket \
         (--socket)?"
    )]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("the control socket {0} is for root only; try again with sudo")]
    Forbidden(PathBuf),
    /// The daemon answered with an error.
    #[error("{0}")]
    Refused(String),
    /// The daemon and this command do not understand each other.
    #[error("the daemon's answer cannot be read; is it of another version?")]
    Unreadable(#[source] serde_json::Error),
    /// The conversation with the daemon broke off.
    #[error("the daemon did not answer")]
    Broken(#[source] hyper::Error),
    /// It took too long.
    #[error("the daemon did not answer in time")]
    TimedOut,
    /// The audit log.
    #[error("the audit log {0} cannot be read")]
    Log(PathBuf, #[source] io::Error),
    /// There is none.
    #[error(
        "there is no audit log at {0}; say where it is with --log (`audit.path` in the configuration)"
    )]
    NoLog(PathBuf),
    /// The key to verify it with.
    #[error("the public key {0} cannot be read")]
    Key(PathBuf, #[source] io::Error),
    /// A file to be read.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file to be written.
    #[error("{} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A file of SPIRE's entries.
    #[error("{} cannot be imported; nothing was changed", .0.display())]
    Spire(PathBuf, #[source] SpireError),
    /// The embedded CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A filter.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Standard output, or the runtime.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

impl Fault {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::ConfigInvalid,
            Self::Unreachable { .. } | Self::Forbidden(_) => Exit::DaemonUnreachable,
            Self::Query(_) => Exit::Usage,
            // A reader that has seen enough (`| head`) is no failure.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Refused(_)
            | Self::Unreadable(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::Log(..)
            | Self::NoLog(_)
            | Self::Key(..)
            | Self::Read(..)
            | Self::Write(..)
            | Self::Spire(..)
            | Self::Ca(_)
            | Self::Io(_) => Exit::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::ConfigInvalid => 3,
            Exit::DaemonUnreachable => 4,
            Exit::VerificationFailed => 5,
        })
    }
}
