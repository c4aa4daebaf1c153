//! `tacit ca rotate`: orders it, and tells how it goes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::args::Rotate;
use super::show;
use crate::admin::dump::{CaChanged, CaDump, CaOrder};
use crate::audit::format_time;
use crate::cli::args::Output;
use crate::cli::client;
use crate::cli::fault::{Exit, Fault};
use crate::cli::output;
use crate::sys::clock;

/// How often the daemon is asked how it goes.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn rotate(asked: &Rotate) -> Result<Exit, Fault> {
    let began = clock::now();
    let seconds = |duration: Option<Duration>| duration.map(|it| it.as_secs());
    let order = if asked.compromised {
        CaOrder::Replace
    } else {
        CaOrder::Rotate {
            activate_after: seconds(asked.activate_after),
            retire_after: seconds(asked.retire_after),
        }
    };
    let before: CaDump = client::get(&asked.socket, "/v1/ca")?;
    let done: CaChanged = client::post_json(&asked.socket, "/v1/ca", &order)?;
    let mut progress =
        Progress { quiet: asked.format.output == Output::Json, ..Progress::default() };
    progress.roots = before.roots();
    let mut ca = done.ca;
    loop {
        progress.tell(&ca)?;
        if ca.is_settled() || !(asked.follow || asked.compromised) {
            break;
        }
        std::thread::sleep(LOOK);
        ca = client::get(&asked.socket, "/v1/ca")?;
    }
    if progress.quiet {
        output::json(&ca)?;
    } else if ca.is_settled() {
        let took = clock::now().duration_since(began).unwrap_or_default();
        output::text(&format!(
            "Done in {:.1} s.\n\n{}",
            took.as_secs_f64(),
            show::authorities(&ca)
        ))?;
    } else {
        output::text(&format!("\n{}", show::authorities(&ca)))?;
    }
    Ok(Exit::Success)
}

/// What has been told so far.
#[derive(Debug, Default)]
struct Progress {
    quiet: bool,
    told: BTreeSet<String>,
    roots: BTreeSet<String>,
}

impl Progress {
    /// Tells what is new.
    fn tell(&mut self, ca: &CaDump) -> Result<(), Fault> {
        let roots = ca.roots();
        let gone = self.roots.difference(&roots).map(|key_id| {
            let end = if ca.distrusted.contains(key_id) { "distrusted" } else { "retired" };
            format!("root {key_id}: {end}; what hung on it is cut")
        });
        let mut lines: Vec<_> = gone.collect();
        for root in ca.authorities.iter().filter(|it| it.role == "root") {
            let on = match (root.stage.as_str(), root.connections) {
                ("retires", Some(count)) => format!("; {count} connections hang on it"),
                ("signs", _) => format!("; {} of {} SVIDs replaced", ca.svids_replaced, ca.svids),
                _ => String::new(),
            };
            lines.push(format!("root {}: {}{on}", root.key_id, show::stage(root)));
        }
        self.roots = roots;
        let now = format_time(clock::now());
        for line in lines {
            if !self.quiet && self.told.insert(line.clone()) {
                output::text(&format!("{now}  {}\n", output::clean(&line)))?;
            }
        }
        Ok(())
    }
}

impl CaDump {
    /// Key ids of the roots that are trusted.
    fn roots(&self) -> BTreeSet<String> {
        let roots = self.authorities.iter().filter(|it| it.role == "root");
        roots.map(|it| it.key_id.clone()).collect()
    }

    /// Whether no root is on its way in or out.
    fn is_settled(&self) -> bool {
        let moves = |stage: &str| stage == "prepared" || stage == "retires";
        !self.authorities.iter().any(|it| moves(&it.stage))
    }
}
