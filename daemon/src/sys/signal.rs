#![expect(unsafe_code, reason = "pidfd_send_signal has no safe wrapper")]
//! Signals to programs that are told to look again, as one user might send them: only a process of
//! that user gets one, and only the process that was looked at.

use std::io;
use std::os::fd::AsRawFd as _;

use super::sockets::pidfd_open;
use super::task::Task;
use crate::workload::ReloadSignal;

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The process has it.
    Yes,
    /// There is no such process.
    NoProcess,
    /// The process is of this user.
    Foreign(u32),
}

/// Sends a signal to a process, if its real user is this one (Linux 5.3).
///
/// # Errors
/// The system's.
pub fn send(pid: u32, uid: u32, signal: ReloadSignal) -> io::Result<Sent> {
    let process = match pidfd_open(pid) {
        Ok(process) => process,
        // `EINVAL`: the pid of a thread, or 0.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
            return Ok(Sent::NoProcess);
        }
        Err(error) => return Err(error),
    };
    // Read after the process was pinned. If it exits and its pid is used again in between, the
    // signal goes to the one that was pinned: to nobody.
    let Some(task) = Task::open(pid)? else { return Ok(Sent::NoProcess) };
    let Some(credentials) = task.credentials()? else { return Ok(Sent::NoProcess) };
    if credentials.real_uid != uid {
        return Ok(Sent::Foreign(credentials.real_uid));
    }
    let number = match signal {
        ReloadSignal::Hup => libc::SIGHUP,
        ReloadSignal::Usr1 => libc::SIGUSR1,
        ReloadSignal::Usr2 => libc::SIGUSR2,
        ReloadSignal::Term => libc::SIGTERM,
        ReloadSignal::Int => libc::SIGINT,
        ReloadSignal::Quit => libc::SIGQUIT,
        ReloadSignal::Winch => libc::SIGWINCH,
    };
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the whole call, and a null `siginfo` means the default.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, no_info, 0)
    };
    if sent == 0 {
        return Ok(Sent::Yes);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(Sent::NoProcess),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_process_of_that_user_gets_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = nix::unistd::getuid().as_raw();
        let sent = send(child.id(), own + 1, ReloadSignal::Term).unwrap();
        assert_eq!(sent, Sent::Foreign(own));
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(send(child.id(), own, ReloadSignal::Usr1).unwrap(), Sent::Yes);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGUSR1));
        assert_eq!(send(child.id(), own, ReloadSignal::Usr1).unwrap(), Sent::NoProcess);
    }
}
