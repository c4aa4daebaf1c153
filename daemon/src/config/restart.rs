//! Which keys a running daemon cannot take over. Scopes, entries and rules are reloaded; all else
//! is set up once, and a change of it is refused rather than half applied.

use super::Config;

/// The keys that differ and need a restart, in the order of the file.
#[expect(clippy::too_many_lines, reason = "a table, one line for each key")]
pub(super) fn keys_that_need_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    macro_rules! compare {
        ($($section:ident { $($field:ident => $key:literal,)+ })+) => {
            $($(if old.$section.$field != new.$section.$field {
                keys.push(concat!(stringify!($section), ".", $key));
            })+)+
        };
    }
    compare! {
        node {
            trust_domain => "trust_domain",
            name => "name",
            state_dir => "state_dir",
            run_dir => "run_dir",
            include_dir => "include_dir",
        }
        capture {
            cgroup => "cgroup",
            instance => "instance",
            bpffs => "bpffs",
        }
        attest { digest_limit_bytes => "digest_limit", deadline => "deadline", }
        issuer { kind => "kind", svid_ttl => "svid_ttl", jwt_svid_ttl => "jwt_svid_ttl", backdate => "backdate", }
        proxy {
            outbound_port => "outbound_port",
            inbound_port => "inbound_port",
            connect_timeout => "connect_timeout",
            handshake_timeout => "handshake_timeout",
            first_byte_timeout => "first_byte_timeout",
            idle_timeout => "idle_timeout",
            user_timeout => "user_timeout",
            keepalive => "keepalive",
            drain_timeout => "drain_timeout",
            max_connections => "max_connections",
            max_connections_per_workload => "max_connections_per_workload",
            max_handshakes => "max_handshakes",
            max_handshake_rate => "max_handshake_rate",
            max_handshake_rate_per_workload => "max_handshake_rate_per_workload",
            max_unproved => "max_unproved",
            max_unproved_per_client => "max_unproved_per_client",
            buffer_bytes => "buffer",
        }
        workload_api {
            enabled => "enabled",
            socket => "socket",
            max_connections => "max_connections",
            max_connections_per_cgroup => "max_connections_per_cgroup",
            requests_per_second => "requests_per_second",
        }
        bundle_endpoint {
            listen => "listen",
            profile => "profile",
            spiffe_id => "spiffe_id",
            certificate => "certificate",
            key => "key",
            refresh_hint => "refresh_hint",
        }
        federation {
            shortest_refresh => "shortest_refresh",
            longest_refresh => "longest_refresh",
            fetch_timeout => "fetch_timeout",
        }
        oidc { issuer => "issuer", listen => "listen", certificate => "certificate", key => "key", }
        audit {
            path => "path",
            rotate_bytes => "rotate_bytes",
            keep => "keep",
            queue => "queue",
            open_after => "open_after",
            observe => "observe",
        }
        admin { socket => "socket", metrics_listen => "metrics_listen", }
        log { level => "level", format => "format", }
    }
    keys
}
