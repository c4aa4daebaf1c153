//! The Workload API over a real socket, asked by a stock gRPC client in this very process.

mod jwt;
mod sds;
mod stage;
mod x509;
