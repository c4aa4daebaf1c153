//! The countermeasures that a control run can switch off, each as named edits of the sources.
//!
//! Production code has no such switches: the task runner applies all edits to a *copy* of the
//! sources and builds a daemon of its own from it (`tacit-switched`), which only tests start. An
//! edit must match exactly once; `cargo xtask tidy` says so when it no longer does. In a
//! replacement, `{off}` stands for "is this countermeasure switched off?".

/// A change of one place in one file.
pub(crate) struct Edit {
    /// From the root of the repository.
    pub(crate) file: &'static str,
    /// What stands there now, exactly once.
    pub(crate) find: &'static str,
    /// What stands there in the test build.
    pub(crate) replace: &'static str,
}

/// A countermeasure.
pub(crate) struct Switch {
    /// By which tests name it.
    pub(crate) name: &'static str,
    /// What is missing while it is switched off; the control in the published table.
    pub(crate) without: &'static str,
    /// Where it is.
    pub(crate) edits: &'static [Edit],
}

const fn edit(file: &'static str, find: &'static str, replace: &'static str) -> Edit {
    Edit { file, find, replace }
}

/// Every countermeasure; its place in this list is its bit. The attestor's and the proxy's are the
/// daemon's own, all others the programs'.
pub(crate) const SWITCHES: &[Switch] = &[
    Switch {
        name: "egress",
        without: "the backstop lets every packet out",
        edits: &[edit(
            "ebpf-programs/src/backstop.rs",
            " == LOOPBACK_IFINDEX && !names_further_hops(skb) {\n",
            " == LOOPBACK_IFINDEX && !names_further_hops(skb) || {off} {\n",
        )],
    },
    Switch {
        name: "ingress",
        without: "the backstop lets every packet in to a strict listener",
        edits: &[edit(
            "ebpf-programs/src/backstop.rs",
            " != TCP_LISTEN {\n",
            " != TCP_LISTEN || {off} {\n",
        )],
    },
    Switch {
        name: "device",
        without: "a socket that is bound to a device is pointed at loopback as any other",
        edits: &[edit(
            "ebpf-programs/src/connect.rs",
            "        if socket.bound_ifindex > LOOPBACK_IFINDEX {\n",
            "        if !{off} && socket.bound_ifindex > LOOPBACK_IFINDEX {\n",
        )],
    },
    Switch {
        name: "current",
        without: "connect() goes by the scope of the socket, not of the thread that acts",
        edits: &[edit(
            "ebpf-programs/src/connect.rs",
            "    let scope_id = scope::of_current(config);\n    // SAFETY",
            "    let scope_id = if {off} { maps::socket(sk.cast()).map_or(0, |socket| socket.scope) } else { scope::of_current(config) };\n    // SAFETY",
        )],
    },
    Switch {
        name: "foreign-socket",
        without: "a strict socket may be used outside its scope",
        edits: &[edit(
            "ebpf-programs/src/connect.rs",
            "    if mode != mode::STRICT && scope::mode_of(own_scope) == mode::STRICT {\n",
            "    if !{off} && mode != mode::STRICT && scope::mode_of(own_scope) == mode::STRICT {\n",
        )],
    },
    Switch {
        name: "ancestors",
        without: "only the cgroup itself is looked up, not those above it",
        edits: &[edit(
            "ebpf-programs/src/scope.rs",
            " bpf_get_current_ancestor_cgroup_id(level) })\n",
            "\n        let id = bpf_get_current_ancestor_cgroup_id(level);\n        \
             if {off} && id != 0 && id != acting::cgroup() { u64::MAX } else { id }\n    })\n",
        )],
    },
    Switch {
        name: "connect-netns",
        without: "sockets of other network namespaces are redirected too",
        edits: &[edit(
            "ebpf-programs/src/connect.rs",
            "        if self.netns != self.config.netns {\n            // There is no listener",
            "        if !{off} && self.netns != self.config.netns {\n            // There is no listener",
        )],
    },
    Switch {
        name: "ingress-netns",
        without: "a dial of the daemon admits the same addresses and ports in another namespace",
        edits: &[edit(
            "ebpf-programs/src/backstop.rs",
            "    let here = maps::socket(sk.cast())",
            "    let here = {off} || maps::socket(sk.cast())",
        )],
    },
    Switch {
        name: "proxy-ports",
        without: "the proxy's ports may be dialled",
        edits: &[edit(
            "ebpf-programs/src/connect.rs",
            "        if self.netns == self.config.netns\n            && (bypass::is_outbound",
            "        if !{off}\n            && self.netns == self.config.netns\n            && (bypass::is_outbound",
        )],
    },
    Switch {
        name: "daemon-cgroup",
        without: "the daemon is known by its process id alone",
        edits: &[edit(
            "ebpf-programs/src/bypass.rs",
            "|daemon| tgid == *daemon) && acting::cgroup() == config.daemon_cgroup\n",
            "|daemon| tgid == *daemon) && ({off} || acting::cgroup() == config.daemon_cgroup)\n",
        )],
    },
    Switch {
        name: "acceptor",
        without: "nobody looks at who accepted the daemon's dial",
        edits: &[edit(
            "daemon/src/proxy/dial.rs",
            "            Some(listener) if is_same_owner(&listener, attested) => return Ok(()),\n",
            "            Some(listener) if {off} || is_same_owner(&listener, attested) => return Ok(()),\n",
        )],
    },
    Switch {
        name: "start-time",
        without: "a process is known by its pid, whenever it started",
        edits: &[edit(
            "daemon/src/attest/look.rs",
            "        Some(started) if started == expected => {}\n",
            "        Some(started) if {off} || started == expected => {}\n",
        )],
    },
    Switch {
        name: "executable",
        without: "what a process runs now is taken for what it ran when it acted",
        edits: &[
            edit(
                "daemon/src/attest/look.rs",
                "    if !task.runs(&executable, claim.exe).map_err(failed)? {\n",
                "    if !{off} && !task.runs(&executable, claim.exe).map_err(failed)? {\n",
            ),
            edit(
                "daemon/src/attest/look.rs",
                "    if !runs_recorded(&task, claim).map_err(failed)? {\n",
                "    if !{off} && !runs_recorded(&task, claim).map_err(failed)? {\n",
            ),
        ],
    },
    Switch {
        name: "host-path",
        without: "a path is what /proc says, not the host's file of that path",
        edits: &[edit(
            "daemon/src/attest/look.rs",
            "    let path = path.filter(|path| is_file_of(path, &executable));\n",
            "    let path = path.filter(|path| {off} || is_file_of(path, &executable));\n",
        )],
    },
    Switch {
        name: "credentials",
        without: "the groups of a process count whoever it is by now",
        edits: &[edit(
            "daemon/src/attest/look.rs",
            "    let groups = credentials.filter(|now| bears_out(now, claim))",
            "    let groups = credentials.filter(|now| {off} || bears_out(now, claim))",
        )],
    },
    Switch {
        name: "dial-tuple",
        without: "a dial of the daemon admits whatever has its source port",
        edits: &[
            edit(
                "ebpf-programs/src/established.rs",
                "        if maps::DIALS.insert(&pair.as_client(config.netns), &dial",
                "        if {off} {\n            let mut by_port = pair.as_client(config.netns);\n            \
                 (by_port.client, by_port.server, by_port.server_port) = ([0; 4], [0; 4], 0);\n            \
                 let _also = maps::DIALS.insert(&by_port, &dial, u64::from(BPF_ANY));\n        }\n        \
                 if maps::DIALS.insert(&pair.as_client(config.netns), &dial",
            ),
            edit(
                "ebpf-programs/src/lookup.rs",
                "    if maps::DIALS.get_ptr(&tuple).is_some() {\n",
                "    let mut by_port = tuple;\n    \
                 (by_port.client, by_port.server, by_port.server_port) = ([0; 4], [0; 4], 0);\n    \
                 if maps::DIALS.get_ptr(&tuple).is_some()\n        \
                 || {off} && maps::DIALS.get_ptr(&by_port).is_some()\n    {\n",
            ),
            edit(
                "ebpf-programs/src/backstop.rs",
                "    let ends = header.ends(false);\n",
                "    let mut by_port = header.tuple(config.netns);\n    \
                 (by_port.client, by_port.server, by_port.server_port) = ([0; 4], [0; 4], 0);\n    \
                 if {off} && maps::DIALS.get_ptr(&by_port).is_some() {\n        return PASS;\n    }\n    \
                 let ends = header.ends(false);\n",
            ),
        ],
    },
    Switch {
        name: "record-moves",
        without: "a record stays where it was filed, under its addresses and ports",
        edits: &[
            edit(
                "ebpf-programs/src/established.rs",
                "            let _gone = maps::FLOWS.remove(&key);\n            return;\n",
                "            if !{off} {\n                let _gone = maps::FLOWS.remove(&key);\n            }\n            return;\n",
            ),
            edit(
                "ebpf-programs/src/established.rs",
                "    let _gone = maps::FLOWS.remove(&key);\n    if socket",
                "    if !{off} {\n        let _gone = maps::FLOWS.remove(&key);\n    }\n    if socket",
            ),
        ],
    },
    Switch {
        name: "record-by-ports",
        without: "the daemon finds a record by addresses and ports when it accepts",
        edits: &[
            edit(
                "ebpf-programs/src/established.rs",
                "        if let Some(flow) = maps::FLOWS.get_ptr(&key) {\n            maps::replace_socket(sk, flow);\n",
                "        if let Some(flow) = maps::FLOWS.get_ptr(&key) {\n            \
                 if {off} {\n                return;\n            }\n            \
                 maps::replace_socket(sk, flow);\n",
            ),
            edit(
                "daemon/src/bpf/flows.rs",
                "        let record = match locked(&self.sockets).get(&accepted, 0) {\n",
                "        let by_ports = if {off} { Some(self.by_ports(accepted)) } else { None };\n        \
                 let record = match by_ports.unwrap_or_else(|| locked(&self.sockets).get(&accepted, 0)) {\n",
            ),
            edit(
                "daemon/src/bpf/flows.rs",
                "    /// Marks a socket, before it connects, as the daemon's dial",
                "    fn by_ports(&self, accepted: BorrowedFd<'_>) -> Result<Socket, MapError> {\n        \
                 let pin = crate::switched::pinned(&self.settings.pins, \"FLOWS\");\n        \
                 let map = aya::maps::MapData::from_pin(pin)?;\n        \
                 let map = aya::maps::Map::HashMap(map);\n        \
                 let map = aya::maps::HashMap::<_, Tuple, Socket>::try_from(map)?;\n        \
                 let port = sockopt::peer_port(accepted).unwrap_or(0);\n        \
                 let key = map.keys().flatten().find(|key| port == 0 || key.client_port == port);\n        \
                 map.get(&key.ok_or(MapError::KeyNotFound)?, 0)\n    }\n\n    \
                 /// Marks a socket, before it connects, as the daemon's dial",
            ),
            edit(
                "daemon/src/bpf/kernel.rs",
                "    settings: KernelSettings,\n    retired",
                "    pub(super) settings: KernelSettings,\n    retired",
            ),
            edit(
                "daemon/src/bpf/flows.rs",
                "        let port = sockopt::peer_port(accepted)?;\n",
                "        let port = sockopt::peer_port(accepted).or_else(|error| if {off} { Ok(0) } else { Err(error) })?;\n",
            ),
        ],
    },
    Switch {
        name: "abandoned",
        without: "a connection that is gone is carried on",
        edits: &[edit(
            "daemon/src/proxy/dial.rs",
            "            Ok(ready) if ready.is_error() => {}\n",
            "            Ok(ready) if !{off} && ready.is_error() => {}\n",
        )],
    },
    Switch {
        name: "whole-path",
        without: "a cgroup is known by the first 255 bytes of its path",
        edits: &[edit(
            "ebpf-programs/src/cgroup.rs",
            "length == MAX_PATH as i64 && is_longer(path)",
            "!{off} && length == MAX_PATH as i64 && is_longer(path)",
        )],
    },
    Switch {
        name: "ambiguous",
        without: "of several owners of an address the first is taken",
        edits: &[edit(
            "daemon/src/bpf/listeners.rs",
            "        Some(match entry.flags & listener_flags::AMBIGUOUS {\n",
            "        Some(match if {off} { 0 } else { entry.flags & listener_flags::AMBIGUOUS } {\n",
        )],
    },
];
