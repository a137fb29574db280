//! Which program holds a port, as far as `/proc` shows it: only for an error message. Other systems, and
//! other users' programs without privileges, give no answer.

use crate::wire::query::ClientTransport;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A program that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its command name, at most 15 octets.
    pub name: String,
    /// Its process ID.
    pub pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Finds who keeps us from `address`.
pub(super) fn find(address: SocketAddr, transport: ClientTransport) -> Option<Holder> {
    let tables = match transport {
        ClientTransport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        ClientTransport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_on(&table, address, transport))
        .collect();
    holder_of(&inodes)
}

/// Returns the sockets of a `/proc/net` table that are in the way of `address`.
fn inodes_on(table: &str, address: SocketAddr, transport: ClientTransport) -> Vec<String> {
    /// Field of the socket's state; 0A is TCP_LISTEN.
    const STATE: usize = 3;
    /// Field of the inode.
    const INODE: usize = 9;
    let in_the_way = |line: &str| -> Option<String> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = local_address(fields.get(1)?)?;
        let listening = transport == ClientTransport::Udp || fields.get(STATE) == Some(&"0A");
        let overlaps = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        let inode = fields.get(INODE)?;
        (listening && overlaps && port == address.port()).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(in_the_way).collect()
}

/// Reads an address such as `0100007F:0035`: words in the machine's order, the port in hexadecimal.
fn local_address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok();
    if ip.len() == 8 {
        return Some((Ipv4Addr::from(word(0)?.to_ne_bytes()).into(), port));
    }
    let mut octets = [0; 16];
    for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&word(index)?.to_ne_bytes());
    }
    Some((Ipv6Addr::from(octets).to_canonical(), port))
}

/// Finds the process that has one of the sockets open.
fn holder_of(inodes: &[String]) -> Option<Holder> {
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.into_iter().find(|pid| has_open(*pid, &links))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { name: name.trim_end().to_owned(), pid })
}

/// Tells whether a process has one of `links` among its descriptors, if we may look.
fn has_open(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|link| links.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two listeners, one established connection on the same port, one wildcard on another.
    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 20415 1 0000 100 0 0 10 0
   1: 0100007F:0035 0200007F:8000 01 00000000:00000000 00:00000000 00000000   101        0 20416 1 0000 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20500 1 0000 100 0 0 10 0
";

    /// The inodes in the way of `address`.
    fn inodes(address: &str) -> Vec<String> {
        inodes_on(TABLE, address.parse().unwrap(), ClientTransport::Tcp)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listeners_on_the_same_or_the_wildcard_address_are_in_the_way() {
        assert_eq!(inodes("127.0.0.1:53"), ["20415"]);
        assert_eq!(inodes("0.0.0.0:53"), ["20415"]);
        assert!(inodes("127.0.0.2:53").is_empty());
        assert_eq!(inodes("127.0.0.2:22"), ["20500"]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ipv6_addresses_are_read_by_words() {
        let (ip, port) = local_address("00000000000000000000000001000000:0035").unwrap();
        assert_eq!((ip, port), (Ipv6Addr::LOCALHOST.into(), 53));
        assert!(local_address("0100:0035").is_none() && local_address("zz").is_none());
    }
}
