//! The tables that stand once in the main file. A missing table or key means its default.

use std::path::PathBuf;

use serde::Deserialize;

use super::words::{LogFormatWord, LogLevelWord};
use super::{Interval, Key, Size};

/// `[node]`: this host. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct NodeSection {
    /// Name of the trust domain, such as `example.org`. Required.
    pub(in crate::config) trust_domain: Key<String>,
    /// Name of this node: letters, digits, `.`, `-`, `_`; 1 to 64 characters. Default: the host
    /// name.
    pub(in crate::config) name: Key<String>,
    /// Directory of what outlives a restart, CA keys among it. Default: `/var/lib/tacit`.
    pub(in crate::config) state_dir: Key<PathBuf>,
    /// Directory of what does not. Default: `/run/tacit`.
    pub(in crate::config) run_dir: Key<PathBuf>,
    /// Directory of more files (`*.toml`, sorted by name) with `[[scope]]`, `[[entry]]`,
    /// `[[outbound]]`, `[[inbound]]` and `[[files]]`; relative to the main file. Default: none.
    pub(in crate::config) include_dir: Key<PathBuf>,
}

/// `[capture]`: where the programs are attached. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct CaptureSection {
    /// Cgroup below the cgroup2 mount at which the programs are attached; scopes must lie in it.
    /// Default: `/`.
    pub(in crate::config) cgroup: Key<String>,
    /// Tells several daemons on one kernel apart: letters, digits, `-`; 1 to 32 characters.
    /// Default: `default`.
    pub(in crate::config) instance: Key<String>,
    /// Mount of the BPF file system in which programs and maps are pinned. Default:
    /// `/sys/fs/bpf`.
    pub(in crate::config) bpffs: Key<PathBuf>,
}

/// `[attest]`: how processes are looked at. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AttestSection {
    /// Size; executables above it get no `unix:sha256`; `0B` switches digests off. Default:
    /// `512MiB`; `0B` to `8GiB`.
    pub(in crate::config) digest_limit: Key<Size>,
    /// Duration; the longest that one attestation may take. Default: `5s`; `100ms` to `1m`.
    pub(in crate::config) deadline: Key<Interval>,
}

/// `[issuer]`: who signs the SVIDs of this node's workloads. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct IssuerSection {
    /// `embedded`: the CA inside the daemon. Default: `embedded`.
    pub(in crate::config) kind: Key<String>,
    /// Duration; lifetime of an X.509-SVID, renewed at half of it. Default: `1h`; `10s` to `7days`.
    pub(in crate::config) svid_ttl: Key<Interval>,
    /// Duration; lifetime of a JWT-SVID. Default: `5m`; `10s` to `1day`.
    pub(in crate::config) jwt_svid_ttl: Key<Interval>,
    /// Duration; how far in the past an SVID begins, for peers whose clocks are behind. Default:
    /// `1m`; `0s` to `1h`.
    pub(in crate::config) backdate: Key<Interval>,
}

/// `[proxy]`: timeouts and limits of captured connections. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ProxySection {
    /// Port of the outbound listener. Default: 15001; 1 to 65535.
    pub(in crate::config) outbound_port: Key<u16>,
    /// Port of the inbound listener. Default: 15006; 1 to 65535.
    pub(in crate::config) inbound_port: Key<u16>,
    /// Duration; for the peer to accept. Default: `10s`; `100ms` to `5m`.
    pub(in crate::config) connect_timeout: Key<Interval>,
    /// Duration; for the TLS handshake. Default: `10s`; `100ms` to `5m`.
    pub(in crate::config) handshake_timeout: Key<Interval>,
    /// Duration; for a client to say its first byte, where its first bytes tell how to go on.
    /// Default: `5s`; `10ms` to `5m`.
    pub(in crate::config) first_byte_timeout: Key<Interval>,
    /// Duration; a connection without a byte either way for so long is cut; `0s`: never.
    /// Default: `0s`; up to `30days`.
    pub(in crate::config) idle_timeout: Key<Interval>,
    /// Duration; unacknowledged data for so long ends a connection (`TCP_USER_TIMEOUT`); `0s`: the
    /// kernel's own. Default: `2m`; up to `1h`.
    pub(in crate::config) user_timeout: Key<Interval>,
    /// Duration; silence before the first keepalive probe. Default: `1m`; `1s` to `2h`.
    pub(in crate::config) keepalive: Key<Interval>,
    /// Duration; how long open connections may go on after the daemon is told to stop. Default:
    /// `30s`; `0s` to `1day`.
    pub(in crate::config) drain_timeout: Key<Interval>,
    /// Connections of the whole node. Default: 20000; 1 to 250000.
    pub(in crate::config) max_connections: Key<u32>,
    /// Connections of one workload. Default: 10000; 1 to `max_connections`.
    pub(in crate::config) max_connections_per_workload: Key<u32>,
    /// TLS handshakes at one time; more wait. Default: 256; 1 to 100000.
    pub(in crate::config) max_handshakes: Key<u32>,
    /// TLS handshakes that begin in a second; more wait. Default: 5000; 1 to 1000000.
    pub(in crate::config) max_handshake_rate: Key<u32>,
    /// The same, of one workload. Default: 2500; 1 to `max_handshake_rate`.
    pub(in crate::config) max_handshake_rate_per_workload: Key<u32>,
    /// Clients at one time that have not proved who they are. Default: 10000, or half of
    /// `max_connections` if that is less; 1 to `max_connections`.
    pub(in crate::config) max_unproved: Key<u32>,
    /// The same, of one client address at one workload. Default: 1000; 1 to `max_unproved`.
    pub(in crate::config) max_unproved_per_client: Key<u32>,
    /// Size; what one direction of one connection may buffer. Default: `64KiB`; `4KiB` to `4MiB`.
    pub(in crate::config) buffer: Key<Size>,
}

/// `[workload_api]`: what programs that know SPIFFE are served. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct WorkloadApiSection {
    /// Whether the Workload API is served. Default: true.
    pub(in crate::config) enabled: Key<bool>,
    /// Its socket, which every user may connect to. Default: `public/api.sock` in `node.run_dir`.
    pub(in crate::config) socket: Key<PathBuf>,
    /// Connections of the whole node. Default: 4096; 1 to 100000.
    pub(in crate::config) max_connections: Key<u32>,
    /// Connections of one cgroup. Default: 1024; 1 to `max_connections`.
    pub(in crate::config) max_connections_per_cgroup: Key<u32>,
    /// Requests of one cgroup in a second, after twice as many at once. Default: 500; 1 to 100000.
    pub(in crate::config) requests_per_second: Key<u32>,
}

/// `[audit]`: the record of every connection. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AuditSection {
    /// The log. Default: `/var/log/tacit/audit.jsonl`.
    pub(in crate::config) path: Key<PathBuf>,
    /// Size; the log is rotated when it is this large. Default: `100MiB`; `64KiB` to `10GiB`.
    pub(in crate::config) rotate_bytes: Key<Size>,
    /// Rotated logs kept. Default: 10; 1 to 10000.
    pub(in crate::config) keep: Key<u32>,
    /// Records that may wait to be written. Default: 8192; 64 to 1000000.
    pub(in crate::config) queue: Key<u32>,
    /// Duration; a connection open for so long gets an opening record too. Default: `30s`; `1s` to
    /// `1day`.
    pub(in crate::config) open_after: Key<Interval>,
    /// Whether connections that are only observed are recorded. Default: true.
    pub(in crate::config) observe: Key<bool>,
}

/// `[admin]`: how to talk to the daemon. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AdminSection {
    /// Socket of the commands, for root only. Default: `tacit.sock` in `node.run_dir`.
    pub(in crate::config) socket: Key<PathBuf>,
    /// Whether metrics and health are served. Default: true.
    pub(in crate::config) metrics_enabled: Key<bool>,
    /// Loopback address and port of metrics and health. Default: `127.0.0.1:9464`.
    pub(in crate::config) metrics_listen: Key<String>,
}

/// `[log]`: what the daemon says of itself, on standard error. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct LogSection {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default: `info`.
    pub(in crate::config) level: Key<LogLevelWord>,
    /// `text` or `json`. Default: `text`.
    pub(in crate::config) format: Key<LogFormatWord>,
}
