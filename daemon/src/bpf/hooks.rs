//! Every program: where it hangs, and what follows where a kernel does not take it. That is found
//! by loading, never by the kernel's version: distributions carry features back and leave them out.

use aya::Ebpf;
use aya::programs::Program;

use super::LoadError;

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Cgroup,
    Netns,
    /// The raw tracepoint `cgroup_mkdir`; its attach type is not used.
    CgroupMade,
}

/// What there is without a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// No daemon: nothing could be captured or attributed.
    Nothing,
    /// No strict scope: it would be a lie, because of this.
    NoStrict(&'static str),
    /// All but this comfort.
    NoComfort(&'static str),
}

/// A program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// Its name in the object.
    pub(super) name: &'static str,
    /// `enum bpf_attach_type` (include/uapi/linux/bpf.h).
    pub(super) attach_type: u32,
    pub(super) target: Target,
    without: Without,
}

const fn hook(name: &'static str, attach_type: u32, target: Target, without: Without) -> Hook {
    Hook { name, attach_type, target, without }
}

const NO_PEER: Without =
    Without::NoComfort("applications see the proxy's address in place of their peer's");
const NO_OWN: Without =
    Without::NoComfort("applications see a loopback address in place of their own");
const NO_DATAGRAMS: Without =
    Without::NoStrict("a datagram socket that is passed in could send off the host");
const NO_BACKSTOP: Without =
    Without::NoStrict("a socket could route its packets around the daemon");

/// All of them, in the order in which they are attached.
pub(super) const HOOKS: [Hook; 18] = [
    // A cgroup that is made anew is in its scope from the first moment.
    hook(
        "tacit_cgroup_made",
        0,
        Target::CgroupMade,
        Without::NoStrict("a cgroup that is made again while no daemon runs would be in no scope"),
    ),
    // Who is it, before anything can act on it.
    hook(
        "tacit_sock_create",
        2,
        Target::Cgroup,
        Without::NoStrict("a socket that is passed out would be free of its scope"),
    ),
    hook("tacit_post_bind4", 12, Target::Cgroup, Without::Nothing),
    hook("tacit_post_bind6", 13, Target::Cgroup, Without::Nothing),
    hook("tacit_established", 3, Target::Cgroup, Without::Nothing),
    hook("tacit_getpeername4", 29, Target::Cgroup, NO_PEER),
    hook("tacit_getpeername6", 30, Target::Cgroup, NO_PEER),
    hook("tacit_getsockname4", 31, Target::Cgroup, NO_OWN),
    hook("tacit_getsockname6", 32, Target::Cgroup, NO_OWN),
    hook(
        "tacit_original_dst",
        21,
        Target::Cgroup,
        Without::NoComfort("programs that ask for SO_ORIGINAL_DST get no answer"),
    ),
    hook(
        "tacit_setsockopt",
        22,
        Target::Cgroup,
        Without::NoComfort("captured servers that set TCP_DEFER_ACCEPT are not reached"),
    ),
    // What captures, last: by now what it needs is in place.
    hook("tacit_lookup", 36, Target::Netns, Without::Nothing),
    hook("tacit_connect4", 10, Target::Cgroup, Without::Nothing),
    hook("tacit_connect6", 11, Target::Cgroup, Without::Nothing),
    hook("tacit_sendmsg4", 14, Target::Cgroup, NO_DATAGRAMS),
    hook("tacit_sendmsg6", 15, Target::Cgroup, NO_DATAGRAMS),
    hook("tacit_ingress", 0, Target::Cgroup, NO_BACKSTOP),
    hook("tacit_egress", 1, Target::Cgroup, NO_BACKSTOP),
];

/// A program that the running kernel does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Its name.
    pub program: &'static str,
    /// What follows.
    pub means: &'static str,
    /// Whether strict scopes would be a lie without it.
    pub breaks_strict: bool,
    /// The kernel's own words.
    pub reason: String,
}

/// Loads every program into the kernel: the verifier sees them all before any is attached. Gives
/// those that the kernel does not take and that the daemon can do without.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<Vec<Lack>, LoadError> {
    let mut lacks = Vec::new();
    for Hook { name, without, .. } in HOOKS {
        let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::RawTracePoint(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(LoadError::Missing(name)),
        };
        let Err(error) = loaded else { continue };
        let (means, breaks_strict) = match without {
            Without::NoStrict(means) => (means, true),
            Without::NoComfort(means) => (means, false),
            Without::Nothing => {
                let reason = reason(&error.to_string());
                return Err(LoadError::Program { name, reason, source: Box::new(error) });
            }
        };
        lacks.push(Lack {
            program: name,
            means,
            breaks_strict,
            reason: reason(&error.to_string()),
        });
    }
    Ok(lacks)
}

/// What the verifier says last before its statistics: why.
fn reason(text: &str) -> String {
    let told = |line: &&str| {
        let line = line.trim();
        !line.is_empty()
            && !["verification time", "stack depth", "processed "]
                .iter()
                .any(|it| line.starts_with(it))
    };
    text.lines().rev().find(told).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_is_the_reason() {
        let said = "the BPF_PROG_LOAD syscall returned Invalid argument. Verifier output: 0: R1=ctx\n\
                    unknown func bpf_get_netns_cookie#122\nverification time 9 usec\n\
                    stack depth 0\nprocessed 7 insns (limit 1000000)\n\n";
        assert_eq!(reason(said), "unknown func bpf_get_netns_cookie#122");
        assert_eq!(reason("unknown program type"), "unknown program type");
    }
}
