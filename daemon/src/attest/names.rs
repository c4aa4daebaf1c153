//! Names of users and groups, as the host's own databases have them. Looking one up may ask a
//! directory service, which may not answer: each is asked for on a thread of its own, waited for
//! only so long, and kept for a minute. Whoever waits for one name holds up no other.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::sys::names;

/// How long a name is taken to be true. Chosen: as short as an administrator's patience.
const FRESH_FOR: Duration = Duration::from_mins(1);
/// How many are kept, each. Chosen: no host runs that many users at once.
const KEPT: usize = 4096;
/// Names that may be asked for at one time. Chosen: those that hang leave threads for others.
const AT_ONCE: usize = 32;

/// The name of an id; none if there is none.
type Name = Option<Arc<str>>;

/// The names that were looked up lately.
#[derive(Debug)]
pub(super) struct Names {
    patience: Duration,
    users: Known,
    groups: Known,
    threads: Arc<Semaphore>,
}

/// The names of one process's user and groups.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Of the user.
    pub(super) user: Name,
    /// Of those groups that have one.
    pub(super) groups: BTreeMap<u32, Arc<str>>,
    /// Nobody said in time what the user is called.
    pub(super) user_unsaid: bool,
    /// Nobody said in time what one of the groups is called.
    pub(super) groups_unsaid: bool,
}

type Known = Mutex<HashMap<u32, Asked>>;

/// A name that was asked for, and its answer once there is one.
#[derive(Debug)]
struct Asked {
    since: Instant,
    answer: Answer,
}

type Answer = watch::Receiver<Option<Told>>;

/// What the host's databases said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told(Name);

/// What is remembered of a name.
enum Recalled {
    /// It is known, or on its way.
    Answer(Answer),
    /// It was asked for, and nobody has answered for too long.
    Silence,
    /// It is to be asked for.
    Nothing,
}

impl Names {
    /// No names yet; those of one process may take so long together.
    pub(super) fn new(patience: Duration) -> Self {
        let threads = Arc::new(Semaphore::new(AT_ONCE));
        Self { patience, users: Known::default(), groups: Known::default(), threads }
    }

    /// The names of a user and of groups. Without an answer in time a name is missing, and it is
    /// said so: whether the selector holds that would carry it is not known.
    ///
    /// # Cancel safety
    /// Cancel safe; what was asked is kept when it is answered.
    pub(super) async fn of(&self, uid: u32, gids: impl IntoIterator<Item = u32>) -> Named {
        let until = Instant::now() + self.patience;
        let user = self.look_up(&self.users, uid, until, user_name).await;
        let mut named = Named { user_unsaid: user.is_none(), ..Named::default() };
        named.user = user.and_then(|Told(name)| name);
        for gid in gids {
            match self.look_up(&self.groups, gid, until, group_name).await {
                Some(Told(name)) => named.groups.extend(name.map(|name| (gid, name))),
                None => named.groups_unsaid = true,
            }
        }
        named
    }

    async fn look_up(
        &self,
        known: &Known,
        id: u32,
        until: Instant,
        ask: impl FnOnce(u32) -> Option<Told> + Send + 'static,
    ) -> Option<Told> {
        let mut answer = match self.recall(known, id) {
            Recalled::Answer(answer) => answer,
            Recalled::Silence => return None,
            Recalled::Nothing => self.ask(known, id, until, ask).await?,
        };
        let answered = timeout_at(until, answer.wait_for(Option::is_some)).await;
        if answered.is_err() {
            tracing::warn!(
                id,
                "the name of a user or group is not told in time; who may need it for an identity has none"
            );
        }
        answered.ok()?.ok()?.clone()
    }

    /// Asks on a thread of its own; none if no thread is free in time. It is not waited for beyond our
    /// patience: a name that comes late is kept.
    async fn ask(
        &self,
        known: &Known,
        id: u32,
        until: Instant,
        ask: impl FnOnce(u32) -> Option<Told> + Send + 'static,
    ) -> Option<Answer> {
        let thread = timeout_at(until, Arc::clone(&self.threads).acquire_owned()).await;
        let thread = thread.ok()?.ok()?;
        let (tell, answer) = watch::channel(None);
        remember(known, id, answer.clone());
        let _detached = tokio::task::spawn_blocking(move || {
            if let Some(told) = ask(id) {
                tell.send_replace(Some(told));
            }
            drop(thread);
        });
        Some(answer)
    }

    fn recall(&self, known: &Known, id: u32) -> Recalled {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = known.get(&id) else { return Recalled::Nothing };
        let age = asked.since.elapsed();
        if asked.answer.borrow().is_some() {
            let is_fresh = age < FRESH_FOR;
            return if is_fresh {
                Recalled::Answer(asked.answer.clone())
            } else {
                Recalled::Nothing
            };
        }
        // A thread that is gone without an answer: it is asked again.
        if asked.answer.has_changed().is_err() {
            return Recalled::Nothing;
        }
        if age < self.patience { Recalled::Answer(asked.answer.clone()) } else { Recalled::Silence }
    }
}

fn remember(known: &Known, id: u32, answer: Answer) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= KEPT {
        known.retain(|_, asked| asked.answer.borrow().is_none());
    }
    known.insert(id, Asked { since: Instant::now(), answer });
}

fn user_name(uid: u32) -> Option<Told> {
    told("user", uid, names::of_user(uid))
}

fn group_name(gid: u32) -> Option<Told> {
    told("group", gid, names::of_group(gid))
}

/// An error is no answer: it may have a name.
fn told(what: &str, id: u32, said: io::Result<Option<String>>) -> Option<Told> {
    match said {
        Ok(name) => Some(Told(name.map(Arc::from))),
        Err(error) => {
            tracing::warn!(what, id, %error, "its name cannot be looked up; who may need it for an identity has none");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(Duration::from_millis(300))
    }

    fn said(name: &str) -> Told {
        Told(Some(name.into()))
    }

    fn soon(names: &Names) -> Instant {
        Instant::now() + names.patience
    }

    #[tokio::test]
    async fn root_has_its_name_and_nobody_has_none() {
        let names = names();
        let root = names.of(0, [0, 4_000_000_000]).await;
        assert_eq!(root.user.as_deref(), Some("root"));
        assert_eq!(root.groups, BTreeMap::from([(0, Arc::from("root"))]));
        let nobody = names.of(4_000_000_000, []).await;
        assert!(nobody.user.is_none() && !nobody.user_unsaid && !root.groups_unsaid);
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once() {
        let (names, known) = (names(), Known::default());
        let first = names.look_up(&known, 1, soon(&names), |_| Some(said("a"))).await;
        let again = names.look_up(&known, 1, soon(&names), |_| panic!("asked again")).await;
        assert_eq!((first, again), (Some(said("a")), Some(said("a"))));
    }

    #[tokio::test]
    async fn a_directory_that_hangs_holds_up_nobody_else() {
        let (names, known) = (names(), Known::default());
        let hang = |_| {
            std::thread::sleep(Duration::from_secs(1));
            Some(said("late"))
        };
        // More of them than may be asked at one time leave room for others, since each is asked once.
        for _ in 0..2 * AT_ONCE {
            assert_eq!(names.look_up(&known, 1, soon(&names), hang).await, None);
        }
        let began = Instant::now();
        let other = names.look_up(&known, 2, soon(&names), |_| Some(said("b"))).await;
        assert_eq!(other, Some(said("b")));
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        let mut late = None;
        while late.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            late = names.look_up(&known, 1, soon(&names), |_| panic!("asked again")).await;
        }
        assert_eq!(late, Some(said("late")), "what comes late is kept");
    }

    #[tokio::test]
    async fn a_directory_that_fails_is_asked_again() {
        let (names, known) = (names(), Known::default());
        assert_eq!(names.look_up(&known, 1, soon(&names), |_| None).await, None, "it said nothing");
        let again = names.look_up(&known, 1, soon(&names), |_| Some(Told(None))).await;
        assert_eq!(again, Some(Told(None)), "it said that there is none");
        let failed = told("user", 1, Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(failed, None);
        assert_eq!(told("user", 1, Ok(None)), Some(Told(None)));
    }
}
