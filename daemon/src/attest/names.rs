//! Names of users and groups, as the host's own databases have them. Looking one up may ask a
//! directory service, so it is done on a blocking thread and kept for a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::sys::clock;

/// How long a name is taken to be true. Chosen: as short as an administrator's patience.
const FRESH_FOR: Duration = Duration::from_mins(1);
/// How many are kept, each. Chosen: no host runs that many users at once.
const KEPT: usize = 4096;

/// The names that were looked up lately.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: Known,
    groups: Known,
}

type Known = Mutex<HashMap<u32, (Duration, Option<Arc<str>>)>>;

impl Names {
    /// The name of a user; blocks.
    pub(super) fn user(&self, uid: u32) -> Option<Arc<str>> {
        look_up(&self.users, uid, || {
            let user = uzers::get_user_by_uid(uid)?;
            user.name().to_str().map(Arc::from)
        })
    }

    /// The name of a group; blocks.
    pub(super) fn group(&self, gid: u32) -> Option<Arc<str>> {
        look_up(&self.groups, gid, || {
            let group = uzers::get_group_by_gid(gid)?;
            group.name().to_str().map(Arc::from)
        })
    }
}

fn look_up(known: &Known, id: u32, ask: impl FnOnce() -> Option<Arc<str>>) -> Option<Arc<str>> {
    let now = clock::since_boot();
    let locked = || known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, name)) = locked().get(&id)
        && now.saturating_sub(*since) < FRESH_FOR
    {
        return name.clone();
    }
    let name = ask();
    let mut known = locked();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(id, (now, name.clone()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_name_and_nobody_has_none() {
        let names = Names::default();
        assert_eq!(names.user(0).as_deref(), Some("root"));
        assert_eq!(names.group(0).as_deref(), Some("root"));
        assert_eq!(names.user(4_000_000_000), None);
    }

    #[test]
    fn a_name_is_asked_for_once() {
        let known = Known::default();
        assert_eq!(look_up(&known, 1, || Some("a".into())).as_deref(), Some("a"));
        assert_eq!(look_up(&known, 1, || panic!("asked again")).as_deref(), Some("a"));
    }
}
