//! Real processes, claims made as the kernel would record them, and what becomes of them.

mod gone;
mod live;
mod running;
