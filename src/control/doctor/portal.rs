//! Is there a captive portal? Fetches a page whose answer is known, over plain HTTP, as browsers and phones do: whoever
//! holds this machine back answers in its place, and for addresses where nobody is as well. Also notes the time that the answer gives.

use super::LIMIT;
use super::places::{Places, PortalProbe};
use super::report::{Finding, Intent, Status};
use super::rewriting::{ask_any, list};
use crate::transport::{TransportError, dial};
use crate::wire::question::RecordType;
use crate::wire::response::{ResponseRef, Section};
use futures_util::future::join_all;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The check's name.
const CHECK: &str = "portal";

/// Octets read of the answer: its head is far shorter.
const MOST_OCTETS: usize = 8192;

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For the report.
    pub(super) finding: Finding,
    /// The `Date` of a genuine answer.
    pub(super) date: Option<SystemTime>,
}

/// Why there was no answer.
#[derive(Debug, Error)]
enum ProbeError {
    /// The nameservers do not know the host, or do not answer.
    #[error("{0} could not be looked up")]
    LookUp(&'static str),
    /// Nobody took the connection.
    #[error("no connection")]
    Connect(#[from] TransportError),
    /// It broke.
    #[error("the connection broke")]
    Stream(#[from] io::Error),
    /// The deadline came first.
    #[error("no answer in time")]
    Timeout,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// 204 is as it should be.
    status: u16,
    /// Where a portal sends people.
    location: Option<String>,
    /// When the answer was made.
    date: Option<SystemTime>,
}

/// Who answers where no web server is, and what it says.
type Impostor = (SocketAddr, Head);

/// Says what is sent.
pub(super) fn intent(places: &Places, nameservers: &[IpAddr], of_network: &[IpAddr]) -> Intent {
    let (host, to) = (places.portal.host, list(places, nameservers));
    let besides = match of_network {
        [] => String::new(),
        _ => format!(" and to {}, which this network offers", list(places, of_network)),
    };
    let nobody: Vec<String> = places.nobody_web.iter().map(ToString::to_string).collect();
    let sends = format!(
        "plain DNS for {host} to {to}{besides}, then GET {} there; the same GET to {}, where no server is",
        places.portal.url(),
        nobody.join(" and ")
    );
    Intent { check: CHECK, sends }
}

/// Fetches the page from where each resolver has it, and from where nobody is. The network's own resolvers are asked besides
/// those of the programs: behind a portal, veildns reaches no server, and it is theirs that lead to the log-in page.
pub(super) async fn examine(places: &Places, nameservers: &[IpAddr], of_network: &[IpAddr]) -> Outcome {
    let deadline = crate::clock::now() + LIMIT;
    let (fetched, impostor) =
        tokio::join!(fetch_all(places, nameservers, of_network, deadline), impostor(places, deadline));
    let is_genuine = |head: &Head| head.status == GENUINE;
    let mut heads = Vec::new();
    let mut first_error = None;
    for outcome in fetched {
        match outcome {
            Ok(head) => heads.push(head),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    if let Some(at) = heads.iter().position(|head| !is_genuine(head)) {
        return portal(&places.portal, places.portal.host, heads.swap_remove(at));
    }
    if let Some(head) = heads.pop() {
        let finding = Finding::fine(CHECK, format!("none: {} answers as it should", places.portal.host));
        return Outcome { finding, date: head.date };
    }
    if let Some((from, head)) = impostor {
        return portal(&places.portal, &format!("{from}, where no server is,"), head);
    }
    let error = first_error.unwrap_or(ProbeError::Timeout);
    let seen = format!("cannot tell: {}: {error}", places.portal.url());
    let advice = "if nothing works, open http:// and the address of your router in a browser";
    Outcome { finding: Finding::new(CHECK, Status::Warn, seen, advice), date: None }
}

/// What a genuine page answers: 204 No Content.
const GENUINE: u16 = 204;

/// Says that somebody answers in place of the page.
fn portal(probe: &PortalProbe, who: &str, head: Head) -> Outcome {
    let seen = format!("{who} answers {} in place of {GENUINE}: a captive portal, or a proxy", head.status);
    let advice = match head.location {
        Some(location) => format!("log in: open {} in a browser", location.escape_debug()),
        None => format!("log in: open {} in a browser", probe.url()),
    };
    Outcome { finding: Finding::new(CHECK, Status::Fail, seen, advice), date: None }
}

/// Asks all resolvers where the page is and fetches it there, once from each address.
async fn fetch_all(
    places: &Places,
    nameservers: &[IpAddr],
    of_network: &[IpAddr],
    deadline: Instant,
) -> Vec<Result<Head, ProbeError>> {
    let tried = RefCell::new(Vec::new());
    let each = nameservers.iter().chain(of_network).map(|resolver| {
        let tried = &tried;
        async move {
            let address = look_up(places, *resolver).await.ok_or(ProbeError::LookUp(places.portal.host))?;
            let is_new = !tried.borrow().contains(&address);
            if !is_new {
                return Ok(None);
            }
            tried.borrow_mut().push(address);
            let place = SocketAddr::new(address.into(), places.portal.port);
            fetch(&places.portal, place, deadline).await.map(Some)
        }
    });
    join_all(each).await.into_iter().filter_map(Result::transpose).collect()
}

/// Fetches the page from where no web server is: whoever answers there answers for everybody, as portals do to lead every
/// browser to their log-in page.
async fn impostor(places: &Places, deadline: Instant) -> Option<Impostor> {
    let each = places.nobody_web.iter().map(|place| fetch(&places.portal, *place, deadline));
    let heads = join_all(each).await;
    heads.into_iter().zip(&places.nobody_web).find_map(|(head, place)| Some((*place, head.ok()?)))
}

/// Fetches the page from one address, until `deadline`.
async fn fetch(probe: &PortalProbe, place: SocketAddr, deadline: Instant) -> Result<Head, ProbeError> {
    let fetching = fetch_head(probe, place, deadline);
    tokio::time::timeout_at(deadline.into(), fetching).await.unwrap_or(Err(ProbeError::Timeout))
}

/// Asks for the page and reads the head of the answer.
async fn fetch_head(probe: &PortalProbe, place: SocketAddr, deadline: Instant) -> Result<Head, ProbeError> {
    let PortalProbe { host, path, .. } = probe;
    let mut stream = dial::open(place, deadline).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: veildns\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut octets = Vec::new();
    let mut room = stream.take(u64::try_from(MOST_OCTETS).unwrap_or(u64::MAX));
    loop {
        let read = room.read_buf(&mut octets).await?;
        if let Some(head) = Head::read(&octets) {
            return Ok(head);
        }
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Returns the host's address as a resolver has it. An address of this machine, from a resolver that is not, is a filter's way
/// to say no.
async fn look_up(places: &Places, resolver: IpAddr) -> Option<Ipv4Addr> {
    let (_, message) = ask_any(places, &[resolver], places.portal.host).await?;
    let response = ResponseRef::parse(&message).ok()?;
    let mut records = response.records(Section::Answer).filter(|record| record.rtype == RecordType::A);
    let address = records.find_map(|record| <[u8; 4]>::try_from(record.rdata).ok()).map(Ipv4Addr::from)?;
    let means_no = address.is_unspecified() || (address.is_loopback() && !resolver.is_loopback());
    (!means_no).then_some(address)
}

impl Head {
    /// Reads the head of an answer once all of it is there (RFC 9112 §2.1).
    fn read(octets: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(octets);
        let (head, _) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let field = |wanted: &str| {
            let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        Some(Self {
            status,
            location: field("location").map(str::to_owned),
            date: field("date").and_then(http_date),
        })
    }
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    /// In the order of the year.
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let month = u64::try_from(MONTHS.iter().position(|name| name == month)?).ok()? + 1;
    let clock: Vec<u64> = time.split(':').filter_map(|part| part.parse().ok()).collect();
    let [hour, minute, second] = clock.as_slice() else { return None };
    if !(1970..10_000).contains(&year)
        || !(1..=31).contains(&day)
        || *hour > 23
        || *minute > 59
        || *second > 60
    {
        return None;
    }
    let secs = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs))
}

/// Returns the days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so that the leap day
/// is their last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (153 * month + 2) / 5 + day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of a date.
    fn secs(text: &str) -> Option<u64> {
        http_date(text).map(|date| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn dates_of_web_servers_are_read() {
        assert_eq!(secs("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(secs("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(secs("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for wrong in ["", "Sun, 06 Nov 1994 08:49 GMT", "a b Xyz 1994 1:1:1 GMT", "x, 99 Nov 1994 1:1:1 GMT"]
        {
            assert_eq!(secs(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 302 Found\r\nlocation: http://portal.example/?a\r\nDate: x\r\n\r\n<html>";
        let head = Head::read(text).unwrap();
        assert_eq!((head.status, head.date), (302, None));
        assert_eq!(head.location.as_deref(), Some("http://portal.example/?a"));
        assert_eq!(Head::read(&text[..40]), None);
        assert_eq!(Head::read(b"nonsense\r\n\r\n").unwrap().status, 0);
    }
}
