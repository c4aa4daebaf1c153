//! `cargo xtask tidy`: the rules of the house as a test. Each file is one rule over text; what
//! the rules are about (imports, homes, unsafe files) is read from the tables in ARCHITECTURE.md,
//! so that changing a rule is a change that a reviewer sees there.

mod all;
mod code_map;
mod denials;
mod edges;
mod form;
mod homes;
mod members;
mod source;
mod table;
mod unsafety;

pub(crate) use all::run;
pub(crate) use members::members;
