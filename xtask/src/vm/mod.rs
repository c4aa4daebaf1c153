//! Tests on other kernels: Debian's, each in an emulated guest that has this machine's files as its
//! own root. Start with `suite::run`.

mod apt;
mod guest;
mod image;
mod initramfs;
mod publish;
mod release;
mod suite;

pub(crate) use suite::{command, run};
