//! Which resolvers does this network itself offer? Once programs ask veildns, resolv.conf no longer says; but those who
//! speak DHCP keep what they were told, and an installation keeps what stood there before. Reads files; sends nothing. The
//! captive portal's own resolver is among them, and leads to its page where encrypted look-ups come to nothing (`portal`).

use super::places::Places;
use super::resolv_conf;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Resolvers returned at most: each may be asked.
const MOST: usize = 4;

/// Files read of one directory: a machine has a lease or two.
const MOST_FILES: usize = 16;

/// Octets read of one file.
const MOST_OCTETS: u64 = 64 * 1024;

/// Returns the resolvers that the network offers, without those in `known` and without this machine.
pub(super) fn resolvers(places: &Places, known: &[IpAddr]) -> Vec<IpAddr> {
    let told = places.told_by_network.iter().flat_map(|place| files(place)).flat_map(|file| read(&file));
    // Not told, but guessed: where a portal is, it is most often the gateway that answers.
    let gateway = read_gateway(&places.route);
    let mut found: Vec<IpAddr> = Vec::new();
    for address in told.chain(gateway) {
        let is_other = !address.is_loopback() && !address.is_unspecified() && !known.contains(&address);
        if is_other && !found.contains(&address) && found.len() < MOST {
            found.push(address);
        }
    }
    found
}

/// Returns a file, or the files of a directory, in the order of their names.
fn files(place: &Path) -> Vec<PathBuf> {
    if !place.is_dir() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten().take(MOST_FILES);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// Returns the resolvers that a file names. One that cannot be read names none.
fn read(file: &Path) -> Vec<IpAddr> {
    let mut octets = Vec::new();
    if let Ok(file) = File::open(file) {
        let _ = file.take(MOST_OCTETS).read_to_end(&mut octets);
    }
    named(&String::from_utf8_lossy(&octets))
}

/// Returns the resolvers that a text names: as resolv.conf does, as a lease of systemd-networkd does, or as one of dhclient,
/// whose last lease counts (dhclient.leases(5)).
pub fn named(text: &str) -> Vec<IpAddr> {
    let mut found = resolv_conf::nameservers(text);
    let mut lease = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("DNS=") {
            found.extend(addresses(list));
        } else if let Some(list) = line.strip_prefix("option domain-name-servers") {
            lease = addresses(list);
        }
    }
    found.append(&mut lease);
    found.truncate(MOST);
    found
}

/// Returns the addresses of a list, which blanks or commas part.
fn addresses(list: &str) -> Vec<IpAddr> {
    let words = list.split([' ', ',', ';', '\t']).filter(|word| !word.is_empty());
    words.filter_map(|word| word.parse().ok()).take(MOST).collect()
}

/// Returns the gateway of the default route in the kernel's table (proc_pid_net(5)).
fn read_gateway(table: &Path) -> Option<IpAddr> {
    /// The route leads through a gateway (linux/route.h).
    const RTF_GATEWAY: u32 = 2;
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else { return None };
        let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
        let is_default = number(destination)? == 0 && number(mask)? == 0;
        let leads = number(flags)? & RTF_GATEWAY != 0;
        // The number stands there as this processor has it in memory.
        let address = Ipv4Addr::from(number(gateway)?.to_ne_bytes());
        (is_default && leads).then_some(address.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of addresses.
    fn shown(addresses: &[IpAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_kind_of_file_is_read() {
        for (text, expected) in [
            (
                "# written by NetworkManager\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n",
                &["192.0.2.1", "fe80::1"][..],
            ),
            ("ADDRESS=192.0.2.7\nDNS=192.0.2.1 192.0.2.2\nNTP=192.0.2.3\n", &["192.0.2.1", "192.0.2.2"]),
            (
                "lease {\n  option domain-name-servers 198.51.100.1;\n}\nlease {\n  option domain-name-servers 192.0.2.1, 192.0.2.2;\n}\n",
                &["192.0.2.1", "192.0.2.2"],
            ),
            ("DNS=1 2 x;192.0.2.1\n\u{fffd}nameserver 192.0.2.5\n", &["192.0.2.1"]),
            ("", &[]),
        ] {
            assert_eq!(shown(&named(text)), expected, "{text}");
        }
        assert_eq!(named(&"DNS=192.0.2.1 192.0.2.2 192.0.2.3\n".repeat(9)).len(), MOST);
    }

    #[test]
    fn what_is_known_and_this_machine_are_left_out_and_the_gateway_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("leases")).unwrap();
        fs::write(path("leases/3"), "DNS=192.0.2.1 127.0.0.1\n").unwrap();
        fs::write(path("leases/4"), "DNS=192.0.2.2\n").unwrap();
        fs::write(path("before"), "nameserver 192.0.2.2\nnameserver 192.0.2.9\n").unwrap();
        // As the kernel writes it on a processor with the lowest octet first, and on the others.
        let gateway = format!("{:08X}", u32::from_ne_bytes([192, 0, 2, 254]));
        let table = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\neth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\n"
        );
        fs::write(path("route"), table).unwrap();
        let places = Places {
            told_by_network: vec![path("leases"), path("none"), path("before")],
            route: path("route"),
            ..Places::default()
        };
        let known = ["192.0.2.9".parse().unwrap()];
        assert_eq!(shown(&resolvers(&places, &known)), ["192.0.2.1", "192.0.2.2", "192.0.2.254"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(DNS=|nameserver |option domain-name-servers|192.0.2.1|fe80::1%| |,|;|\\n|\u{e9}){0,40}") {
            proptest::prop_assert!(named(&text).len() <= MOST);
        }
    }
}
