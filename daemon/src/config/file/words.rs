//! Values that are one of a few words.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::config::problem::nearest;
use crate::config::{EndpointProfile, LogFormat, LogLevel};
use crate::policy::UnmarkedTls;
use crate::workload::{FailMode, Mode, OtherTransports, ReloadSignal};

macro_rules! words {
    ($(#[$doc:meta] $name:ident($target:ty) { $($word:literal => $value:expr,)+ })+) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::config) struct $name(pub(in crate::config) $target);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer).unwrap_or_default();
                match word.as_str() {
                    $($word => Ok(Self($value)),)+
                    other => Err(D::Error::custom(no_such_word(other, &[$($word),+]))),
                }
            }
        }
    )+};
}

words! {
    /// How a bundle endpoint proves who it is.
    ProfileWord(EndpointProfile) {
        "https_spiffe" => EndpointProfile::HttpsSpiffe,
        "https_web" => EndpointProfile::HttpsWeb,
    }
    /// `scope.mode`.
    ModeWord(Mode) {
        "observe" => Mode::Observe,
        "permissive" => Mode::Permissive,
        "strict" => Mode::Strict,
    }
    /// `scope.fail`.
    FailWord(FailMode) {
        "closed" => FailMode::Closed,
        "open" => FailMode::Open,
    }
    /// `scope.other_transports`.
    TransportsWord(OtherTransports) {
        "refuse" => OtherTransports::Refuse,
        "dns-only" => OtherTransports::DnsOnly,
        "allow" => OtherTransports::Allow,
    }
    /// `outbound.action`.
    OutboundActionWord(OutboundActionKind) {
        "mtls" => OutboundActionKind::Mtls,
        "plaintext" => OutboundActionKind::Plaintext,
        "refuse" => OutboundActionKind::Refuse,
    }
    /// `inbound.action`.
    InboundActionWord(InboundActionKind) {
        "allow" => InboundActionKind::Allow,
        "deny" => InboundActionKind::Deny,
    }
    /// `inbound.unmarked_tls`.
    UnmarkedTlsWord(UnmarkedTls) {
        "terminate" => UnmarkedTls::Terminate,
        "passthrough" => UnmarkedTls::Passthrough,
        "refuse" => UnmarkedTls::Refuse,
    }
    /// `inbound.plaintext`.
    PlaintextWord(bool) {
        "admit" => true,
        "refuse" => false,
    }
    /// `files.signal`.
    SignalWord(ReloadSignal) {
        "SIGHUP" => ReloadSignal::Hup,
        "SIGUSR1" => ReloadSignal::Usr1,
        "SIGUSR2" => ReloadSignal::Usr2,
        "SIGTERM" => ReloadSignal::Term,
        "SIGINT" => ReloadSignal::Int,
        "SIGQUIT" => ReloadSignal::Quit,
        "SIGWINCH" => ReloadSignal::Winch,
    }
    /// `log.level`.
    LogLevelWord(LogLevel) {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
    }
    /// `log.format`.
    LogFormatWord(LogFormat) {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
    }
}

/// What an outbound rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum OutboundActionKind {
    Mtls,
    Plaintext,
    Refuse,
}

/// What an inbound rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum InboundActionKind {
    Allow,
    Deny,
}

/// A user by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a user is a name or a number from 0 to 4294967294")]
pub(in crate::config) enum UserWord {
    /// Uid.
    Number(u32),
    /// Login name.
    Name(String),
}

fn no_such_word(word: &str, words: &[&str]) -> String {
    let list = words.join(", ");
    match nearest(word, words) {
        Some(near) => format!("not one of {list}; perhaps {near} is meant"),
        None => format!("not one of {list}"),
    }
}
