//! Clients that ask all the time, and count: every query is sent once, from a port of its own, and waited for. And what the
//! metrics page says meanwhile.

use super::PATIENCE;
use super::message::{encode_name, rtype};
use super::zone;
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What became of queries.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sent.
    pub asked: AtomicU64,
    /// Never answered, or refused by the kernel.
    pub lost: AtomicU64,
    /// Answered with another rcode than NOERROR.
    pub failed: AtomicU64,
}

impl Tally {
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Lost and failed.
    pub fn bad(&self) -> (u64, u64) {
        (self.lost.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn count(&self, reply: Option<&[u8]>) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match reply {
            None => self.lost.fetch_add(1, Ordering::Relaxed),
            Some(reply) if reply[3] & 15 != 0 => self.failed.fetch_add(1, Ordering::Relaxed),
            Some(_) => 0,
        };
    }
}

/// Clients that ask until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

/// Makes the name of a query from its number.
pub type Names = fn(u64) -> String;

/// One name over and over.
pub fn hot(_number: u64) -> String {
    "host-hot.lab.example".to_owned()
}

/// Mostly the hot name, now and then a new one.
pub fn mixed(number: u64) -> String {
    if number.is_multiple_of(8) { fresh(number) } else { hot(number) }
}

/// A name that nobody asked for before.
pub fn fresh(_number: u64) -> String {
    format!("host-{:x}.lab.example", fastrand::u64(..))
}

impl Load {
    /// Starts `clients` that ask by UDP.
    pub fn udp(gateway: SocketAddr, from: Ipv4Addr, clients: usize, names: Names) -> Self {
        Self::udp_every(Duration::ZERO, gateway, from, clients, names)
    }

    /// Starts `clients` that ask by UDP and rest so long between two queries.
    pub fn udp_every(
        rest: Duration,
        gateway: SocketAddr,
        from: Ipv4Addr,
        clients: usize,
        names: Names,
    ) -> Self {
        Self::start(clients, names, move |query| {
            std::thread::sleep(rest);
            let socket = udp_from(from, gateway);
            socket.send(query).ok()?;
            let mut reply = vec![0; 4096];
            let length = super::uninterrupted(|| socket.recv(&mut reply)).ok()?;
            reply.truncate(length);
            Some(reply)
        })
    }

    /// Starts `clients` that ask by TCP, on a connection for each query. One that is closed unheard is tried once more, as
    /// clients do (RFC 7766 §6.2.4).
    pub fn tcp(gateway: SocketAddr, from: Ipv4Addr, clients: usize, names: Names) -> Self {
        Self::start(clients, names, move |query| {
            ask_by_tcp(gateway, from, query).or_else(|| ask_by_tcp(gateway, from, query))
        })
    }

    fn start(
        clients: usize,
        names: Names,
        ask: impl Fn(&[u8]) -> Option<Vec<u8>> + Clone + Send + 'static,
    ) -> Self {
        let (stop, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let threads = (0..clients).map(|_| {
            let (stop, tally, ask) = (Arc::clone(&stop), Arc::clone(&tally), ask.clone());
            std::thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = fastrand::u16(..);
                    let reply = ask(&plain_query(id, &names(number)));
                    tally.count(reply.as_deref().filter(|reply| reply[..2] == id.to_be_bytes()));
                }
            })
        });
        Self { threads: threads.collect(), stop, tally }
    }

    /// Waits until so many more queries were asked.
    pub fn wait_for(&self, more: u64) {
        let until = self.tally.asked() + more;
        super::eventually("the clients go on asking", || self.tally.asked() >= until);
    }

    /// Stops; returns how many were asked, lost and failed.
    pub fn stop(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let (lost, failed) = self.tally.bad();
        (self.tally.asked(), lost, failed)
    }
}

/// A query for A with RD and no EDNS.
pub fn plain_query(id: u16, name: &str) -> Vec<u8> {
    let mut octets = id.to_be_bytes().to_vec();
    octets.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets.extend(encode_name(name));
    octets.extend_from_slice(&[0, 1, 0, 1]);
    octets
}

/// One query, one connection; None when it ends unheard.
fn ask_by_tcp(gateway: SocketAddr, from: Ipv4Addr, query: &[u8]) -> Option<Vec<u8>> {
    let mut stream = tcp_from(from, gateway).ok()?;
    stream.write_all(&framed(query)).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).ok()?;
    Some(reply)
}

/// The message with its length before it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// A UDP socket of a client with this address.
pub fn udp_from(from: Ipv4Addr, gateway: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(gateway).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A TCP connection of a client with this address. It is reset when it is dropped, so that tests leave no ports behind that wait.
pub fn tcp_from(from: Ipv4Addr, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect(&gateway.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An answer that is made quickly: one address record, whatever the name.
pub fn quick(query: &[u8]) -> Vec<u8> {
    let mut answer = zone::start(query, 0);
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12]);
    answer.extend_from_slice(&rtype::A.to_be_bytes());
    answer.extend_from_slice(&[0, 1, 0, 0, 1, 0x2c, 0, 4, 192, 0, 2, 1]);
    answer
}

/// The metrics page at one moment.
pub struct Page(String);

impl Page {
    /// Fetches it.
    pub fn fetch(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Self(text)
    }

    /// Returns the value of a sample, 0 when it is not there.
    pub fn value(&self, sample: &str) -> u64 {
        let is_it = |line: &&str| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' '));
        let line = self.0.lines().find(is_it).and_then(|line| line.rsplit(' ').next());
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// How much of a bound is in use.
    pub fn in_use(&self, limit: &str) -> u64 {
        self.value(&format!("veildns_limit_in_use{{limit=\"{limit}\"}}"))
    }

    /// How often a bound was reached.
    pub fn reached(&self, limit: &str) -> u64 {
        self.value(&format!("veildns_limit_reached_total{{limit=\"{limit}\"}}"))
    }
}
