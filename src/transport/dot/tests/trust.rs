//! Whom a handshake trusts.

use super::*;

/// What a pool says when its server shows `identity`.
async fn refusal(spec: &ServerSpec, identity: &Identity) -> TransportError {
    let mut stage = Stage::with(Limits::default(), spec, identity);
    stage.ask(0, "a.example");
    let _ = stage.door.accept_tls(&stage.acceptor).await.map(drop);
    stage.error(0).await
}

#[tokio::test(start_paused = true)]
async fn bad_certificates_are_told_apart_from_other_failures() {
    let authority = Authority::new();
    let spec = authority.spec(dot_endpoint());
    let wrong = [
        ("expired", authority.identity(NAME, 2001)),
        ("wrong name", authority.identity("other.example", 4000)),
        ("unknown authority", Authority::new().identity(NAME, 4000)),
    ];
    for (what, identity) in wrong {
        let error = refusal(&spec, &identity).await;
        assert!(matches!(error, TransportError::Certificate { .. }), "{what}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_before_the_build_trusts_whom_the_build_would_and_is_named_when_it_cannot() {
    use crate::config::settings::{Roots, TlsSettings, TlsVersion};
    use crate::transport::certificate_time::CertificateClock;
    use crate::transport::tls::TlsContext;
    const IN_2026: u64 = 1_795_381_080;
    let settings = TlsSettings { roots: Roots::Webpki, extra_ca_dir: None, min_version: TlsVersion::Tls12 };
    let authority = Authority::new();
    let spec = authority.spec(dot_endpoint());
    let time = Arc::new(CertificateClock::new(|| std::time::UNIX_EPOCH, IN_2026));
    let context = TlsContext::load(&settings).unwrap().with_time(Arc::clone(&time));
    for (until, name, expected) in [
        (4000, NAME, None),
        (2001, NAME, Some("the clock is wrong: it says 1970-01-01T00:00:00.000Z, and it is 2026-")),
        (4000, "other.example", Some("the certificate is not acceptable")),
    ] {
        let mut stage = Stage::with(Limits::default(), &spec, &authority.identity(name, until));
        let (dial, door) = pipes();
        let tls = TlsClient::new(&context, &spec, &[]).unwrap();
        stage.pool = Pool::new(DotConnector { dial, tls, streams: 8 }, &stage.around);
        stage.door = door;
        stage.ask(0, "a.example");
        let accepted = stage.door.accept_tls(&stage.acceptor).await;
        let Some(text) = expected else {
            let mut server = Peer::new(accepted.unwrap());
            let query = server.read().await.unwrap();
            server.write(&[answer_to(&query)]).await;
            stage.answered(0).await;
            continue;
        };
        let error = stage.error(0).await.to_string();
        assert!(error.starts_with(text), "{error}");
    }
    assert_eq!(*time.good().borrow(), 0, "a wrong clock is not remembered as right");
}

#[tokio::test(start_paused = true)]
async fn a_pin_must_match_besides_the_chain() {
    use sha2::{Digest, Sha256};
    let authority = Authority::new();
    let identity = authority.identity(NAME, 4000);
    let (_, parsed) = x509_parser::parse_x509_certificate(&identity.certificate).unwrap();
    let pin: [u8; 32] = Sha256::digest(parsed.public_key().raw).into();

    let wrong = ServerSpec { pins: vec![[7; 32]], ..authority.spec(dot_endpoint()) };
    assert!(matches!(refusal(&wrong, &identity).await, TransportError::Pin));

    let right = ServerSpec { pins: vec![[7; 32], pin], ..wrong };
    let mut stage = Stage::with(Limits::default(), &right, &identity);
    stage.ask(0, "a.example");
    let mut server = stage.accept().await;
    let query = server.read().await.unwrap();
    server.write(&[answer_to(&query)]).await;
    stage.answered(0).await;

    let stranger = Authority::new();
    let pinned = ServerSpec { ca_file: Some(stranger.directory().join("ca.pem")), ..right };
    assert!(matches!(refusal(&pinned, &identity).await, TransportError::Certificate { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_no_tls_is_a_tls_failure() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let mut pipe = stage.door.accept().await;
    pipe.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert!(matches!(stage.error(0).await, TransportError::Tls { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_deadline() {
    let mut stage = Stage::new(Limits::default());
    stage.ask(0, "a.example");
    let started = clock::now();
    let _silent = stage.door.accept().await;
    assert!(matches!(stage.error(0).await, TransportError::ConnectTimeout { .. }));
    assert!(clock::now() - started < Duration::from_secs(3));
}
