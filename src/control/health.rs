//! `veildns health`: asks a running gateway's own page whether it serves clients. For containers, which have no shell to do
//! it with.

use super::{CommandError, Exit, print, sources};
use crate::cli::ConfigArgs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step may take. Engines wait for a few seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Octets that the page's answer has at most: it is one word.
const LONGEST: u64 = 4096;

/// Says `ready`, or why not.
///
/// # Errors
/// Every error of the configuration; output that cannot be written.
pub(super) fn health(args: &ConfigArgs) -> Result<Exit, CommandError> {
    let settings = sources::load_plain(args)?;
    let said = match settings.metrics {
        Some(address) => {
            ask(reachable(address)).map_err(|error| format!("{address} does not answer: {error}"))
        }
        None => Err("the configuration has no `[metrics] listen`, where it is asked".to_owned()),
    };
    match said {
        Ok(head) if head.starts_with("HTTP/1.1 200 ") => print(|out| writeln!(out, "ready")),
        Ok(_) => print(|out| writeln!(out, "not ready")).map(|_| Exit::UNWELL),
        Err(why) => print(|out| writeln!(out, "not ready: {why}")).map(|_| Exit::UNWELL),
    }
}

/// Returns where a page on this address is reached from the same machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    if let Some(ip) = loopback {
        address.set_ip(ip);
    }
    address
}

/// Returns the answer of the page.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut octets = Vec::new();
    stream.take(LONGEST).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_on_every_address_is_asked_on_this_machine() {
        for (listen, asked) in [
            ("0.0.0.0:9153", "127.0.0.1:9153"),
            ("[::]:9153", "[::1]:9153"),
            ("192.0.2.1:9153", "192.0.2.1:9153"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
