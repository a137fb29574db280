//! What each fuzz target does with its octets: read them, walk over everything, write what the program would write, and
//! assert what must hold whatever the octets are. The targets and `tests/fuzz_corpus.rs` share this file. It finds no
//! inputs itself.

use bytes::BytesMut;
use std::path::Path;
use veildns::cli::migration::ImportFormat;
use veildns::config::error::{Appearance, ConfigErrors};
use veildns::config::keys::{KEYS, Kind};
use veildns::config::settings::{MAX_MEMBERS, Settings};
use veildns::config::summary::summary;
use veildns::config::{from_text, from_variables};
use veildns::control::doctor::resolv_conf;
use veildns::control::import;
use veildns::control::socket::protocol::{LONGEST_REQUEST, Request, decode_answer};
use veildns::policy::client_subnet::SubnetRule;
use veildns::telemetry::dnstap::frames::{self, Control, ControlKind, MAX_CONTROL};
use veildns::wire::ede::{Ede, EdeCode};
use veildns::wire::edns::{EdnsRef, IdleTimeout, OPTION_ECS, ReplyOptions};
use veildns::wire::frame::{self, Deframer};
use veildns::wire::header::Rcode;
use veildns::wire::name::{MAX_NAME, Name, NameRef};
use veildns::wire::query::{ClientTransport, QueryFault, QueryRef, SubnetOption, UpstreamQuery};
use veildns::wire::question::{QuestionRef, Ttl};
use veildns::wire::rebuild::rebuild;
use veildns::wire::record::message_text;
use veildns::wire::response::{RecordRef, ResponseRef, Section};
use veildns::wire::stored::{Keep, StoredAnswer, TtlRule};
use veildns::wire::{MAX_MESSAGE, reply};

/// A target: what is done with the octets.
pub type Body = fn(&[u8]);

/// Every target by its name, which is also the name of its folder of seeds.
pub const BODIES: [(&str, Body); 10] = [
    ("query", query),
    ("response", response),
    ("stored_answer", stored_answer),
    ("frame", frame),
    ("edns", edns),
    ("config", config),
    ("list_line", list_line),
    ("name", name),
    ("control", control),
    ("collector", collector),
];

/// How much a client can take: the least, the most over UDP, the most over TCP.
const LIMITS: [usize; 3] = [512, 1232, MAX_MESSAGE];

/// A client's message: refused with a good reply or none, or taken; then the replies without records and the query to a
/// server are good messages.
pub fn query(octets: &[u8]) {
    let mut out = vec![0; MAX_MESSAGE];
    let query = match QueryRef::parse(octets) {
        Ok(query) => query,
        Err(QueryFault::Drop) => return,
        Err(QueryFault::Reject(rcode)) => {
            if let Some(written) = reply::reject(octets, rcode, &mut out) {
                // What was no question is not echoed: such a reply is a header, perhaps with an OPT.
                assert_eq!(out[..2], octets[..2], "the client's ID");
                assert_ne!(out[2] & 0x80, 0, "QR");
                assert!(written <= octets.len() + 11, "no amplification");
            }
            return;
        }
    };
    assert_eq!(query.bytes(), octets);
    let ede = Ede::new(EdeCode::NETWORK_ERROR, "no server");
    let options = ReplyOptions { keepalive: Some(IdleTimeout(100)), ..echo(&query) }.because(&ede);
    for transport in [ClientTransport::Udp, ClientTransport::Tcp] {
        let limit = query.reply_limit(transport);
        let written = reply::error(&query, Rcode::SERVFAIL, &options, &mut out[..limit]);
        let reply = assert_reply(&query, &out[..written]);
        let back = reply.edns().and_then(|edns| edns.option(OPTION_ECS));
        assert_eq!(back, options.subnet.filter(|_| reply.edns().is_some()));
    }
    upstream_query(&query);
}

/// What goes back to a client whose network is forwarded.
fn echo<'a>(query: &QueryRef<'a>) -> ReplyOptions<'a> {
    ReplyOptions { subnet: SubnetRule::Forward.echoed(query), ..ReplyOptions::default() }
}

/// The query that we would send on.
fn upstream_query(query: &QueryRef<'_>) {
    let client_subnet = query.edns().and_then(|edns| edns.option(OPTION_ECS));
    let subnets = [SubnetOption::Absent, SubnetOption::OptOut]
        .into_iter()
        .chain(client_subnet.map(SubnetOption::Content));
    for subnet in subnets {
        for padding in [false, true] {
            let built = UpstreamQuery {
                question: query.question(),
                dnssec_ok: query.dnssec_ok(),
                checking_disabled: false,
                subnet,
                padding,
            }
            .build();
            let sent = QueryRef::parse(&built).expect("what we send is a query");
            assert_eq!(sent.question_bytes(), query.question_bytes());
            assert_eq!(sent.dnssec_ok(), query.dnssec_ok());
            assert!(!padding || built.len().is_multiple_of(128), "{} octets are not padded", built.len());
        }
    }
}

/// A server's message: everything in it is walked over, stored, rendered for a client, and written anew.
pub fn response(octets: &[u8]) {
    let Ok(response) = ResponseRef::parse(octets) else { return };
    assert_eq!(response.bytes(), octets);
    let mut records = 0;
    for section in Section::ALL {
        assert!(response.section_start(section) <= octets.len());
        for record in response.records(section) {
            records += 1;
            walk(&record);
        }
    }
    if let Some(edns) = response.edns() {
        options(&edns);
    }
    let _ = (response.ede(), response.ecs_scope(), response.rcode(), message_text(octets));
    let mut name = [0; MAX_NAME];
    let asked = response.question_name().unpack_into(&mut name).expect("a checked name");
    assert!(asked.eq_ignore_case(response.question().name));

    let all = rebuild(&response, &mut |_, _| true);
    if let Some(all) = &all {
        let anew = ResponseRef::parse(all).expect("what we write is a response");
        assert_eq!(count(&anew), records);
        assert_same(anew.question(), response.question());
    }
    let none = rebuild(&response, &mut |_, _| false).expect("a question always fits");
    assert_eq!(count(&ResponseRef::parse(&none).expect("a response without records")), 0);

    let question = response.question();
    let asked = UpstreamQuery {
        question,
        dnssec_ok: true,
        checking_disabled: false,
        subnet: SubnetOption::Absent,
        padding: false,
    }
    .build();
    store_and_render(&response, QueryRef::parse(&asked).ok().as_ref());
}

/// A query and a response, the query after two octets of its length: what is stored of the one is rendered for the other.
pub fn stored_answer(octets: &[u8]) {
    let Some((length, rest)) = octets.split_first_chunk() else { return };
    let Some((query, response)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
        return;
    };
    let (Ok(query), Ok(response)) = (QueryRef::parse(query), ResponseRef::parse(response)) else { return };
    store_and_render(&response, Some(&query));
}

/// Stores a response in each way and renders it for a query in each way.
fn store_and_render(response: &ResponseRef<'_>, query: Option<&QueryRef<'_>>) {
    let mut out = vec![0; MAX_MESSAGE];
    for (authority, authentic_data) in [(false, false), (true, true)] {
        let stored = StoredAnswer::from_response(response, Keep { authority, authentic_data });
        assert_same(stored.question(), response.question());
        if stored.rcode() == Rcode::SERVFAIL && stored.min_ttl().is_none() {
            // Names that cannot be told from TTLs, in a message that cannot be written anew either.
            continue;
        }
        assert_eq!(stored.rcode(), response.rcode());
        let kept = ResponseRef::parse(stored.message()).expect("what is stored is a response");
        assert_eq!(kept.records(Section::Answer).count(), response.records(Section::Answer).count());
        assert_eq!(kept.records(Section::Additional).count(), 0);
        assert_eq!(stored.min_ttl(), ttls(&kept).min().map(Ttl));
        let clamped = stored.clamp_ttls(Ttl(60), Ttl(3600));
        let within = ResponseRef::parse(clamped.message()).expect("what is clamped is a response");
        assert!(ttls(&within).all(|ttl| (60..=3600).contains(&ttl)));
        assert_eq!(clamped.heap_len(), stored.heap_len());
        // What is rendered is what was asked: the cache and the flights see to that.
        let asks_it = |query: &&QueryRef<'_>| response.question().matches(&query.question());
        let Some(query) = query.filter(asks_it) else { continue };
        for ttl in [TtlRule::Keep, TtlRule::Aged { secs: 77 }, TtlRule::Fixed { secs: 30 }] {
            for limit in LIMITS {
                render(&stored, query, ttl, &mut out[..limit]);
            }
        }
    }
}

/// Renders one reply and reads it.
fn render(stored: &StoredAnswer, query: &QueryRef<'_>, rule: TtlRule, out: &mut [u8]) {
    let written = stored.render(query, rule, &echo(query), out);
    assert_ne!(written, 0, "header, question and OPT always fit");
    let reply = assert_reply(query, &out[..written]);
    if reply.header().is_truncated() {
        assert_eq!(count(&reply), 0);
        return;
    }
    let before = ResponseRef::parse(stored.message()).expect("what is stored is a response");
    let expected = ttls(&before).map(|ttl| match rule {
        TtlRule::Keep => ttl,
        TtlRule::Aged { secs } => ttl.saturating_sub(secs),
        TtlRule::Fixed { secs } => secs,
    });
    assert!(ttls(&reply).eq(expected), "TTLs by {rule:?}");
}

/// A stream cut into messages: the same ones however it arrives, and nothing lost.
pub fn frame(octets: &[u8]) {
    let Some((&size, stream)) = octets.split_first() else { return };
    let whole = deframe(stream, stream.len().max(1));
    assert_eq!(whole, deframe(stream, usize::from(size).max(1)), "pieces of {size} octets");
    let mut again = BytesMut::new();
    for message in &whole.0 {
        assert!(frame::append(&mut again, message));
    }
    again.extend_from_slice(&whole.1);
    assert_eq!(again, stream);
}

/// Reads a stream in pieces of `size` octets: the messages, and what is left.
fn deframe(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    for piece in stream.chunks(size) {
        deframer.buffer().extend_from_slice(piece);
        while let Some(message) = deframer.next_message() {
            messages.push(message.to_vec());
        }
    }
    let left = if deframer.is_partial() { deframer.buffer().to_vec() } else { Vec::new() };
    (messages, left)
}

/// An OPT record: class, TTL and RDATA, put into a query and into a response.
pub fn edns(octets: &[u8]) {
    let Some((fixed, rdata)) = octets.split_first_chunk::<6>() else { return };
    let Ok(length) = u16::try_from(rdata.len()) else { return };
    for flags in [0x01, 0x81] {
        let mut message = vec![0, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'a', 0, 0, 1, 0, 1, 0, 0, 41];
        message.extend_from_slice(fixed);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(rdata);
        query(&message);
        response(&message);
        let edns = QueryRef::parse(&message).ok().and_then(|query| query.edns());
        if let Some(edns) = edns {
            assert_eq!(options(&edns), rdata);
        }
    }
}

/// Walks over the options and writes them anew.
fn options(edns: &EdnsRef<'_>) -> Vec<u8> {
    let mut anew = Vec::new();
    for (code, content) in edns.options() {
        anew.extend_from_slice(&code.to_be_bytes());
        anew.extend_from_slice(&u16::try_from(content.len()).expect("a length from the wire").to_be_bytes());
        anew.extend_from_slice(content);
        assert!(edns.option(code).is_some());
    }
    let _ = edns.ede();
    anew
}

/// A configuration: settings and their summary, or errors that can be shown.
pub fn config(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match from_text(text, Path::new("no-such-folder")) {
        Ok(settings) => assert!(!summary(&settings).is_empty()),
        Err(errors) => assert_shown(&errors),
    }
}

/// Asserts that errors can be shown.
fn assert_shown(errors: &ConfigErrors) {
    assert!(errors.count() > 0);
    assert!(errors.lines().take(10).all(|line| !line.is_empty()));
    // Drawing is most of the work: each input sees one of the two.
    let appearance = if errors.count().is_multiple_of(2) { Appearance::Plain } else { Appearance::Coloured };
    assert!(!errors.render(appearance).is_empty());
}

/// One line of a list, wherever the program reads one: a variable of the environment for each key that is a list, a line of
/// resolv.conf, one of OpenWrt's configuration, one of stubby's. What was taken can be written and is then the same.
pub fn list_line(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let line = text.lines().next().unwrap_or_default();
    for key in KEYS.iter().filter(|key| key.kind == Kind::List && !key.name.contains('*')) {
        match with_variable(key.name, line) {
            Ok(settings) => {
                assert!(!summary(&settings).is_empty());
                assert_bounded(&settings);
                if let Some(again) = written(&settings, key.name) {
                    let read = with_variable(key.name, &again);
                    let read = read.unwrap_or_else(|errors| panic!("{}: {again:?}: {errors}", key.name));
                    assert_eq!(written(&read, key.name), Some(again), "{}", key.name);
                    assert_eq!(read, settings, "{}", key.name);
                }
            }
            Err(errors) => assert_shown(&errors),
        }
    }
    nameservers(line);
    for format in [ImportFormat::HttpsDnsProxy, ImportFormat::Stubby] {
        imported(line, format);
    }
}

/// Reads the one variable of a key.
fn with_variable(key: &str, value: &str) -> Result<Settings, ConfigErrors> {
    let name = format!("VEILDNS_{}", key.replace('.', "__").to_uppercase());
    // A number of its own, or the processors would be counted each time.
    from_variables([("VEILDNS_WORKERS".to_owned(), "1".to_owned()), (name, value.to_owned())])
}

/// Asserts what holds for settings whatever they were read from.
fn assert_bounded(settings: &Settings) {
    assert!(!settings.listen.is_empty() && !settings.groups.is_empty());
    for group in &settings.groups {
        assert!((1..=MAX_MEMBERS).contains(&group.members.len()));
        assert!(group.members.iter().all(|member| *member < settings.servers.len()));
    }
}

/// Writes a list as its variable has it. None: what is read of this key is more than the list, or cannot be told from it.
fn written(settings: &Settings, key: &str) -> Option<String> {
    let servers = |group: usize| {
        let members = settings.groups[group].members.iter();
        members.map(|member| settings.servers[*member].name.clone()).collect()
    };
    // A comma within a name would end the item.
    let names = |names: &[Name]| names.iter().map(|name| name.to_string().replace(',', "\\044")).collect();
    let items: Vec<String> = match key {
        "listen" if settings.listen.iter().all(|listen| listen.written) => {
            settings.listen.iter().map(|listen| listen.address.to_string()).collect()
        }
        "upstreams" => servers(0),
        "bootstrap" => servers(settings.bootstrap?),
        "access.allow" => settings.access.iter().map(ToString::to_string).collect(),
        "clock.time_servers" => names(&settings.time_servers),
        "rebinding.allow" => names(&settings.rebinding.allow),
        _ => return None,
    };
    Some(items.join(","))
}

/// A line of resolv.conf: no more nameservers than are used, and each is read again as it is.
fn nameservers(line: &str) {
    let read = resolv_conf::nameservers(line);
    assert!(read.len() <= 1, "one line names one");
    let lines: String =
        std::iter::repeat_n(&read, 5).flatten().map(|it| format!("nameserver {it}\n")).collect();
    let again = resolv_conf::nameservers(&lines);
    assert_eq!(again.len(), if read.is_empty() { 0 } else { resolv_conf::MOST_NAMESERVERS });
    assert!(again.iter().all(|address| read.contains(address)));
}

/// A line of another program's configuration, where a list has its items: what comes of it is TOML.
fn imported(line: &str, format: ImportFormat) {
    let original = match format {
        ImportFormat::HttpsDnsProxy => {
            format!("config https-dns-proxy\n\tlist bootstrap_dns {line}\n\t{line}\n")
        }
        ImportFormat::Stubby => {
            format!("upstream_recursive_servers:\n  - {line}\nlisten_addresses: [{line}]\n")
        }
    };
    match import::from_text(&original, format) {
        Ok(ours) => {
            if let Err(errors) = from_text(&ours, Path::new("no-such-folder")) {
                assert_shown(&errors);
                assert!(!errors.lines().any(|line| line.contains("not TOML")), "{ours}");
            }
        }
        Err(errors) => assert_shown(&errors),
    }
}

/// A line to the control socket, and the same as an answer of one: what is understood can be said again, and is not longer
/// than the gateway reads.
pub fn control(octets: &[u8]) {
    let _ = decode_answer(octets).map_err(|error| assert!(!error.to_string().is_empty()));
    match Request::decode(octets) {
        Ok(request) => {
            let line = request.encode();
            assert!(line.len() < LONGEST_REQUEST && !line.contains('\n'), "{line}");
            assert_eq!(Request::decode(line.as_bytes()), Ok(request), "{line}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What a collector of dnstap says: the head of a control frame and what follows it.
pub fn collector(octets: &[u8]) {
    let Some((head, rest)) = octets.split_first_chunk() else { return };
    let Ok(length) = Control::length(*head) else { return };
    assert!((4..=MAX_CONTROL).contains(&length));
    let Some(Ok(control)) = rest.get(..length).map(Control::parse) else { return };
    let named: usize = control.content_types.iter().map(|name| 8 + name.len()).sum();
    assert_eq!(named + 4, length, "every octet belongs to something");
    let ours = control.content_types.contains(&frames::CONTENT_TYPE);
    assert_eq!(control.takes_dnstap(), ours || control.content_types.is_empty());
    let mut written = Vec::new();
    frames::append_control(&mut written, control.kind);
    let names_it = !matches!(control.kind, ControlKind::Stop | ControlKind::Finish);
    if control.content_types == [frames::CONTENT_TYPE] && names_it {
        assert_eq!(written, octets[..written.len()], "we would write the same");
    }
}

/// A name on the wire and in text: each gives the other back.
pub fn name(octets: &[u8]) {
    if let Some(name) = NameRef::parse(octets) {
        let text = name.to_string();
        let read: Name = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(read.view().eq_ignore_case(name), "{text}");
        assert_eq!(name.suffixes().count(), name.labels().count() + 1);
        assert!(name.suffixes().all(|suffix| name.is_within(suffix)));
    }
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string().parse::<Name>().as_ref(), Ok(&name), "{text}");
        let wire = name.view().as_bytes();
        assert_eq!(NameRef::parse(wire).map(|read| read.as_bytes().len()), Some(wire.len()));
    }
}

/// Asserts that a reply belongs to its query, and returns it.
fn assert_reply<'a>(query: &QueryRef<'_>, octets: &'a [u8]) -> ResponseRef<'a> {
    let reply = ResponseRef::parse(octets).unwrap_or_else(|fault| panic!("{fault:?}: {octets:02x?}"));
    assert_eq!(reply.header().id(), query.id());
    assert_same(reply.question(), query.question());
    assert_eq!(reply.edns().is_some(), query.edns().is_some(), "an OPT answers an OPT");
    reply
}

/// Asserts that two questions are the same, letter case included.
fn assert_same(one: QuestionRef<'_>, other: QuestionRef<'_>) {
    assert_eq!(one.name.as_bytes(), other.name.as_bytes());
    assert_eq!((one.rtype, one.class), (other.rtype, other.class));
}

/// Reads everything of a record.
fn walk(record: &RecordRef<'_>) {
    let mut name = [0; MAX_NAME];
    let owner = record.owner.unpack_into(&mut name).expect("a checked name");
    assert!(record.owner.eq_name(owner));
    assert!(record.owner.eq_packed(&record.owner));
    assert_eq!(record.owner.labels().count(), owner.labels().count());
    for offset in [0, 2, 6] {
        let mut name = [0; MAX_NAME];
        let _ = record.rdata_name(offset).map(|name_in_rdata| name_in_rdata.unpack_into(&mut name).is_some());
    }
    let _ = record.soa_minimum();
}

/// Counts the records of all sections.
fn count(response: &ResponseRef<'_>) -> usize {
    Section::ALL.iter().map(|section| response.records(*section).count()).sum()
}

/// Returns the TTLs of all records, in order.
fn ttls<'a>(response: &ResponseRef<'a>) -> impl Iterator<Item = u32> + use<'a> {
    let response = *response;
    Section::ALL.into_iter().flat_map(move |section| response.records(section)).map(|record| record.ttl.0)
}
