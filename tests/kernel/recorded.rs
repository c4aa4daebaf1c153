//! What the programs record: who acts, in the acting thread, and the addresses as asked for.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use harness::{probe, uid, value};

use crate::stand_in::{StandIn, talk};

#[test]
fn every_program_is_attached() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let said = stand.recorder.said();
    let attached = said.matches("attached=true").count();
    ensure!(attached >= 14 && !said.contains("attached=false"), "{said}");
    Ok(())
}

/// connect4/6, `sock_ops`, getpeername and getsockname: nobody is at the destination, and the
/// application talks to "it" all the same.
#[test]
fn an_outbound_connection_arrives_with_its_record() -> Result<()> {
    let stand = StandIn::start(&[])?;
    for (to, own) in [("10.77.0.1:9", "10.77.0.2:"), ("[fd00:77::1]:9", "[fd00:77::2]:")] {
        let said = talk(&stand.strict(), &[to])?;
        let said = said.ok()?;
        ensure!(value(said, "peer").as_deref() == Some(to), "the application saw: {said}");
        let local = value(said, "local").unwrap_or_default();
        ensure!(
            local.starts_with(own) || local.contains("127.0.0.1") || local.contains("[::1]"),
            "{said}"
        );
        ensure!(stand.recorded("dst")? == to, "{}", stand.recorder.said());
        for (name, expected) in
            [("uid", uid::SERVER), ("gid", uid::SERVER), ("real_uid", uid::SERVER)]
        {
            ensure!(stand.recorded(name)? == expected.to_string(), "{}", stand.recorder.said());
        }
        ensure!(stand.recorded("mode")? == "strict");
        let inode = std::fs::metadata(probe()?)?.ino().to_string();
        ensure!(stand.recorded("ino")? == inode, "{}", stand.recorder.said());
    }
    Ok(())
}

#[test]
fn every_way_to_connect_is_recorded() -> Result<()> {
    let stand = StandIn::start(&[])?;
    for how in
        ["nonblocking", "mapped", "fast-open", "fast-open-connect", "io-uring", "mptcp", "unspec"]
    {
        let before = stand.recorder.said().matches("outbound dst=10.77.0.1:9 ").count();
        let said = talk(&stand.strict(), &["10.77.0.1:9", "--how", how])?;
        ensure!(!said.failed(), "{how}: {said:?}\n{}", stand.recorder.said());
        let after = stand.recorder.said().matches("outbound dst=10.77.0.1:9 ").count();
        ensure!(after > before, "{how}: not recorded\n{}", stand.recorder.said());
    }
    Ok(())
}

#[test]
fn a_bound_source_is_recorded() -> Result<()> {
    let stand = StandIn::start(&[])?;
    talk(&stand.strict(), &["10.77.0.1:9", "--source", "10.77.0.2:0"])?.ok()?;
    ensure!(stand.recorded("bound")? == "true", "{}", stand.recorder.said());
    ensure!(stand.recorded("src")?.starts_with("10.77.0.2:"), "{}", stand.recorder.said());
    Ok(())
}

#[test]
fn a_bound_device_is_recorded() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let said = talk(&stand.strict(), &["10.77.0.1:9", "--device", "veth0"])?;
    said.ok().with_context(|| stand.recorder.said())?;
    ensure!(stand.recorded("ifindex")? != "0", "{}", stand.recorder.said());
    Ok(())
}

/// `post_bind`, `sk_lookup` and the last mile: the listener's owner is known, the daemon gets the
/// connection under the address that was dialled, and the application sees its true client.
#[test]
fn an_inbound_connection_arrives_with_its_listeners_owner() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let echo = stand.strict().serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
    for (to, client) in [("10.77.0.2:7000", "10.77.0.1"), ("[fd00:77::2]:7000", "fd00:77::1")] {
        let said = talk(&stand.remote(), &[to])?;
        let local = value(said.ok()?, "local").unwrap_or_default();
        ensure!(local.contains(client), "{said:?}");
        ensure!(stand.recorded("local")? == to, "{}", stand.recorder.said());
        ensure!(stand.recorded("peer")? == local, "{}", stand.recorder.said());
        ensure!(stand.recorded("uid")? == uid::SERVER.to_string(), "{}", stand.recorder.said());
        ensure!(stand.recorded("source")? == "kernel", "{}", stand.recorder.said());
        let plain = |address: String| address.replace("::ffff:", "").replace(['[', ']'], "");
        for name in ["accept", "peer"] {
            ensure!(plain(echo.value(name)?) == plain(local.clone()), "{}", echo.said());
        }
        ensure!(plain(echo.value("local")?) == plain(to.to_owned()), "{}", echo.said());
    }
    Ok(())
}
