//! Bundles of other trust domains: which are in force, and the file that keeps them over restarts.

mod store;
mod text;

pub use store::{BundleError, BundleSource, Declared, Enforce, ForeignBundles, KnownBundle, Taken};
