//! What a daemon at work may still do, as the kernel sees it, and what others may do to it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Lab, Node, Rules, probe};

/// Bits of `capabilities(7)`, in the order of SECURITY.md: `CAP_BPF`, `CAP_NET_ADMIN`,
/// `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH`, `CAP_IPC_LOCK`, `CAP_NET_BIND_SERVICE`.
const KEPT: u64 = 1 << 39 | 1 << 12 | 1 << 19 | 1 << 2 | 1 << 14 | 1 << 10;

/// A line of `/proc/PID/status`.
fn status(of: &str, name: &str) -> Result<String> {
    let line = of.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {name} in:\n{of}"))?.trim().to_owned())
}

fn threads(node: &Node) -> Result<Vec<PathBuf>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.daemon_pid()?))?;
    tasks.map(|task| Ok(task?.path().join("status"))).collect()
}

#[test]
fn every_thread_keeps_six_capabilities_and_gains_none() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        lab.client().must(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])?;
        for node in [&lab.a, &lab.b] {
            let threads = threads(node)?;
            ensure!(threads.len() > 2, "only {} threads", threads.len());
            for thread in threads {
                let of = fs::read_to_string(thread)?;
                for set in ["CapPrm", "CapEff", "CapBnd"] {
                    let held = u64::from_str_radix(&status(&of, set)?, 16)?;
                    ensure!(held == KEPT, "{set} is {held:x}, not {KEPT:x}");
                }
                for none in ["CapInh", "CapAmb"] {
                    ensure!(status(&of, none)?.trim_matches('0').is_empty(), "{of}");
                }
                ensure!(status(&of, "NoNewPrivs")? == "1", "{of}");
                ensure!(status(&of, "Seccomp")? == "2", "{of}");
            }
        }
        Ok(())
    })
}

/// Since Linux 6.14 `CAP_PERFMON`, and so `CAP_SYS_ADMIN`, may see what is not memory itself
/// (`may_access_mm` in `kernel/fork.c`).
const WITHOUT_TRACING: &str = "--bounding-set=-sys_ptrace,-perfmon,-sys_admin";

/// Root in all but the capabilities to trace.
fn without_ptrace(node: &Node, script: &str) -> Result<Finished> {
    node.in_netns("setpriv", &[WITHOUT_TRACING, "sh", "-c", script])
}

#[test]
fn its_memory_is_locked_and_read_by_nobody() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let pid = lab.a.daemon_pid()?;
        let of = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name| -> Result<u64> { Ok(status(&of, name)?.trim_end_matches(" kB").parse()?) };
        ensure!(kib("VmLck")? > 1024 && kib("VmSwap")? == 0, "{of}");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let core = core.context("no limit of core files")?;
        ensure!(core.split_whitespace().rev().skip(1).take(2).all(|limit| limit == "0"), "{core}");
        for file in ["mem", "environ", "maps"] {
            let read = without_ptrace(&lab.a, &format!("head -c 1 /proc/{pid}/{file}"))?;
            ensure!(read.failed() && read.stderr.contains("ermi"), "{file}: {read:?}");
        }
        // The same of another process of root's shows that the look can succeed.
        let own = without_ptrace(&lab.a, "head -c 1 /proc/$$/maps")?;
        ensure!(!own.failed(), "{own:?}");
        Ok(())
    })
}
