//! Handles on private parts for the benches: the ID table of a stream connection and the requests of DNS over HTTPS.
//! Not part of the interface: the product does not use it.

use super::doh::request::RequestTemplate;
use super::mux::{Arrival, InFlight, Mux};
use crate::config::settings::{DohMethod, Host};
use bytes::Bytes;
use std::time::Instant;

/// The ID table of a connection.
#[derive(Debug)]
pub struct IdTable(Mux<Asked>);

/// A query in the table.
#[derive(Debug)]
struct Asked {
    /// The message.
    query: Bytes,
    /// When to stop waiting.
    deadline: Instant,
}

impl InFlight for Asked {
    fn query(&self) -> &Bytes {
        &self.query
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl IdTable {
    /// Makes a table for up to `limit` queries.
    pub fn new(limit: usize) -> Self {
        Self(Mux::new(limit, 0))
    }

    /// Enters a query and returns its ID.
    pub fn enter(&mut self, query: &Bytes, deadline: Instant) -> Option<u16> {
        self.0.insert(Asked { query: query.clone(), deadline }).ok()
    }

    /// Returns true when `message` answers a query in the table, which is then taken out.
    pub fn arrive(&mut self, message: &[u8]) -> bool {
        matches!(self.0.arrive(message), Arrival::Answer(_))
    }
}

/// What makes the requests of DNS over HTTPS.
#[derive(Debug)]
pub struct Requests(RequestTemplate);

impl Requests {
    /// Makes it for a server; None for a path that cannot stand in a URI.
    pub fn new(host: &Host, path: &str, method: DohMethod) -> Option<Self> {
        RequestTemplate::new(host, 443, path, method).ok().map(Self)
    }

    /// Builds the request of a query; None for a query that does not fit.
    pub fn build(&self, query: &Bytes) -> Option<(http::Request<()>, Option<Bytes>)> {
        self.0.request(query).ok()
    }
}
