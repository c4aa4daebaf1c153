//! Bytes both ways between an application and its peer, until both have said all they had to say
//! or one of them is gone. Asks for a `Permit`; knows neither who is who nor why it was allowed.
//! Start at [`run()`].

mod end;
mod inbox;
mod pump;
mod run;
mod socket;

#[cfg(test)]
mod tests;

pub(super) use end::End;
pub(super) use inbox::Inbox;
pub(super) use run::{Terms, run};
pub(super) use socket::{ResetOnDrop, Sending};
