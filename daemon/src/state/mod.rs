//! What operators change while the daemon runs, and what outlives its restart: entries that stand
//! in no file of the configuration, bundles of other trust domains, and a deny list. Kept in files of the daemon's own below the state directory,
//! read by the rules of the configuration. Start at [`LiveEntries`] and [`ForeignBundles`].

mod bundles;
mod denials;
mod entries;
mod sequence;

#[cfg(test)]
mod tests;

pub use bundles::{
    BundleError, BundleSource, Declared, Enforce, ForeignBundles, KnownBundle, Taken,
};
pub use denials::{DenialsError, LiveDenials};
pub use entries::{Added, ChangeError, Conflict, LiveEntries, LiveEntry, StateError};
pub use sequence::Sequence;
