//! veildns: a local privacy gateway for DNS. Plain DNS in, DNS over HTTPS and DNS over TLS out.
//!
//! The modules form layers; each uses only lower ones (`tests/layering.rs` holds them to it):
//!
//! ```text
//! L7  main  cli  app  control        compose, reload, stop
//! L6  listener                       clients' sockets
//! L5  resolver                       the pipeline: what happens to a query
//! L4  upstream                       which server, and is it well
//! L3  transport                      how to reach one server
//! L2  policy     cache               pure decisions; siblings do not know one another
//! L1  config  telemetry  clock  seldom  plain data, counting, waiting
//! L0  wire                           DNS bytes
//! ```
//!
//! A newcomer reads `listener/udp.rs`, `resolver/mod.rs`, `cache/mod.rs`, `upstream/group.rs` and
//! `transport/dot/mod.rs`, in this order: the path of one query.

#![cfg_attr(
    not(feature = "tools"),
    allow(dead_code, reason = "a few parts below are for commands that this build leaves out")
)]

pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod listener;
pub mod policy;
pub mod resolver;
pub mod seldom;
pub mod telemetry;
pub mod transport;
pub mod upstream;
pub mod wire;
