//! One event, from the moment it happens until it is a message of dnstap: what is copied on the path of a query, and what a
//! collector gets of it. The fields and numbers are those of `dnstap.proto`. Where it goes is `courier`'s matter.

use super::frames;
use crate::config::settings::QueryClients;
use crate::config::settings::dnstap::{DnstapSettings, MessageKind};
use crate::telemetry::query_line::network;
use crate::wire::query::QueryRef;
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a message travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 1035 §4.2.1.
    Udp,
    /// RFC 1035 §4.2.2.
    Tcp,
    /// RFC 7858.
    Dot,
    /// RFC 8484, over HTTP/2.
    Doh,
}

/// Between whom. Events about servers cannot name a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parties {
    /// A client and this gateway.
    Client {
        /// Who asked.
        client: SocketAddr,
        /// The address of ours that was asked.
        asked: Option<SocketAddr>,
    },
    /// This gateway and a server.
    Server {
        /// The operator's name for it.
        name: Box<str>,
        /// Where it is, if that is known.
        address: Option<SocketAddr>,
    },
}

/// One event, as it is remembered until it is written.
#[derive(Debug)]
pub(super) struct Event {
    /// Which message it is.
    pub(super) kind: MessageKind,
    /// How it travelled.
    pub(super) protocol: Protocol,
    /// Between whom.
    pub(super) parties: Parties,
    /// When the query came or went.
    pub(super) asked_at: SystemTime,
    /// When the answer came or went; None for a query.
    pub(super) answered_at: Option<SystemTime>,
    /// The message.
    pub(super) message: Box<[u8]>,
}

/// Makes frames of events.
#[derive(Debug)]
pub(super) struct EventWriter {
    /// What this gateway calls itself.
    identity: Option<Bytes>,
    /// What it is.
    version: Bytes,
    /// What is said of clients.
    clients: QueryClients,
}

impl EventWriter {
    /// Makes one for what the operator wants.
    pub(super) fn new(settings: &DnstapSettings) -> Self {
        let identity = &settings.identity;
        Self {
            identity: (!identity.is_empty()).then(|| Bytes::from(identity.clone())),
            version: Bytes::from_static(concat!("veildns ", env!("CARGO_PKG_VERSION")).as_bytes()),
            clients: settings.clients,
        }
    }

    /// Appends the frame of an event.
    pub(super) fn write(&self, event: Event, out: &mut Vec<u8>) {
        let extra = match &event.parties {
            Parties::Server { name, .. } => Some(Bytes::copy_from_slice(name.as_bytes())),
            Parties::Client { .. } => None,
        };
        let dnstap = proto::Dnstap {
            identity: self.identity.clone(),
            version: Some(self.version.clone()),
            extra,
            message: Some(self.message(event)),
            r#type: proto::MESSAGE,
        };
        frames::append_data(out, &dnstap);
    }

    /// Fills the fields of a message.
    fn message(&self, event: Event) -> proto::Message {
        let (family_of, query, response) = match &event.parties {
            Parties::Client { client, asked } => (Some(*client), self.client(*client), *asked),
            Parties::Server { address, .. } => (*address, (None, None), *address),
        };
        let (query_address, query_port) = query;
        let is_query = matches!(event.kind, MessageKind::ClientQuery | MessageKind::ForwarderQuery);
        let octets = self.octets(event.kind, event.message);
        let (query_message, response_message) = if is_query { (octets, None) } else { (None, octets) };
        let (query_secs, query_nanos) = split(event.asked_at);
        let answered = event.answered_at.map(split);
        proto::Message {
            r#type: proto::kind(event.kind),
            socket_family: family_of.map(|address| proto::family(address.ip())),
            socket_protocol: Some(proto::protocol(event.protocol)),
            query_address,
            response_address: response.map(|address| octets_of(address.ip())),
            query_port,
            response_port: response.map(|address| u32::from(address.port())),
            query_time_sec: Some(query_secs),
            query_time_nsec: Some(query_nanos),
            query_message,
            response_time_sec: answered.map(|(secs, _)| secs),
            response_time_nsec: answered.map(|(_, nanos)| nanos),
            response_message,
            http_protocol: (event.protocol == Protocol::Doh).then_some(proto::HTTP2),
        }
    }

    /// Returns what is said of a client: address and port. A port alone would tell clients of one network apart.
    fn client(&self, client: SocketAddr) -> (Option<Bytes>, Option<u32>) {
        match self.clients {
            QueryClients::Full => (Some(octets_of(client.ip())), Some(u32::from(client.port()))),
            QueryClients::Masked => (Some(octets_of(network(client.ip()).0)), None),
            QueryClients::Absent => (None, None),
        }
    }

    /// Returns the message. What a client sends may name it by an option (RFC 7871, RFC 7873): when it is not to be named,
    /// its queries have no options, and what cannot be read is left out.
    fn octets(&self, kind: MessageKind, message: Box<[u8]>) -> Option<Bytes> {
        if kind == MessageKind::ClientQuery && self.clients != QueryClients::Full {
            return QueryRef::parse(&message).ok().map(|query| query.without_options().into());
        }
        Some(message.into())
    }
}

/// Returns an address's octets, in the family that it belongs to.
fn octets_of(address: IpAddr) -> Bytes {
    match address.to_canonical() {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

/// Splits a time into whole seconds since 1970 and nanoseconds.
fn split(time: SystemTime) -> (u64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// The messages of `dnstap.proto`, as far as they are used here, and its numbers.
pub(super) mod proto {
    use super::{MessageKind, Protocol};
    use bytes::Bytes;
    use std::net::IpAddr;

    /// `Dnstap.Type`: there is one.
    pub(in super::super) const MESSAGE: i32 = 1;
    /// `HttpProtocol`.
    pub(super) const HTTP2: i32 = 2;

    /// The outer message.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in super::super) struct Dnstap {
        /// Who says it.
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(in super::super) identity: Option<Bytes>,
        /// What that is.
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(in super::super) version: Option<Bytes>,
        /// For anything: here the operator's name of the server.
        #[prost(bytes = "bytes", optional, tag = "3")]
        pub(in super::super) extra: Option<Bytes>,
        /// What happened.
        #[prost(message, optional, tag = "14")]
        pub(in super::super) message: Option<Message>,
        /// That it is in `message`.
        #[prost(int32, required, tag = "15")]
        pub(in super::super) r#type: i32,
    }

    /// What happened.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(in super::super) struct Message {
        /// Which message, seen from whom.
        #[prost(int32, required, tag = "1")]
        pub(in super::super) r#type: i32,
        /// How addresses are to be read.
        #[prost(int32, optional, tag = "2")]
        pub(in super::super) socket_family: Option<i32>,
        /// How it travelled.
        #[prost(int32, optional, tag = "3")]
        pub(in super::super) socket_protocol: Option<i32>,
        /// Who asked.
        #[prost(bytes = "bytes", optional, tag = "4")]
        pub(in super::super) query_address: Option<Bytes>,
        /// Who answers.
        #[prost(bytes = "bytes", optional, tag = "5")]
        pub(in super::super) response_address: Option<Bytes>,
        /// From which port.
        #[prost(uint32, optional, tag = "6")]
        pub(in super::super) query_port: Option<u32>,
        /// On which port.
        #[prost(uint32, optional, tag = "7")]
        pub(in super::super) response_port: Option<u32>,
        /// When it was asked, since 1970.
        #[prost(uint64, optional, tag = "8")]
        pub(in super::super) query_time_sec: Option<u64>,
        /// And a fraction.
        #[prost(fixed32, optional, tag = "9")]
        pub(in super::super) query_time_nsec: Option<u32>,
        /// The query.
        #[prost(bytes = "bytes", optional, tag = "10")]
        pub(in super::super) query_message: Option<Bytes>,
        /// When it was answered, since 1970.
        #[prost(uint64, optional, tag = "12")]
        pub(in super::super) response_time_sec: Option<u64>,
        /// And a fraction.
        #[prost(fixed32, optional, tag = "13")]
        pub(in super::super) response_time_nsec: Option<u32>,
        /// The answer.
        #[prost(bytes = "bytes", optional, tag = "14")]
        pub(in super::super) response_message: Option<Bytes>,
        /// Which HTTP, for DNS over HTTPS.
        #[prost(int32, optional, tag = "16")]
        pub(in super::super) http_protocol: Option<i32>,
    }

    /// Returns the number of `Message.Type`.
    pub(super) fn kind(kind: MessageKind) -> i32 {
        match kind {
            MessageKind::ClientQuery => 5,
            MessageKind::ClientResponse => 6,
            MessageKind::ForwarderQuery => 7,
            MessageKind::ForwarderResponse => 8,
        }
    }

    /// Returns the number of `SocketFamily`.
    pub(super) fn family(address: IpAddr) -> i32 {
        if address.to_canonical().is_ipv4() { 1 } else { 2 }
    }

    /// Returns the number of `SocketProtocol`.
    pub(super) fn protocol(protocol: Protocol) -> i32 {
        match protocol {
            Protocol::Udp => 1,
            Protocol::Tcp => 2,
            Protocol::Dot => 3,
            Protocol::Doh => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::dnstap::{Collector, MessageKinds};
    use prost::Message as _;
    use std::time::Duration;

    /// ID 0x1234, RD, AD; `a.example` A; an OPT of 4096 octets, DO, with a COOKIE and the client's network.
    const QUERY: &[u8] = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x07example\x00\x00\x01\x00\x01\
        \x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x17\x00\x0a\x00\x08cookie!!\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02";
    /// The same without options.
    const BARE: &[u8] =
        b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x07example\x00\x00\x01\x00\x01\
        \x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

    fn settings(clients: QueryClients) -> DnstapSettings {
        DnstapSettings {
            collector: Collector::Unix("/nowhere".into()),
            messages: MessageKinds::ALL,
            clients,
            identity: "here".to_owned(),
        }
    }

    fn client_event(kind: MessageKind, message: &[u8]) -> Event {
        Event {
            kind,
            protocol: Protocol::Udp,
            parties: Parties::Client {
                client: "192.0.2.77:4711".parse().unwrap(),
                asked: Some("127.0.0.1:53".parse().unwrap()),
            },
            asked_at: UNIX_EPOCH + Duration::new(7, 8),
            answered_at: (kind == MessageKind::ClientResponse).then_some(UNIX_EPOCH + Duration::new(9, 10)),
            message: message.into(),
        }
    }

    /// Writes an event and reads it again.
    fn written(clients: QueryClients, event: Event) -> proto::Dnstap {
        let mut frame = Vec::new();
        EventWriter::new(&settings(clients)).write(event, &mut frame);
        let (length, content) = frame.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, content.len());
        proto::Dnstap::decode(content).unwrap()
    }

    #[test]
    fn a_client_query_has_the_fields_of_its_kind() {
        let dnstap = written(QueryClients::Full, client_event(MessageKind::ClientQuery, QUERY));
        assert_eq!(dnstap.identity.as_deref(), Some(&b"here"[..]));
        assert!(dnstap.version.unwrap().starts_with(b"veildns "));
        assert_eq!((dnstap.r#type, dnstap.extra), (1, None));
        let message = dnstap.message.unwrap();
        let expected = proto::Message {
            r#type: 5,
            socket_family: Some(1),
            socket_protocol: Some(1),
            query_address: Some(Bytes::from_static(&[192, 0, 2, 77])),
            response_address: Some(Bytes::from_static(&[127, 0, 0, 1])),
            query_port: Some(4711),
            response_port: Some(53),
            query_time_sec: Some(7),
            query_time_nsec: Some(8),
            query_message: Some(Bytes::from_static(QUERY)),
            ..proto::Message::default()
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn a_response_has_both_times_and_only_itself() {
        let event = client_event(MessageKind::ClientResponse, b"the reply");
        let message = written(QueryClients::Full, event).message.unwrap();
        assert_eq!(message.r#type, 6);
        assert_eq!((message.query_time_sec, message.query_time_nsec), (Some(7), Some(8)));
        assert_eq!((message.response_time_sec, message.response_time_nsec), (Some(9), Some(10)));
        assert_eq!(message.response_message.as_deref(), Some(&b"the reply"[..]));
        assert_eq!(message.query_message, None);
    }

    #[test]
    fn masked_and_absent_clients_are_named_neither_by_address_and_port_nor_by_options() {
        for (clients, address) in
            [(QueryClients::Masked, Some(&[192_u8, 0, 2, 0][..])), (QueryClients::Absent, None)]
        {
            for kind in [MessageKind::ClientQuery, MessageKind::ClientResponse] {
                let message = written(clients, client_event(kind, QUERY)).message.unwrap();
                assert_eq!(message.query_address.as_deref(), address);
                assert_eq!((message.query_port, message.socket_family), (None, Some(1)));
            }
            let message = written(clients, client_event(MessageKind::ClientQuery, QUERY)).message.unwrap();
            assert_eq!(message.query_message.as_deref(), Some(BARE));
            let unreadable = client_event(MessageKind::ClientQuery, b"anything");
            assert_eq!(written(clients, unreadable).message.unwrap().query_message, None);
        }
        let event = Event {
            parties: Parties::Client { client: "[2001:db8:1:23ff:4::5]:1".parse().unwrap(), asked: None },
            ..client_event(MessageKind::ClientQuery, QUERY)
        };
        let message = written(QueryClients::Masked, event).message.unwrap();
        let network: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(message.query_address.as_deref(), Some(&network[..]));
        assert_eq!(message.socket_family, Some(2));
    }

    #[test]
    fn a_servers_answer_names_the_server_and_nobody_else() {
        let event = Event {
            kind: MessageKind::ForwarderResponse,
            protocol: Protocol::Doh,
            parties: Parties::Server {
                name: "quad9".into(),
                address: Some("[2620:fe::fe]:443".parse().unwrap()),
            },
            ..client_event(MessageKind::ClientResponse, b"its answer")
        };
        let dnstap = written(QueryClients::Full, event);
        assert_eq!(dnstap.extra.as_deref(), Some(&b"quad9"[..]));
        let message = dnstap.message.unwrap();
        assert_eq!((message.r#type, message.socket_family, message.socket_protocol), (8, Some(2), Some(4)));
        assert_eq!((message.query_address, message.query_port), (None, None));
        assert_eq!((message.response_port, message.http_protocol), (Some(443), Some(2)));
        assert_eq!(message.response_message.as_deref(), Some(&b"its answer"[..]));
    }
}
