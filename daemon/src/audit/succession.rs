//! One log and two daemons: a successor takes the log over, and what its predecessor still has to
//! record goes through it. So the chain has one writer at any time.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::Audit;
use super::log::LogError;
use super::record::{Event, Record};
use super::writer::Order;

/// Records on their way to the successor at one time.
const ON_THE_WAY: usize = 64;

impl Audit {
    /// Writes, signs and closes the log, so that a successor can open it. What comes meanwhile is
    /// kept.
    ///
    /// # Errors
    /// The log is still this process's.
    pub async fn release_log(&self) -> Result<(), LogError> {
        self.have_done(Order::Release).await
    }

    /// Opens the log again, after a successor came to nothing.
    ///
    /// # Errors
    /// Another process has it; what is kept stays kept.
    pub async fn resume_log(&self) -> Result<(), LogError> {
        self.have_done(Order::Resume).await
    }

    /// From now on all records come out of what is returned, and none go to the log.
    ///
    /// # Errors
    /// When nothing writes any more.
    pub async fn send_records(&self) -> Result<mpsc::Receiver<Box<Record>>, LogError> {
        let (to, from) = mpsc::channel(ON_THE_WAY);
        self.have_done(|done| Order::Send(to, done)).await?;
        Ok(from)
    }
}

/// What a predecessor records while it drains.
#[derive(Debug)]
pub struct Inheritance {
    audit: Audit,
    /// Its connections of which opening records tell.
    open: BTreeMap<String, Record>,
}

impl Inheritance {
    /// With the connections that the log tells of and that are not over.
    pub fn new(audit: Audit, open: Vec<Record>) -> Self {
        let named = |record: Record| record.id.clone().map(|id| (id, record));
        Self { audit, open: open.into_iter().filter_map(named).collect() }
    }

    /// Takes in a record of the predecessor.
    ///
    /// # Cancel safety
    /// Not cancel safe: the record may be lost.
    pub async fn record(&mut self, record: Box<Record>) {
        match (record.event, &record.id) {
            (Event::Open, Some(id)) => {
                self.open.insert(id.clone(), (*record).clone());
            }
            (Event::Close, Some(id)) => {
                self.open.remove(id);
            }
            _ => {}
        }
        self.audit.take_in(record).await;
    }

    /// The predecessor is gone. What it had told of and not closed was cut off.
    pub async fn close(self, pid: u32, in_order: bool) {
        if !in_order {
            let detail = format!(
                "process {pid} was killed while it drained; connections younger than its \
                 `open_after` left no record"
            );
            self.audit.daemon("predecessor_lost", Some(detail));
        }
        let time = self.audit.time();
        for record in self.open.into_values() {
            self.audit.take_in(Box::new(record.interrupted(&time))).await;
        }
    }
}
