//! Plain DNS ports that must stay silent, and the search for names in what went over the wire.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// A UDP and a TCP socket on one port.
pub struct Trap {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Trap {
    /// Lays one on 127.0.0.1.
    pub fn lay() -> Self {
        for _ in 0..64 {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                udp.set_nonblocking(true).unwrap();
                tcp.set_nonblocking(true).unwrap();
                return Self { udp, tcp };
            }
        }
        panic!("no port is free for both UDP and TCP");
    }

    /// Lays one on the port of `address` over UDP only: TCP is the server's own.
    pub fn udp_beside(address: SocketAddr) -> UdpSocket {
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_nonblocking(true).unwrap();
        udp
    }

    pub fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }

    /// Fails when anything came.
    pub fn assert_silent(&self) {
        assert_udp_silent(&self.udp);
        match self.tcp.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("a TCP connection came to a plain port: {other:?}"),
        }
    }
}

/// Fails when a datagram came.
pub fn assert_udp_silent(udp: &UdpSocket) {
    let mut buffer = [0; 512];
    match super::uninterrupted(|| udp.recv(&mut buffer)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => panic!("a datagram came to a plain port: {other:?} {:02x?}", &buffer[..32]),
    }
}

/// Returns true when `needle` occurs in `haystack`, letter case aside.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}
