//! Where dnstap and traces go.

use super::*;

#[test]
fn dnstap_is_off_until_an_output_is_written() {
    use super::settings::dnstap::{Collector, MessageKind};
    assert_eq!(good("").dnstap, None);
    assert_eq!(good("[dnstap]\noutput = \"off\"\nidentity = \"x\"").dnstap, None);
    let dnstap = good("[dnstap]\noutput = \"unix:run/tap.sock\"").dnstap.unwrap();
    assert_eq!(dnstap.collector, Collector::Unix("/nowhere/run/tap.sock".into()));
    assert!(MessageKind::WORDS.iter().all(|(_, kind)| dnstap.messages.contains(*kind)));
    assert_eq!((dnstap.clients, dnstap.identity.as_str()), (QueryClients::Full, ""));
    let settings = good(
        "[dnstap]\noutput = \"tcp://[::1]:6000\"\nmessages = [\"forwarder_query\"]\nclients = \"masked\"\nidentity = \"gw\"",
    );
    let dnstap = settings.dnstap.unwrap();
    assert_eq!(dnstap.collector.to_string(), "tcp://[::1]:6000");
    let wanted: Vec<&str> = MessageKind::WORDS
        .into_iter()
        .filter(|(_, kind)| dnstap.messages.contains(*kind))
        .map(|(word, _)| word)
        .collect();
    assert_eq!(wanted, ["forwarder_query"]);
    assert_eq!((dnstap.clients, dnstap.identity.as_str()), (QueryClients::Masked, "gw"));
    assert!(settings.notices.is_empty(), "loopback stays on the machine");
}

#[test]
fn a_collector_elsewhere_is_told_of_and_a_place_that_is_none_is_a_fault() {
    let notices = good("[dnstap]\noutput = \"tcp://192.0.2.1:6000\"").notices;
    assert!(notices.iter().any(|notice| notice.contains("unencrypted")), "{notices:?}");
    for output in ["/run/tap.sock", "tcp://localhost:6000", "tcp://127.0.0.1", "unix:", "file:tap"] {
        assert_eq!(bad(&format!("[dnstap]\noutput = \"{output}\"")).len(), 1, "{output}");
    }
    let long = format!("[dnstap]\noutput = \"unix:/{}\"", "x".repeat(107));
    assert!(report(&long).contains("too long for a socket"));
    assert!(report("[dnstap]\nmessages = [\"client_querry\"]").contains("client_query"));
    assert!(report("[dnstap]\nmessages = []").contains("expected at least one kind"));
    assert!(report("[dnstap]\nclients = \"none\"").contains("full | masked | absent"));
}

#[cfg(feature = "otel")]
#[test]
fn traces_are_off_until_they_are_switched_on_and_go_to_this_host() {
    assert_eq!(good("[otel]\nsample = \"5%\"").traces, None);
    let traces = good("[otel]\ntraces = true").traces.unwrap();
    assert_eq!(traces.collector.to_string(), "http://127.0.0.1:4318/v1/traces");
    assert_eq!((traces.sample.to_string(), traces.names), ("100%".to_owned(), false));
    let traces =
        good("[otel]\ntraces = true\nendpoint = \"http://[::1]:9/otlp\"\nsample = \"0.5%\"").traces.unwrap();
    assert_eq!(traces.collector.to_string(), "http://[::1]:9/otlp");
    assert_eq!(traces.sample.to_string(), "0.5%");
}

#[cfg(feature = "otel")]
#[test]
fn a_collector_is_given_by_address_and_asked_without_tls() {
    for (endpoint, message) in [
        ("http://collector.example:4318", "the host is a name"),
        ("http://localhost:4318", "write its address: the name would be looked up by the system"),
        ("https://127.0.0.1:4318", "only plain http:// is spoken to a collector"),
        ("127.0.0.1:4318", "not the URL of a collector"),
        ("http://127.0.0.1:0", "is not a port"),
        ("http://127.0.0.1/v1/traces?x", "the path has characters that do not belong there"),
        ("http://", "the host is missing"),
    ] {
        let report = report(&format!("[otel]\ntraces = true\nendpoint = \"{endpoint}\""));
        assert!(report.contains(message), "{endpoint}\n{report}");
    }
    assert!(report("[otel]\nsample = \"0%\"").contains("\"0%\" is no share"));
    assert!(report("[otel]\nservice_name = \"\"").contains("is no name of a service"));
    let notices = good("[otel]\ntraces = true\nnames = true\nendpoint = \"http://192.0.2.1\"").notices;
    assert_eq!(
        notices,
        ["otel.names: names of queries leave unencrypted, to the collector at 192.0.2.1:4318"]
    );
}
