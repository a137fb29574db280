//! The faults: how each is made, under which load, and which queries are judged. `docs/resilience.md` tells people.

use crate::support::netns::{Net, SERVERS};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BlackHoleOne,
    BlackHoleAll,
    Roam,
    BlackHoleIpv6,
    OnlyIpv6,
    OwnPrefix,
    Loss,
    Delay,
    Kill,
    Reload,
    TakeOver,
}

/// Where the NAT64 of most networks has IPv4 (RFC 6052 §2.1).
pub(crate) const WELL_KNOWN_PREFIX: &str = "64:ff9b::";

/// Where one that has a prefix of its own has it.
pub(crate) const OWN_PREFIX: &str = "2001:db8:64::";

/// Which queries are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// From the fault to the end: it goes on, or nobody should notice it.
    Since,
    /// While it lasts: it slows everything, and recovery is told apart.
    During,
    /// Once it is over: while it lasts no answer is possible.
    After,
}

/// One fault with its load and times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// New names a second: each is a query to a server.
    pub(crate) misses: u32,
    /// Known names a second.
    pub(crate) hits: u32,
    pub(crate) lasts: Duration,
    pub(crate) after: Duration,
    pub(crate) judged: Judged,
    /// Needs the whole machine.
    pub(crate) alone: bool,
}

/// How long the load runs before the fault. Its second half says what is normal.
pub(crate) const CALM: Duration = Duration::from_secs(3);

/// All of them, those that may run side by side first.
pub(crate) const ALL: [Scenario; 11] = [
    Scenario {
        name: "one server black-holed",
        fault: Fault::BlackHoleOne,
        lasts: Duration::from_secs(10),
        after: Duration::ZERO,
        judged: Judged::Since,
        ..LIGHT
    },
    Scenario {
        name: "all black-holed, 30 s",
        fault: Fault::BlackHoleAll,
        lasts: Duration::from_secs(30),
        after: Duration::from_secs(6),
        judged: Judged::After,
        ..LIGHT
    },
    Scenario {
        name: "address and route change",
        fault: Fault::Roam,
        lasts: Duration::from_secs(8),
        after: Duration::ZERO,
        judged: Judged::Since,
        ..LIGHT
    },
    Scenario {
        name: "IPv6 black-holed",
        fault: Fault::BlackHoleIpv6,
        lasts: Duration::from_secs(10),
        after: Duration::ZERO,
        judged: Judged::Since,
        ..LIGHT
    },
    Scenario {
        name: "IPv6-only network",
        fault: Fault::OnlyIpv6,
        lasts: Duration::from_secs(8),
        after: Duration::ZERO,
        judged: Judged::Since,
        ..LIGHT
    },
    Scenario {
        name: "IPv6-only, own prefix",
        fault: Fault::OwnPrefix,
        lasts: Duration::from_secs(8),
        after: Duration::ZERO,
        judged: Judged::Since,
        ..LIGHT
    },
    Scenario {
        name: "30 % loss",
        fault: Fault::Loss,
        lasts: Duration::from_secs(10),
        after: Duration::from_secs(4),
        judged: Judged::During,
        ..LIGHT
    },
    Scenario {
        name: "300 ms delay",
        fault: Fault::Delay,
        lasts: Duration::from_secs(8),
        after: Duration::from_secs(4),
        judged: Judged::During,
        ..LIGHT
    },
    Scenario {
        name: "server killed, 1,000 q/s",
        fault: Fault::Kill,
        misses: 1000,
        hits: 100,
        lasts: Duration::from_secs(2),
        after: Duration::from_secs(3),
        judged: Judged::Since,
        alone: true,
    },
    Scenario {
        name: "reload, 5,000 q/s",
        fault: Fault::Reload,
        misses: 1000,
        hits: 4000,
        lasts: Duration::from_secs(5),
        after: Duration::from_secs(1),
        judged: Judged::Since,
        alone: true,
    },
    Scenario {
        name: "restart, 5,000 q/s",
        fault: Fault::TakeOver,
        misses: 1000,
        hits: 4000,
        lasts: Duration::from_secs(4),
        after: Duration::ZERO,
        judged: Judged::Since,
        alone: true,
    },
];

/// The load of a busy household.
const LIGHT: Scenario = Scenario {
    name: "",
    fault: Fault::Loss,
    misses: 100,
    hits: 200,
    lasts: Duration::ZERO,
    after: Duration::ZERO,
    judged: Judged::Since,
    alone: false,
};

impl Scenario {
    /// Finds one by name.
    pub(crate) fn named(name: &str) -> Self {
        *ALL.iter().find(|scenario| scenario.name == name).unwrap()
    }

    /// The addresses of each server, in the order in which they are configured.
    pub(crate) fn addresses(&self) -> Vec<Vec<String>> {
        let v4 = |(v4, _): (&str, &str)| vec![v4.to_owned()];
        let both = |(v4, v6): (&str, &str)| vec![v6.to_owned(), v4.to_owned()];
        let [one, other] = SERVERS;
        if self.fault == Fault::BlackHoleIpv6 {
            vec![both(one), both(other)]
        } else if self.fault == Fault::OwnPrefix {
            vec![v4(one), both(other)]
        } else {
            vec![v4(one), v4(other)]
        }
    }

    /// How long the load runs.
    pub(crate) fn length(&self) -> Duration {
        CALM + self.lasts + self.after
    }
}

/// Puts empty chains and a counter of each server into the world.
pub(crate) fn prepare(net: &Net) {
    let mut rules = "table inet faults {\n  counter zero {}\n  counter one {}\n\
                     \x20 chain count { type filter hook input priority -10;\n"
        .to_owned();
    for ((v4, v6), counter) in SERVERS.iter().zip(["zero", "one"]) {
        rules.push_str(&format!("    ip daddr {v4} counter name {counter}\n"));
        rules.push_str(&format!("    ip6 daddr {v6} counter name {counter}\n"));
    }
    rules.push_str(
        "  }\n  chain in { type filter hook input priority 0; }\n  chain out { type filter hook output priority 0; }\n}\n",
    );
    net.filter(&rules);
}

/// Ends every fault of the packet filter.
pub(crate) fn open(net: &Net) {
    net.filter("flush chain inet faults in\nflush chain inet faults out\n");
}

/// Drops what goes to and comes from an address.
pub(crate) fn black_hole(net: &Net, address: &str) {
    net.filter(&format!(
        "add rule inet faults in ip daddr {address} drop\nadd rule inet faults out ip saddr {address} drop\n"
    ));
}

/// Drops all IPv6 but what makes links work.
pub(crate) fn black_hole_ipv6(net: &Net) {
    net.filter(
        "add rule inet faults in ip6 nexthdr tcp drop\nadd rule inet faults out ip6 nexthdr tcp drop\n",
    );
}

/// Drops three packets of ten on their way to the servers.
pub(crate) fn lose(net: &Net) {
    net.filter("add rule inet faults in tcp dport 853 numgen random mod 100 < 30 drop\n");
}

/// Returns which server had more traffic.
pub(crate) fn busier(net: &Net) -> usize {
    let nft = crate::support::installed::installed("nft").unwrap();
    let output = net.in_world(&nft).args(["-j", "list", "counters"]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let octets = |name: &str| {
        let items = listed["nftables"].as_array().unwrap();
        let named = items.iter().find(|item| item["counter"]["name"] == name);
        named.and_then(|item| item["counter"]["bytes"].as_u64()).unwrap()
    };
    usize::from(octets("one") > octets("zero"))
}
