//! Clients' sockets: UDP in batches, TCP with pipelining; who may ask.

pub mod admission;
pub mod batch;
pub mod tcp;
pub mod udp;
pub mod worker;
