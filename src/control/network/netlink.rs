//! Linux's word on its network: a netlink socket (rtnetlink(7)) says *that* something changed, the interfaces and the routing
//! tables then say what there is. A crate that watches interfaces would not tell of routes, and a default route that moves
//! to another line is the change that matters most on a router.

use super::NetworkEvents;
use super::outlook::Outlook;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket,
};
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use tokio::net::UdpSocket;

/// Multicast groups of rtnetlink(7): RTMGRP_LINK, and addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The routing tables. Not `/proc/net`, which a hardened unit hides.
const ROUTES_V4: &str = "/proc/self/net/route";
/// See [`ROUTES_V4`].
const ROUTES_V6: &str = "/proc/self/net/ipv6_route";

/// Octets read of a routing table: a router with the whole Internet's must not fill our memory.
const LONGEST_TABLE: u64 = 1 << 20;

/// Events taken off the socket before anything else has its turn.
const MOST_EVENTS: usize = 256;

/// A socket that hears when something changes.
#[derive(Debug)]
pub struct Netlink {
    /// Never read for its content. By its type it is UDP's: waiting for, and receiving from, a socket of datagrams is the
    /// same for every family, and tokio has no safe way to a descriptor of no type.
    socket: UdpSocket,
}

impl Netlink {
    /// Begins to listen. Call it inside a runtime.
    ///
    /// # Errors
    /// A sandbox that forbids netlink sockets.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, Some(SockProtocol::NetlinkRoute))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }
}

impl NetworkEvents for Netlink {
    async fn changed(&mut self) {
        // An error is that of a runtime that ends.
        if self.socket.readable().await.is_err() {
            std::future::pending().await
        }
        let mut octets = [0; 4096];
        for _ in 0..MOST_EVENTS {
            match self.socket.try_recv(&mut octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Too many events at once (ENOBUFS) are events as well.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn outlook(&self) -> Outlook {
        let mut outlook = Outlook::default();
        for interface in getifaddrs().into_iter().flatten() {
            if let Some(address) = interface.address.as_ref().and_then(ip) {
                outlook.add_address(address);
            }
        }
        outlook.add_routes_v4(&table(ROUTES_V4));
        outlook.add_routes_v6(&table(ROUTES_V6));
        outlook
    }
}

/// Returns the IP address in a socket address.
fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// Reads a routing table; one that is not there is empty.
fn table(path: &str) -> String {
    let mut text = String::new();
    // A partial table is compared with a partial table: better than none.
    let _ = File::open(path).and_then(|file| file.take(LONGEST_TABLE).read_to_string(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_an_outlook_that_does_not_change_by_itself() {
        let Ok(events) = Netlink::open() else { return };
        assert_eq!(events.outlook(), events.outlook());
    }
}
