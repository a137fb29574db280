//! A server of DNS over TLS in a process of its own, so that it can be killed: lean, because it shares the machine with
//! what is measured. Every A query gets one address. On its standard input it is told how late its octets are to
//! travel; it ends with that input.

use crate::scenario::OWN_PREFIX;
use crate::support::authority::Identity;
use crate::support::netns::Net;
use crate::support::zone;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// The port of DNS over TLS.
const PORT: u16 = 853;

/// A server from outside. Killed when dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts one in the world and waits until it listens.
    pub(crate) fn start(net: &Net, folder: &Path, (v4, v6): (&str, &str)) -> Self {
        Self::spawn(net.in_world(&std::env::current_exe().unwrap()).args(["serve", v4, v6]).arg(folder))
    }

    /// Starts a process and waits until it listens.
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    /// Starts what does a NAT64's work for one server: a relay from an IPv6 address of the world to the server's IPv4 address.
    pub(crate) fn relay(net: &Net, translated: &str, server: &str) -> Self {
        net.add_to_world(translated);
        Self::spawn(net.in_world(&std::env::current_exe().unwrap()).args(["relay", translated, server]))
    }

    /// Makes its octets travel so late, each way.
    pub(crate) fn delay(&mut self, delay: Duration) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{}", delay.as_millis()).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is a server at these addresses until standard input ends.
pub(crate) fn serve(addresses: &[String], folder: &Path) {
    let acceptor = acceptor(folder);
    let delay = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for address in addresses {
            let listener = listen(address);
            let (acceptor, delay) = (acceptor.clone(), Arc::clone(&delay));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(stream, acceptor.clone(), Arc::clone(&delay)));
                }
            });
        }
        println!("ready");
        tokio::task::spawn_blocking(move || {
            for line in io::stdin().lines() {
                delay.store(line.unwrap().parse().unwrap(), Ordering::Relaxed);
            }
        })
        .await
        .unwrap();
    });
    std::process::exit(0);
}

/// Listens on an address.
fn listen(address: &str) -> TcpListener {
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

/// Carries connections from one address on to another, until it is killed.
pub(crate) fn translate(from: &str, to: &str) {
    let to = SocketAddr::new(to.parse().unwrap(), PORT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = listen(from);
        println!("ready");
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

/// Reads the certificate and key that all servers share.
fn acceptor(folder: &Path) -> TlsAcceptor {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let identity = Identity {
        certificate: CertificateDer::from_pem_slice(&read("server.pem")).unwrap(),
        key: PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap(),
        pin: String::new(),
        certificate_pem: String::new(),
        key_pem: String::new(),
    };
    identity.acceptor(&[b"dot"])
}

/// Serves one connection, between which and the network is a relay that takes its time.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, delay: Arc<AtomicU64>) {
    let _ = stream.set_nodelay(true);
    let (near, far) = tokio::io::duplex(1 << 20);
    let (from_client, to_client) = stream.into_split();
    let (from_server, to_server) = tokio::io::split(far);
    tokio::select! {
        _ = relay(from_client, to_server, &delay) => {}
        _ = relay(from_server, to_client, &delay) => {}
        _ = answer_all(near, acceptor) => {}
    }
}

/// Carries octets on, each as late as the delay says when it comes, in their order.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: &AtomicU64,
) -> io::Result<()> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let due = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
            let _ = sender.send((due, buffer[..length].to_vec())).await;
        }
    };
    let writing = async {
        while let Some((due, octets)) = receiver.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            to.write_all(&octets).await?;
        }
        Ok(())
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}

/// Speaks DNS over TLS (RFC 7858): answers all that has come, and writes the answers at once.
async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin, acceptor: TlsAcceptor) -> io::Result<()> {
    let mut tls = acceptor.accept(stream).await?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        if tls.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut at = 0;
        while let Some(length) = input.get(at..at + 2) {
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            let Some(query) = input.get(at + 2..end) else { break };
            let answer = answer(query);
            output.extend_from_slice(&u16::try_from(answer.len()).unwrap().to_be_bytes());
            output.extend_from_slice(&answer);
            at = end;
        }
        input.drain(..at);
        tls.write_all(&output).await?;
        tls.flush().await?;
        output.clear();
    }
}

/// The question that shows where a NAT64 is (RFC 7050).
const IPV4ONLY: &[u8] = b"\x08ipv4only\x04arpa\x00\x00\x1c\x00\x01";

/// One address for an A query, the network's own prefix for those who look for its NAT64; the zone's answer to others,
/// which are few.
fn answer(query: &[u8]) -> Vec<u8> {
    let end = zone::question_end(query);
    if query[12..end].eq_ignore_ascii_case(IPV4ONLY) {
        let mut answer = zone::start(query, 0);
        answer[7] = 1;
        answer.extend_from_slice(&[0xC0, 12, 0, 28, 0, 1, 0, 0, 1, 44, 0, 16]);
        let shown: std::net::Ipv6Addr = format!("{OWN_PREFIX}192.0.0.170").parse().unwrap();
        answer.extend_from_slice(&shown.octets());
        return answer;
    }
    if query[end - 4..end] != [0, 1, 0, 1] {
        return zone::answer(query);
    }
    let mut answer = zone::start(query, 0);
    answer[7] = 1;
    answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 104, 51, 100, 200]);
    if query[11] != 0 {
        answer.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        answer[11] = 1;
    }
    answer
}
