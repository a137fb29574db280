//! Servers that flood (CVE-2023-44487, CVE-2024-27316 and their kin).

use super::*;

/// One frame of a flood.
struct Flood {
    kind: u8,
    flags: u8,
    on_stream: bool,
    payload: Vec<u8>,
}

/// Answers whatever comes on the next connection.
async fn answer_next_connection(site: &mut Site) {
    site.frames().await.answer_all().await;
}

/// Lets a server answer a query with a flood; the query must be answered over another connection.
async fn survive(flood: Flood) {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, _) = server.query().await;
        if flood.kind == CONTINUATION {
            server.send(HEADERS, 0, stream, &[0x88]).await.unwrap();
        }
        let stream = if flood.on_stream { stream } else { 0 };
        let flooding = server.flood(flood.kind, flood.flags, stream, &flood.payload);
        tokio::join!(flooding, answer_next_connection(&mut site));
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
}

#[tokio::test(start_paused = true)]
async fn endless_continuation_frames_end_only_that_connection() {
    let payload = vec![0; 1024];
    survive(Flood { kind: CONTINUATION, flags: 0, on_stream: true, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_pings_end_only_that_connection() {
    survive(Flood { kind: PING, flags: 0, on_stream: false, payload: vec![0; 8] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_settings_end_only_that_connection() {
    // A setting that nobody knows; each frame is to be acknowledged.
    let payload = [0xfa, 0xfa, 0, 0, 0, 1].repeat(16);
    survive(Flood { kind: SETTINGS, flags: 0, on_stream: false, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_window_updates_end_only_that_connection() {
    // The least that may be, so that the window does not overflow.
    survive(Flood { kind: WINDOW_UPDATE, flags: 0, on_stream: false, payload: vec![0, 0, 0, 1] }).await;
}

#[tokio::test(start_paused = true)]
async fn resets_of_streams_that_were_never_opened_end_only_that_connection() {
    survive(Flood { kind: RST_STREAM, flags: 0, on_stream: false, payload: vec![0, 0, 0, 8] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_frames_of_no_known_kind_end_only_that_connection() {
    survive(Flood { kind: 0xfa, flags: 0, on_stream: false, payload: vec![0; 16 * 1024] }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_interim_responses_end_only_that_connection() {
    // Status 103 and a field, in HPACK without indexing.
    let mut payload = vec![0x08, 3];
    payload.extend(b"103");
    payload.extend([0x00, 1, b'x', 100]);
    payload.extend([b'y'; 100]);
    survive(Flood { kind: HEADERS, flags: END_HEADERS, on_stream: true, payload }).await;
}

#[tokio::test(start_paused = true)]
async fn endless_empty_data_ends_only_that_connection() {
    let (client, mut site) = usual();
    let serve = async {
        let mut server = site.frames().await;
        let (stream, _) = server.query().await;
        server.send(HEADERS, END_HEADERS, stream, &ok_head()).await.unwrap();
        tokio::join!(server.flood(DATA, 0, stream, &[]), answer_next_connection(&mut site));
    };
    let asking = async {
        client.assert_answered(query("a")).await;
        client.pool.drain();
    };
    tokio::join!(asking, serve);
}
