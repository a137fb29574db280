//! A plain DNS client: octets in, octets out.

use super::PATIENCE;
use super::message::{Message, Query};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Asks one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub gateway: SocketAddr,
}

impl Client {
    pub fn new(gateway: SocketAddr) -> Self {
        Self { gateway }
    }

    /// Asks by UDP and reads the answer.
    ///
    /// # Panics
    /// When none comes, or one that does not fit the question.
    pub fn udp(&self, query: &Query) -> Message {
        let octets = self.udp_octets(&query.octets()).unwrap_or_else(|| panic!("no answer to {query:?}"));
        self.fitting(query, &octets)
    }

    /// Asks by TCP, on a connection of its own.
    pub fn tcp(&self, query: &Query) -> Message {
        let mut connection = self.connect();
        connection.send(&query.octets());
        let octets = connection.receive().unwrap_or_else(|| panic!("no answer to {query:?}"));
        self.fitting(query, &octets)
    }

    /// Sends octets by TCP; None when the other side ends the connection instead of answering.
    pub fn try_tcp(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(self.gateway).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let frame = [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat();
        stream.write_all(&frame).ok()?;
        Connection { stream }.receive()
    }

    /// Sends octets by UDP and waits for some.
    pub fn udp_octets(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let socket = self.udp_socket();
        socket.send(octets).unwrap();
        receive(&socket, PATIENCE)
    }

    /// A socket that hears only the gateway.
    pub fn udp_socket(&self) -> UdpSocket {
        let any: IpAddr =
            if self.gateway.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(self.gateway).unwrap();
        socket
    }

    /// Opens a TCP connection.
    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.gateway).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { stream }
    }

    /// Reads an answer and holds it to its question.
    fn fitting(&self, query: &Query, octets: &[u8]) -> Message {
        let answer = Message::read(octets);
        assert_eq!(answer.id, query.id, "the ID");
        assert_eq!(answer.flags & 0x8000, 0x8000, "QR");
        if let Some(question) = &answer.question {
            assert_eq!(
                question.name.trim_end_matches('.'),
                query.name.trim_end_matches('.'),
                "the question's name"
            );
            assert_eq!(question.rtype, query.rtype, "the question's type");
        }
        answer
    }
}

/// Waits for one datagram.
pub fn receive(socket: &UdpSocket, limit: Duration) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = vec![0; 65_535];
    match super::uninterrupted(|| socket.recv(&mut buffer)) {
        Ok(length) => {
            buffer.truncate(length);
            Some(buffer)
        }
        Err(error) if is_timeout(&error) => None,
        Err(error) => panic!("receiving: {error}"),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A TCP connection to the gateway.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
}

impl Connection {
    /// Sends one framed message.
    pub fn send(&mut self, message: &[u8]) {
        let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(message);
        self.stream.write_all(&frame).unwrap();
    }

    /// Reads one framed message; None at the end of the connection.
    ///
    /// # Panics
    /// When neither comes.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 2];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_timeout(&error) => panic!("no answer by TCP within {PATIENCE:?}"),
            Err(_) => return None,
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.stream.read_exact(&mut message).unwrap();
        Some(message)
    }
}
