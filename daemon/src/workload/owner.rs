//! A user and group that something belongs to, and the signals by which such programs are told to
//! look again.

use std::fmt;

/// Whose a file or a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// A signal by which programs take up new files. None that cannot be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadSignal {
    /// Most daemons reload on it.
    Hup,
    /// Reload in some, reopening of logs in others.
    Usr1,
    /// Reload in `HAProxy`'s master.
    Usr2,
    /// A supervisor starts the program anew.
    Term,
    /// As `Term`.
    Int,
    /// A graceful end in nginx.
    Quit,
    /// A graceful end of workers in nginx and Apache.
    Winch,
}

impl ReloadSignal {
    /// Its name, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hup => "SIGHUP",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Winch => "SIGWINCH",
        }
    }
}
