//! The tables that may stand any number of times, in the main file and in included ones.
//! They are reloaded at once when a file changes.

use std::path::PathBuf;

use serde::Deserialize;

use super::words::{
    FailWord, InboundActionWord, ModeWord, OutboundActionWord, PlaintextWord, SignalWord,
    TransportsWord, UnmarkedTlsWord, UserWord,
};
use super::{Interval, Key, Ports};

/// `[[scope]]`: a part of the host, and what holds in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ScopeTable {
    /// Cgroup below the cgroup2 mount, with a leading `/`; all below it belongs to the scope, but
    /// the deepest scope wins. Required.
    pub(in crate::config) cgroup: Key<String>,
    /// Name or number of the one user whose processes are meant. Default: all users.
    pub(in crate::config) user: Key<UserWord>,
    /// `observe`, `permissive` or `strict`. Required.
    pub(in crate::config) mode: Key<ModeWord>,
    /// While no daemon is alive: `closed` or `open`; not `open` in strict. Default: `closed` in
    /// strict, else `open`.
    pub(in crate::config) fail: Key<FailWord>,
    /// Transports other than TCP: `refuse`, `dns-only` or `allow`. Default: `dns-only` in strict,
    /// else `allow`.
    pub(in crate::config) other_transports: Key<TransportsWord>,
    /// Ports of listeners that are captured; not in strict. Default: `"all"`.
    pub(in crate::config) inbound_ports: Key<Ports>,
    /// Destination ports that are captured; not in strict. Default: `"all"`.
    pub(in crate::config) outbound_ports: Key<Ports>,
}

/// `[[entry]]`: which processes get which SPIFFE ID.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct EntryTable {
    /// Unique id; of entries that match equally well the lowest wins. Default: made of the SPIFFE
    /// ID and the selectors.
    pub(in crate::config) id: Key<String>,
    /// The identity, in this node's trust domain. Required.
    pub(in crate::config) spiffe_id: Key<String>,
    /// What a process must have, all of it: `unix:`, `systemd:` and `cgroup:` selectors. Required.
    pub(in crate::config) selectors: Key<Vec<String>>,
    /// Duration; lifetime of its X.509-SVIDs. Default: `issuer.svid_ttl`; `10s` to `7days`.
    pub(in crate::config) svid_ttl: Key<Interval>,
    /// Duration; lifetime of its JWT-SVIDs. Default: `issuer.jwt_svid_ttl`; `10s` to `1day`.
    pub(in crate::config) jwt_svid_ttl: Key<Interval>,
    /// What the identity is for, told to workloads that have several; 1 to 1024 bytes. Default:
    /// none.
    pub(in crate::config) hint: Key<String>,
    /// DNS names in its X.509-SVIDs, the first also as common name. Default: none.
    pub(in crate::config) dns_names: Key<Vec<String>>,
    /// Names of other trust domains that its workloads trust, by their bundles. Default: none.
    pub(in crate::config) federates_with: Key<Vec<String>>,
}

/// `[[deny]]`: whom nobody here talks to, whatever entries and rules say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DenyTable {
    /// The SPIFFE ID of a workload of any trust domain; no pattern. This or `serial`.
    pub(in crate::config) spiffe_id: Key<String>,
    /// The serial number of a certificate in hex, as `openssl x509 -serial` prints it.
    pub(in crate::config) serial: Key<String>,
    /// Why, shown in records; up to 256 bytes. Default: none.
    pub(in crate::config) reason: Key<String>,
}

/// `[[outbound]]`: a rule for connections that local workloads open.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OutboundTable {
    /// Unique name, shown in records. Default: `outbound[0]` and so on.
    pub(in crate::config) name: Key<String>,
    /// Local SPIFFE IDs, or patterns ending in `/*`. Default: any program.
    pub(in crate::config) workloads: Key<Vec<String>>,
    /// Destination addresses and networks. Default: any, unless `hosts` are given.
    pub(in crate::config) to: Key<Vec<String>>,
    /// Destination names, looked up when the rules are loaded. Default: none.
    pub(in crate::config) hosts: Key<Vec<String>>,
    /// Destination ports. Default: `"all"`.
    pub(in crate::config) ports: Key<Ports>,
    /// `mtls`, `plaintext` or `refuse`. Required.
    pub(in crate::config) action: Key<OutboundActionWord>,
    /// SPIFFE IDs, or patterns ending in `/*`, also of other trust domains, of which the server must
    /// prove one. Required for mtls.
    pub(in crate::config) peers: Key<Vec<String>>,
    /// ALPN protocols to offer, 1 to 255 bytes each. Default: none.
    pub(in crate::config) alpn: Key<Vec<String>>,
    /// Server name to send. Default: none.
    pub(in crate::config) sni: Key<String>,
    /// Whether the rule only notes in records what it would have done. Default: false.
    pub(in crate::config) dry_run: Key<bool>,
}

/// `[[inbound]]`: a rule for connections that local workloads accept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct InboundTable {
    /// Unique name, shown in records. Default: `inbound[0]` and so on.
    pub(in crate::config) name: Key<String>,
    /// Local SPIFFE IDs, or patterns ending in `/*`. Default: any program.
    pub(in crate::config) workloads: Key<Vec<String>>,
    /// Ports of the listener. Default: `"all"`.
    pub(in crate::config) ports: Key<Ports>,
    /// Client addresses and networks. Default: any.
    pub(in crate::config) from: Key<Vec<String>>,
    /// `allow` or `deny`. Required.
    pub(in crate::config) action: Key<InboundActionWord>,
    /// SPIFFE IDs, or patterns ending in `/*`, of clients, also of other trust domains. Never speaks
    /// of a client that proves no identity. Default: any, but in an allowing rule nobody of another
    /// trust domain.
    pub(in crate::config) peers: Key<Vec<String>>,
    /// TLS without the mesh's mark: `terminate`, `passthrough` or `refuse`. Default: what a later
    /// rule says, or terminate.
    pub(in crate::config) unmarked_tls: Key<UnmarkedTlsWord>,
    /// Clients in the clear: `admit` or `refuse`. Default: `refuse`.
    pub(in crate::config) plaintext: Key<PlaintextWord>,
    /// Whether the rule only notes in records what it would have done. Default: false.
    pub(in crate::config) dry_run: Key<bool>,
}

/// `[[files]]`: an SVID, its key and the bundle in files, for a program that reads only files.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct FilesTable {
    /// Unique name, shown in records. Default: `files[0]` and so on.
    pub(in crate::config) name: Key<String>,
    /// The identity, which an entry of the configuration gives. This or `entry` is required.
    pub(in crate::config) spiffe_id: Key<String>,
    /// Id of the entry, where several give the identity. Default: the first by its id.
    pub(in crate::config) entry: Key<String>,
    /// Where the files are: an absolute path without symbolic links, that nobody but root and the
    /// owner may write to. Required.
    pub(in crate::config) directory: Key<PathBuf>,
    /// Name of the file with the SVID and its intermediates. Default: `svid.pem`.
    pub(in crate::config) certificate: Key<String>,
    /// Name of the file with the key; that of `certificate` joins both. Default: `svid.key`.
    pub(in crate::config) key: Key<String>,
    /// Name of the file with the bundle of the trust domain. Default: `bundle.pem`.
    pub(in crate::config) bundle: Key<String>,
    /// `user` or `user:group`, by name or number; the files are theirs. Required.
    pub(in crate::config) owner: Key<UserWord>,
    /// File with the pid of a process of the owner, which gets `signal`. Default: none.
    pub(in crate::config) pid_file: Key<PathBuf>,
    /// Signal for that process after each change. Default: `SIGHUP`, with a `pid_file`.
    pub(in crate::config) signal: Key<SignalWord>,
    /// Program and arguments to run as the owner after each change. Default: none.
    pub(in crate::config) command: Key<Vec<String>>,
    /// Duration; how long it may run. Default: `10s`; `100ms` to `5m`.
    pub(in crate::config) command_timeout: Key<Interval>,
}
