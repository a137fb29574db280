//! Sockets that another process hands over, or whose port it shares with us until it ends: how an upgrade, or a restart by
//! systemd, loses no query. What is done with the sockets is `worker`'s matter.
//!
//! Sockets come as sd_listen_fds(3) says: `LISTEN_FDS` of them from descriptor 3 on, for the process `LISTEN_PID`. Their
//! names (`LISTEN_FDNAMES`) mean nothing here: an address says all.

use listenfd::ListenFd;
use socket2::SockRef;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Whether other sockets may already be on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody may have the port, not even another instance of this program.
    #[default]
    Nobody,
    /// Sockets of ours may have it: other addresses of this gateway (a wildcard and a concrete one), or a predecessor
    /// that is about to stop. The kernel lets only the same user share.
    Ours,
}

/// What a start takes over from other processes.
#[derive(Debug, Default)]
pub struct Handover {
    /// Sockets handed over.
    pub inherited: Inherited,
    /// Whether a predecessor is still on the ports.
    pub sharing: Sharing,
}

/// Sockets handed over and not yet used.
#[derive(Debug, Default)]
pub struct Inherited {
    /// With where they are bound.
    udp: Vec<(SocketAddr, UdpSocket)>,
    /// With where they listen.
    tcp: Vec<(SocketAddr, TcpListener)>,
}

/// The two sockets of an address, as far as they were handed over.
#[derive(Debug, Default)]
pub(super) struct Pair {
    /// For datagrams.
    pub(super) udp: Option<UdpSocket>,
    /// For connections.
    pub(super) tcp: Option<TcpListener>,
}

impl Inherited {
    /// Takes the sockets that the environment tells of, once: it is changed so that no child believes to have them. To be
    /// called before there is a second thread. What is not a UDP socket or a TCP listener is left alone, with a warning.
    pub fn from_environment() -> Self {
        let mut found = Self::default();
        // The library also takes sockets that are meant for nobody in particular; sd_listen_fds(3) does not.
        if std::env::var_os("LISTEN_PID").is_none() {
            return found;
        }
        let mut sockets = ListenFd::from_env();
        for place in 0..sockets.len() {
            if let Err(error) = found.take_from(&mut sockets, place) {
                tracing::warn!(place, %error, "a socket that was handed over cannot be used");
            }
        }
        found
    }

    /// Takes one socket.
    fn take_from(&mut self, sockets: &mut ListenFd, place: usize) -> io::Result<()> {
        if let Ok(Some(socket)) = sockets.take_udp_socket(place) {
            socket.set_nonblocking(true)?;
            self.udp.push((socket.local_addr()?, socket));
            return Ok(());
        }
        if let Some(listener) = sockets.take_tcp_listener(place)? {
            if !SockRef::from(&listener).is_listener()? {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is a connection (Accept=no is wanted)",
                ));
            }
            listener.set_nonblocking(true)?;
            self.tcp.push((listener.local_addr()?, listener));
        }
        Ok(())
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.tcp.is_empty()
    }

    /// Takes what is bound to `address`.
    pub(super) fn take(&mut self, address: SocketAddr) -> Pair {
        Pair { udp: take(&mut self.udp, address), tcp: take(&mut self.tcp, address) }
    }

    /// Returns the address of some socket that is left.
    pub(super) fn next_address(&self) -> Option<SocketAddr> {
        let udp = self.udp.first().map(|(address, _)| *address);
        udp.or_else(|| self.tcp.first().map(|(address, _)| *address))
    }
}

impl Pair {
    /// True when there is neither.
    pub(super) fn is_empty(&self) -> bool {
        self.udp.is_none() && self.tcp.is_none()
    }
}

/// Takes the first one with this address.
fn take<T>(sockets: &mut Vec<(SocketAddr, T)>, address: SocketAddr) -> Option<T> {
    let place = sockets.iter().position(|(other, _)| *other == address)?;
    Some(sockets.remove(place).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sockets as if they had been handed over: both kinds on one port, and one for datagrams alone.
    pub(in crate::listener) fn some() -> (Inherited, SocketAddr, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let both = listener.local_addr().unwrap();
        let (socket, alone) = (UdpSocket::bind(both).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let single = alone.local_addr().unwrap();
        for socket in [&socket, &alone] {
            socket.set_nonblocking(true).unwrap();
        }
        listener.set_nonblocking(true).unwrap();
        let inherited = Inherited { udp: vec![(both, socket), (single, alone)], tcp: vec![(both, listener)] };
        (inherited, both, single)
    }

    #[test]
    fn sockets_are_found_by_their_address_and_only_once() {
        let (mut inherited, both, single) = some();
        assert!(inherited.take("127.0.0.1:1".parse().unwrap()).is_empty());
        let pair = inherited.take(both);
        assert!(pair.udp.is_some() && pair.tcp.is_some());
        assert!(inherited.take(both).is_empty() && !inherited.is_empty());
        assert_eq!(inherited.next_address(), Some(single));
        let pair = inherited.take(single);
        assert!(pair.udp.is_some() && pair.tcp.is_none());
        assert!(inherited.is_empty());
    }
}
