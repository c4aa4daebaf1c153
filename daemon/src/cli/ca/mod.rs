//! `tacit ca`: makes authorities in files, and has those of a node follow one another. What concerns a
//! node that runs is asked of its daemon; with `--directory` the same is done to files.

mod args;
mod files;
mod obey;
mod orders;
mod progress;
mod show;

pub(super) use args::Ca;
pub(super) use obey::obey;
