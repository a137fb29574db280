//! What a value may be: durations, sizes, counts within bounds, words of a list, addresses, prefixes, names. Each
//! function reads one value or says what was expected. What is *not* here: which key has which.

use super::document::{Node, Text};
use super::error::{Fault, nearest};
use super::units::{self, UnitError};
use crate::wire::name::Name;
use crate::wire::question::RecordType;
use base64::Engine;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is written as a number with a unit.
struct Measure<T> {
    /// Reads it.
    parse: fn(&str) -> Result<T, UnitError>,
    /// Writes it.
    show: fn(T) -> String,
    /// What is expected.
    form: &'static str,
    /// What a number alone most likely means, and else.
    usual: [&'static str; 2],
}

/// Durations.
const DURATION: Measure<Duration> = Measure {
    parse: units::parse_duration,
    show: units::show_duration,
    form: units::DURATION_FORM,
    usual: ["s", "ms"],
};

/// Sizes in octets.
const SIZE: Measure<u64> =
    Measure { parse: units::parse_size, show: units::show_size, form: units::SIZE_FORM, usual: ["MiB", "B"] };

/// Reads a duration within bounds.
pub(crate) fn duration(node: &Node, bounds: RangeInclusive<Duration>) -> Result<Duration, Fault> {
    DURATION.read(node, &bounds)
}

/// Reads a size in octets within bounds.
pub(crate) fn size(node: &Node, bounds: RangeInclusive<u64>) -> Result<u64, Fault> {
    SIZE.read(node, &bounds)
}

impl<T: Copy + PartialOrd> Measure<T> {
    /// Reads a value within bounds. A bare 0 needs no unit; any other bare number is told which text to write.
    fn read(&self, node: &Node, bounds: &RangeInclusive<T>) -> Result<T, Fault> {
        let Self { parse, show, form, .. } = self;
        let text = match node.integer() {
            Ok(number) => number.to_string(),
            Err(_) => node.text().map_err(|fault| fault.with_label(*form))?.to_owned(),
        };
        let value = parse(&text).map_err(|error| {
            let fault = node.fault(format!("{text:?}: {error}"), *form);
            match self.meant(&text, bounds).filter(|_| error == UnitError::NoUnit) {
                Some(meant) => fault.with_help(format!("perhaps \"{meant}\"")),
                None => fault,
            }
        })?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        let expected = format!("expected {} to {}", show(*bounds.start()), show(*bounds.end()));
        Err(node.fault(format!("{} is out of bounds", show(value)), expected))
    }

    /// Returns what a number without a unit may mean: nothing that would be out of bounds.
    fn meant(&self, number: &str, bounds: &RangeInclusive<T>) -> Option<String> {
        let [usual, smallest] = self.usual.map(|unit| format!("{number}{unit}"));
        let within = |text: &str| (self.parse)(text).ok().filter(|value| bounds.contains(value));
        within(&usual).map(|_| usual.clone()).or_else(|| within(&smallest).map(self.show))
    }
}

/// Reads a whole number within bounds.
pub(crate) fn count<T>(node: &Node, bounds: RangeInclusive<T>) -> Result<T, Fault>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let number = node.integer()?;
    match T::try_from(number) {
        Ok(value) if bounds.contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err(node.fault(
            format!("{number} is out of bounds"),
            format!("expected {} to {}", bounds.start(), bounds.end()),
        )),
    }
}

/// Reads one of a few words.
pub(crate) fn choice<T: Copy>(node: &Node, words: &[(&'static str, T)]) -> Result<T, Fault> {
    let text = node.text()?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known = || words.iter().map(|(word, _)| *word);
    let expected = known().collect::<Vec<_>>().join(" | ");
    let fault = node.fault(format!("unknown value {text:?}"), format!("expected {expected}"));
    Err(match nearest(text, known()) {
        Some(near) => fault.with_help(format!("did you mean \"{near}\"?")),
        None => fault,
    })
}

/// Reads an address with its port.
pub(crate) fn socket_address(node: &Node) -> Result<SocketAddr, Fault> {
    let text = node.text()?;
    text.parse().map_err(|_| {
        let expected = "expected an address and a port, such as \"127.0.0.1:53\" or \"[::1]:53\"";
        let fault = node.fault(format!("{text:?} is not an address with a port"), expected);
        let host = text.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => fault.with_help(format!("write \"{}\"", SocketAddr::new(address, 53))),
            Err(_) if text.starts_with("localhost") => fault.with_help("write 127.0.0.1 or [::1]"),
            Err(_) if text.starts_with(':') => {
                fault.with_help(format!("for every address: \"0.0.0.0{text}\" and \"[::]{text}\""))
            }
            Err(_) => fault,
        }
    })
}

/// Reads an address.
pub(crate) fn address(node: &Node) -> Result<IpAddr, Fault> {
    let text = node.text()?;
    text.parse().map_err(|_| {
        node.fault(
            format!("{text:?} is not an IP address"),
            "expected one without port or brackets, such as \"192.0.2.1\"",
        )
    })
}

/// Reads a prefix; an address alone is a prefix of its whole length. Bits behind the prefix are cleared.
pub(crate) fn prefix(node: &Node) -> Result<IpNet, Fault> {
    let text = node.text()?;
    parse_prefix(text).ok_or_else(|| {
        node.fault(
            format!("{text:?} is not an address prefix"),
            "expected one such as \"192.168.0.0/16\" or \"fd00::/8\"",
        )
    })
}

/// Reads a prefix from a text.
pub(crate) fn parse_prefix(text: &str) -> Option<IpNet> {
    let net: Option<IpNet> = text.parse().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

/// Reads a domain suffix.
pub(crate) fn suffix(node: &Node) -> Result<Name, Fault> {
    let text = node.text()?;
    if text == "*" || text.starts_with("*.") || (text.starts_with('.') && text.len() > 1) {
        let bare = match text.trim_start_matches(['*', '.']) {
            // Everything is below the root.
            "" => ".",
            bare => bare,
        };
        return Err(node
            .fault(format!("{text:?} is not a name"), "a name covers everything below it by itself")
            .with_help(format!("write \"{bare}\"")));
    }
    text.parse().map_err(|error| {
        node.fault(format!("{text:?} is not a name: {error}"), "expected a name such as \"corp.example\"")
    })
}

/// Reads a record type.
pub(crate) fn record_type(node: &Node) -> Result<RecordType, Fault> {
    let text = node.text()?;
    text.parse().map_err(|_| {
        node.fault(
            format!("unknown record type {text:?}"),
            "expected a type such as \"AAAA\", or TYPE and its number",
        )
    })
}

/// Reads a pin: `sha256/` and the base64 of a SHA-256 (RFC 7858 §4.2, in the form of RFC 7469).
pub(crate) fn pin(node: &Node) -> Result<[u8; 32], Fault> {
    let text = node.text()?;
    let decoded = text
        .strip_prefix("sha256/")
        .and_then(|encoded| base64::engine::general_purpose::STANDARD.decode(encoded).ok());
    decoded.and_then(|octets| octets.try_into().ok()).ok_or_else(|| {
        node.fault("not a pin", "expected sha256/ and 44 characters of base64: the SHA-256 of the key (SPKI)")
    })
}

/// Reads a path; a relative one starts at the folder of the file that names it.
pub(crate) fn path(node: &Node, texts: &[Text]) -> Result<PathBuf, Fault> {
    path_of(node, node.text()?, texts)
}

/// Reads the path of a socket, written as `text` within a value.
pub(crate) fn socket_path(node: &Node, text: &str, texts: &[Text]) -> Result<PathBuf, Fault> {
    /// What the kernel takes as a path of a socket (unix(7)), less the octet that ends it.
    const LONGEST: usize = 107;
    let path = path_of(node, text, texts)?;
    if path.as_os_str().len() > LONGEST {
        let expected = format!("expected a path of at most {LONGEST} octets: the kernel takes no more");
        return Err(node.fault(format!("{} is too long for a socket", path.display()), expected));
    }
    Ok(path)
}

/// Reads a path that is written as `text` within a value.
fn path_of(node: &Node, text: &str, texts: &[Text]) -> Result<PathBuf, Fault> {
    if text.is_empty() {
        return Err(node.fault("the path is empty", "expected a path"));
    }
    let folder = texts.get(node.place.text).map_or(Path::new(""), |text| text.folder.as_path());
    Ok(folder.join(text))
}

/// Reads the path of something that has to be there.
pub(crate) fn existing_path(node: &Node, texts: &[Text]) -> Result<PathBuf, Fault> {
    let path = path(node, texts)?;
    match path.try_exists() {
        // One we may not look at is left to whoever opens it: `check` may run as another user.
        Ok(true) | Err(_) => Ok(path),
        Ok(false) => Err(node.fault(
            format!("{} does not exist", path.display()),
            "a relative path starts at the folder of the file that names it",
        )),
    }
}
