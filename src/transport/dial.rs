//! stub
use super::{Surroundings, TransportError};
use crate::config::settings::Host;
use std::fmt::Debug;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Opens a stream of octets to one server. Tests implement it with pipes.
pub(crate) trait Dial: Debug + Send + Sync + 'static {
    /// What a dial gives.
    type Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static;
    /// Opens a stream, until `deadline` at the latest. Cancel safe.
    fn dial(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<Dialled<Self::Stream>, TransportError>> + Send;
}

/// A fresh stream and what is known of it.
#[derive(Debug)]
pub(crate) struct Dialled<S> {
    pub(crate) stream: S,
    pub(crate) address: SocketAddr,
    pub(crate) connect_time: Duration,
}

/// TCP to the server's addresses, staggered.
#[derive(Debug)]
pub(crate) struct TcpDial {}
impl TcpDial {
    /// `addresses` empty: those of `host`, looked up when first needed.
    pub(crate) fn new(_host: &Host, _port: u16, _addresses: &[IpAddr], _around: &Surroundings) -> Self {
        todo!()
    }
}
impl Dial for TcpDial {
    type Stream = tokio::net::TcpStream;
    async fn dial(&self, _deadline: Instant) -> Result<Dialled<Self::Stream>, TransportError> {
        todo!()
    }
}
