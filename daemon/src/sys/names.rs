//! Names of users and groups, as the host's own databases have them. Asking may take long.

use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// The name of a user; none if there is none, or it is no text.
///
/// # Errors
/// The databases cannot say whether it has one.
pub fn of_user(uid: u32) -> io::Result<Option<String>> {
    let user = found(User::from_uid(Uid::from_raw(uid)))?;
    Ok(user.map(|user| user.name))
}

/// The name of a group; as [`of_user`].
///
/// # Errors
/// As [`of_user`].
pub fn of_group(gid: u32) -> io::Result<Option<String>> {
    let group = found(Group::from_gid(Gid::from_raw(gid)))?;
    Ok(group.map(|group| group.name))
}

/// Some databases say by an error that there is none. Source: getpwnam(3), "ERRORS".
fn found<T>(said: nix::Result<Option<T>>) -> io::Result<Option<T>> {
    match said {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        said => Ok(said?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_a_number_out_of_the_blue_has_none() {
        assert_eq!(of_user(0).unwrap().as_deref(), Some("root"));
        assert_eq!(of_group(0).unwrap().as_deref(), Some("root"));
        assert_eq!(of_user(4_000_000_000).unwrap(), None);
        assert_eq!(of_group(4_000_000_000).unwrap(), None);
    }

    #[test]
    fn a_database_that_fails_does_not_say_that_there_is_none() {
        assert_eq!(found::<()>(Err(Errno::ENOENT)).unwrap(), None);
        for fails in [Errno::EAGAIN, Errno::EIO, Errno::EMFILE, Errno::ENOMEM, Errno::EINTR] {
            assert!(found::<()>(Err(fails)).is_err(), "{fails}");
        }
    }
}
