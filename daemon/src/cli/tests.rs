//! Tests of the command line as its users see it.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};

use super::args::{Audit, Cli, Command, Query, When};
use super::audit;
use super::ca::Ca;
use super::fault::Exit;
use crate::audit::log::Log;
use crate::audit::{AuditSettings, Event, Overflow, Record, STATE_FOLDER};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_what_it_was() {
    let help = Cli::command().render_help().to_string();
    let expected = "\
Transparent SPIFFE mutual TLS for programs that know nothing of TLS

Usage: tacit <COMMAND>

Commands:
  run          Run the daemon
  check        Say everything that is wrong with a configuration
  status       Show how the daemon fares
  connections  List open connections
  scopes       List the scopes in force
  entries      List, add, remove, import and export registration entries
  svid         List the SVIDs that the daemon holds, with expiry
  explain      Say why a process has its identity, or a connection its decision
  ca           Make and look after the embedded CA
  deny         Deny identities and certificates, at once
  audit        Read and verify the audit log
  doctor       Check the kernel, the programs, and what is left in the kernel
  bundle       List and show trust bundles, and set and delete those of other trust domains
  reload       Make the daemon read its configuration again, now
  uninstall    Remove everything that the daemon has left in the kernel
  completions  Print a completion script for a shell
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help     Print help (see more with '--help')
  -V, --version  Print version

Exit codes:
  0  all is well
  1  it failed; or it worked, and what it found is not well (status, doctor)
  2  the command line is wrong
  3  the configuration is not valid
  4  no daemon answers
  5  the audit log was tampered with (audit verify)
";
    assert_eq!(help, expected);
}

#[test]
fn every_command_has_help() {
    fn walk(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{argument} has no help");
        }
        command.get_subcommands().for_each(walk);
    }
    walk(&Cli::command());
}

#[test]
fn reads_the_commands() {
    assert!(matches!(parse("tacit run"), Ok(Command::Run(_))));
    assert!(matches!(parse("tacit explain 4711 --output json"), Ok(Command::Explain(_))));
    let order = "tacit ca mint --spiffe-id spiffe://example.org/a --ttl 12h --out ./a";
    let Ok(Command::Ca(Ca::Mint { ttl, .. })) = parse(order) else { panic!("{order}") };
    assert_eq!(ttl.as_secs(), 43_200);
    let Ok(Command::Audit(Audit::Query(asked))) =
        parse("tacit audit query --since 15m --address 10.0.0.1 --outcome denied -f")
    else {
        panic!("audit query")
    };
    let Query { since, follow, .. } = *asked;
    assert!(matches!(since, Some(When::Ago(age)) if age.as_secs() == 900) && follow);
}

#[test]
fn refuses_what_it_cannot_read() {
    for line in [
        "tacit",
        "tacit explain redis",
        "tacit ca mint --spiffe-id http://example.org/a --out ./a",
        "tacit ca init --trust-domain Example.ORG --node a",
        "tacit audit query --outcome fine",
        "tacit audit query --since yesterday",
        "tacit status --output yaml",
    ] {
        let usage = parse(line).unwrap_err();
        assert_eq!(usage.exit_code(), 2, "{line}: {usage}");
    }
}

/// The daemon keeps the head below its state directory; `--state-dir` names the state directory.
#[test]
fn verify_finds_the_head_where_the_daemon_keeps_it() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("audit.jsonl");
    let settings = AuditSettings {
        path: path.clone(),
        state_dir: state.path().join(STATE_FOLDER),
        node: "n1".to_owned(),
        rotate_bytes: 1 << 20,
        keep: 1,
        queue: 1,
        overflow: Overflow::Block,
        open_after: Duration::from_secs(10),
        sync_every: Duration::ZERO,
    };
    let time = "2023-11-14T22:13:20.000Z";
    let mut log = Log::open(&settings, time).unwrap();
    log.append(&mut vec![Record::new(Event::Close)], time).unwrap();
    log.sign(time).unwrap();
    log.sync().unwrap();
    drop(log);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let verify = || {
        let (path, state) = (text(&path), text(state.path()));
        match parse(&format!("tacit audit verify --log {path} --state-dir {state}")).unwrap() {
            Command::Audit(order) => audit::obey(order).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(verify(), Exit::Success);

    // Cut off at a checkpoint, which only the head can tell.
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let first = lines.iter().position(|line| line.contains("\"checkpoint\"")).unwrap();
    assert!(first + 1 < lines.len(), "only one checkpoint: {whole}");
    std::fs::write(&path, lines[..=first].join("\n") + "\n").unwrap();
    assert_eq!(verify(), Exit::VerificationFailed);
}

#[test]
fn a_log_that_is_not_there_is_named_with_the_way_to_name_another() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap().to_owned();
    for log in [format!("{state}/audit.jsonl"), format!("{state}/none/audit.jsonl")] {
        for order in ["verify --state-dir ", "verify --no-head --public-key ", "query --reason "] {
            let more = if order.contains("public-key") { "/dev/null" } else { &state };
            let line = format!("tacit audit {order}{more} --log {log}");
            let Ok(Command::Audit(order)) = parse(&line) else { panic!("{line}") };
            let told = audit::obey(order).unwrap_err().to_string();
            let is_key = more == "/dev/null";
            assert!(is_key == told.contains("/dev/null"), "{told}");
            assert!(is_key || told.contains(&log) && told.contains("--log"), "{told}");
        }
    }
}
