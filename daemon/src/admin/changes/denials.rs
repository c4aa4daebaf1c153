//! Orders about the deny list, and what became of them, as serde sees them; field names are public.

use serde::{Deserialize, Serialize};

use crate::policy::{Denied, DenyItem};

/// Whom to deny, or to deny no more; what is wrong with it, the daemon says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyOrder {
    /// A SPIFFE ID; this or the serial number.
    pub spiffe_id: Option<String>,
    /// The serial number of a certificate, hex.
    pub serial: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// One item of the deny list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyDump {
    /// The SPIFFE ID.
    pub spiffe_id: Option<String>,
    /// The serial number, lower-case hex without zeros in front.
    pub serial: Option<String>,
    /// Why, in the operator's words.
    pub reason: String,
    /// The file and line that it comes from; `live` for one that was added while the daemon ran.
    pub origin: String,
}

/// What became of the deny list. By the time of the answer it is on the disk and in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenyChanged {
    /// Whether it is another than before.
    pub changed: bool,
    /// How many open connections it cuts.
    pub cut: usize,
    /// All of it.
    pub list: Vec<DenyDump>,
}

impl From<&DenyItem> for DenyDump {
    fn from(item: &DenyItem) -> Self {
        let (spiffe_id, serial) = match &item.denied {
            Denied::Id(id) => (Some(id.to_string()), None),
            Denied::Serial(serial) => (None, Some(serial.clone())),
        };
        let (reason, origin) = (item.reason.clone(), item.origin.clone());
        Self { spiffe_id, serial, reason, origin }
    }
}
