//! `[otel]`: which queries that memory could not answer leave a trace, and where traces go. What is *not* here: what is in
//! a trace and how it is sent (`telemetry::traces`).

use super::document::Node;
use super::endpoint::{self, UrlError};
use super::error::{Fault, Faults};
use super::section::Section;
use super::settings::Host;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Traces, when they are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Who takes them.
    pub collector: Collector,
    /// How many queries have one.
    pub sample: Share,
    /// They hold the names that were asked for.
    pub names: bool,
    /// What the collector knows this gateway by.
    pub service_name: String,
}

/// Where a collector takes OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Its address: a name would be looked up by the system, whose resolver may be this very gateway.
    pub address: SocketAddr,
    /// What is posted to; begins with `/`.
    pub path: String,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

/// A share of a whole, in parts of a million, so that it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// The whole.
    pub const ALL: Self = Self(1_000_000);

    /// Returns true for so many of the numbers below 2^56 as the share says: for the lowest.
    pub(crate) fn takes(self, number: u64) -> bool {
        u128::from(number) * 1_000_000 < u128::from(self.0) << 56
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / 10_000, self.0 % 10_000);
        if parts == 0 {
            return write!(f, "{whole}%");
        }
        let parts = format!("{parts:04}");
        write!(f, "{whole}.{}%", parts.trim_end_matches('0'))
    }
}

/// The port of OTLP over HTTP.
const OTLP_PORT: u16 = 4318;
/// Where OTLP over HTTP takes traces.
const OTLP_PATH: &str = "/v1/traces";

/// Reads `[otel]`; None: off.
pub(super) fn read(
    section: &Section<'_>,
    faults: &mut Faults,
    notices: &mut Vec<String>,
) -> Option<TraceSettings> {
    if !cfg!(feature = "otel") {
        refuse(section, faults);
        return None;
    }
    let settings = TraceSettings {
        collector: section.read("endpoint", faults, collector).unwrap_or_else(usual_collector),
        sample: section.read("sample", faults, share).unwrap_or(Share::ALL),
        names: section.read("names", faults, Node::boolean).unwrap_or(false),
        service_name: section
            .read("service_name", faults, service_name)
            .unwrap_or_else(|| "veildns".to_owned()),
    };
    let is_on = section.read("traces", faults, Node::boolean).unwrap_or(false);
    let settings = Some(settings).filter(|_| is_on)?;
    let TraceSettings { collector, names, .. } = &settings;
    if *names && !collector.address.ip().is_loopback() {
        notices.push(format!(
            "otel.names: names of queries leave unencrypted, to the collector at {}",
            collector.address
        ));
    }
    Some(settings)
}

/// Says at every key that this program cannot do it.
fn refuse(section: &Section<'_>, faults: &mut Faults) {
    for (key, _, node) in section.children() {
        let fault = node.fault(
            "this build is without OpenTelemetry",
            "build with the feature \"otel\", which the usual build has, or leave [otel] out",
        );
        faults.push(fault.of_key(&section.key_name(key)));
    }
}

/// Returns where collectors listen unless they are told otherwise.
fn usual_collector() -> Collector {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), OTLP_PORT);
    Collector { address, path: OTLP_PATH.to_owned() }
}

/// Reads where the collector is.
fn collector(node: &Node) -> Result<Collector, Fault> {
    const FORM: &str = "expected http://ADDRESS[:4318][/v1/traces], such as \"http://127.0.0.1:4318\"";
    let text = node.text().map_err(|fault| fault.with_label(FORM))?;
    let wrong = |why: &dyn fmt::Display| node.fault(format!("{text:?}: {why}"), FORM);
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https" | "grpc" | "grpcs", _)) => {
            let fault = wrong(&"only plain http:// is spoken to a collector");
            return Err(fault.with_help("let a collector on this host or LAN encrypt what goes further"));
        }
        Some(_) | None => return Err(wrong(&"not the URL of a collector")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = endpoint::parse_authority(authority).map_err(|error| wrong(&error))?;
    let Host::Address(ip) = host else {
        let fault = wrong(&"the host is a name");
        return Err(fault.with_help(
            "write its address: the name would be looked up by the system, whose resolver veildns may be",
        ));
    };
    let path = match path {
        "" | "/" => OTLP_PATH,
        path if is_path(path) => path,
        _ => return Err(wrong(&UrlError::BadPath)),
    };
    Ok(Collector { address: SocketAddr::new(ip, port.unwrap_or(OTLP_PORT)), path: path.to_owned() })
}

/// Returns true for what may stand behind a URL's host without an escape.
fn is_path(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    text.chars().all(good)
}

/// Reads a share: a number of percent with at most four decimals, 0.0001% to 100%.
fn share(node: &Node) -> Result<Share, Fault> {
    const FORM: &str = "expected a share from \"0.0001%\" to \"100%\"";
    let text = node.text().map_err(|fault| fault.with_label(FORM))?;
    parse_share(text).ok_or_else(|| node.fault(format!("{text:?} is no share"), FORM))
}

/// Reads a share from a text.
fn parse_share(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()?.checked_mul(10_000)?;
    let millionths = millionths.checked_add(format!("{decimals:0<4}").parse().ok()?)?;
    (1..=Share::ALL.0).contains(&millionths).then_some(Share(millionths))
}

/// Reads the name of the service.
fn service_name(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
        return Err(
            node.fault(format!("{text:?} is no name of a service"), "expected 1 to 255 printable octets")
        );
    }
    Ok(text.to_owned())
}

/// Shows the settings in one line of `veildns check`.
pub(super) fn show(traces: Option<&TraceSettings>) -> String {
    let Some(TraceSettings { collector, sample, names, service_name }) = traces else {
        return "off".to_owned();
    };
    let names = if *names { "WITH NAMES" } else { "without names" };
    format!("{sample} of the queries that miss, {names}, as {service_name} to {collector}")
}

#[cfg(test)]
mod tests {
    use super::super::document::{Entry, Place, Table, Value};
    use super::super::error::ConfigErrors;
    use super::*;

    #[test]
    fn shares_are_read_and_shown() {
        for (text, millionths, shown) in [
            ("100%", 1_000_000, "100%"),
            ("10 %", 100_000, "10%"),
            ("2.5%", 25_000, "2.5%"),
            ("0.0001%", 1, "0.0001%"),
            ("0.10%", 1_000, "0.1%"),
        ] {
            let share = parse_share(text);
            assert_eq!(share, Some(Share(millionths)), "{text}");
            assert_eq!(share.map(|share| share.to_string()).unwrap_or_default(), shown);
        }
        for text in ["", "%", "5", "0%", "101%", "1.00001%", "-1%", "1e2%", ".5%", "5.%", "99999999999%"] {
            assert_eq!(parse_share(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_takes_as_many_as_it_says() {
        let all = 1_u64 << 56;
        assert!(Share::ALL.takes(all - 1));
        let tenth = Share(100_000);
        assert!(tenth.takes(all / 10 - 1));
        assert!(!tenth.takes(all / 10 + 1));
    }

    #[test]
    fn a_build_without_it_says_so_at_every_key() {
        let place = Place { text: 0, span: 0..4 };
        let entry = |value| Entry { key: place.clone(), node: Node { place: place.clone(), value } };
        let table: Table = [
            ("traces".to_owned(), entry(Value::Boolean(true))),
            ("sample".to_owned(), entry(Value::Text("1%".to_owned()))),
        ]
        .into();
        let root: Table = [("otel".to_owned(), entry(Value::Table(table)))].into();
        let mut faults = Faults::default();
        refuse(&Section::root(&root).child("otel"), &mut faults);
        let messages: Vec<String> = ConfigErrors::new(faults, Vec::new()).lines().collect();
        assert_eq!(
            messages,
            [
                "otel.sample: this build is without OpenTelemetry",
                "otel.traces: this build is without OpenTelemetry",
            ]
        );
    }
}
