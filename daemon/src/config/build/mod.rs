//! From the shape of the files to typed values: what each value means, and whether all of them can
//! stand together. Collects every problem. Start at [`build`].

mod entries;
mod federation;
mod files;
mod rules;
mod scopes;
mod selectors;
mod settings;
mod values;
mod whole;

pub(super) use settings::{admin, capture, is_instance};
pub(super) use values::include_dir;
pub(super) use whole::{build, denials_alone, entries_alone};
