//! The arithmetic of credit, and what is released when something ends.

use std::future::poll_fn;
use std::sync::Arc;

use super::flow::{
    Caps, Flow, Full, Kind, Lane, MAX_CLOSED_FIRST, NODE_QUEUE, OUT_ROOM, Overrun, Side, TRICKLE,
    WINDOW,
};
use super::types::{ChannelRequest, Event, RequestKind, WindowSize};

const CAPS: Caps = Caps {
    channels: 4,
    sessions: 2,
};

const PACKET: usize = 32 << 10;

fn user_flow(channels: &[u32]) -> Arc<Flow> {
    let flow = Flow::new(Side::User, CAPS);
    for id in channels {
        flow.register(*id, Kind::Stream).unwrap();
    }
    flow
}

fn push(flow: &Flow, id: u32, bytes: usize) {
    let packet = vec![7; PACKET];
    for _ in 0..bytes / PACKET {
        flow.push_bytes(id, Lane::Main, &packet).unwrap();
    }
}

async fn next(flow: &Flow, id: u32) -> Option<Event> {
    poll_fn(|cx| flow.poll_next(id, cx)).await
}

#[test]
fn the_target_shrinks_with_what_is_queued() {
    let flow = user_flow(&[1]);
    assert_eq!(flow.target(1) as usize, WINDOW);
    push(&flow, 1, WINDOW / 2);
    let target = flow.target(1) as usize;
    assert!(
        target <= WINDOW / 2 && target > WINDOW / 2 - 8192,
        "{target}"
    );
}

#[test]
fn a_full_queue_is_given_a_trickle_and_never_less_than_two_bytes() {
    let flow = user_flow(&[1, 2]);
    for _ in 0..WINDOW / PACKET * 2 {
        push(&flow, 1, PACKET);
        assert!(flow.target(1) >= TRICKLE);
        assert!(flow.target(2) >= TRICKLE);
    }
    assert_eq!(flow.target(1), TRICKLE);
    assert!(flow.is_held(), "the stream paces");
}

#[tokio::test]
async fn credit_comes_back_when_half_of_a_full_queue_has_been_consumed_and_not_before() {
    let flow = user_flow(&[1]);
    push(&flow, 1, WINDOW);
    assert_eq!(flow.target(1), TRICKLE);
    for _ in 0..WINDOW / PACKET / 2 {
        next(&flow, 1).await.unwrap();
    }
    assert!(flow.is_held(), "the message last handed out still counts");
    for _ in 0..2 {
        next(&flow, 1).await.unwrap();
    }
    assert!(!flow.is_held());
    assert!(flow.target(1) as usize > WINDOW / 3);
}

#[test]
fn reading_is_paced_only_after_every_stalled_channel_was_probed() {
    let flow = user_flow(&[1, 2, 3]);
    push(&flow, 1, WINDOW);
    push(&flow, 2, WINDOW);
    flow.target(1);
    assert!(!flow.take_pace());
    flow.target(3);
    assert!(!flow.take_pace(), "a live channel is no probe");
    flow.target(2);
    assert!(flow.take_pace());
    assert!(!flow.take_pace(), "once per round");
}

#[test]
fn a_peer_that_ignores_its_window_is_found_out_after_four_of_them() {
    let flow = user_flow(&[1]);
    push(&flow, 1, 3 * WINDOW);
    let packet = vec![7; PACKET];
    let ended =
        (0..2 * WINDOW / PACKET).any(|_| flow.push_bytes(1, Lane::Main, &packet) == Err(Overrun));
    assert!(ended);
}

#[test]
fn a_full_node_connection_is_not_read_and_a_closed_channel_frees_it() {
    let flow = Flow::new(Side::Node, CAPS);
    flow.adopt(1, Kind::Session);
    push(&flow, 1, NODE_QUEUE);
    assert!(flow.is_held());
    flow.drop_reader(1);
    assert!(!flow.is_held());
    assert_eq!(flow.queued(), 0);
    push(&flow, 1, NODE_QUEUE * 2);
    assert!(!flow.is_held(), "nobody wants it: it is thrown away");
}

#[tokio::test]
async fn tiny_packets_cost_no_more_than_their_bytes_and_arrive_in_order() {
    let flow = user_flow(&[1]);
    let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    for byte in &sent {
        flow.push_bytes(1, Lane::Main, &[*byte]).unwrap();
    }
    assert!(flow.queued() < sent.len() * 11 / 10, "{}", flow.queued());
    flow.closed_by_us(1);
    let mut got = Vec::new();
    while let Some(Event::Data(data)) = next(&flow, 1).await {
        got.extend_from_slice(&data);
    }
    assert!(got == sent);
}

#[tokio::test]
async fn stdout_and_stderr_keep_their_order_and_are_not_mixed() {
    let flow = Flow::new(Side::Node, CAPS);
    flow.adopt(1, Kind::Session);
    for (lane, text) in [
        (Lane::Main, "a"),
        (Lane::Stderr, "b"),
        (Lane::Stderr, "c"),
        (Lane::Main, "d"),
    ] {
        flow.push_bytes(1, lane, text.as_bytes()).unwrap();
    }
    assert_eq!(next(&flow, 1).await, Some(Event::Data("a".into())));
    assert_eq!(next(&flow, 1).await, Some(Event::Stderr("bc".into())));
    assert_eq!(next(&flow, 1).await, Some(Event::Data("d".into())));
}

#[tokio::test]
async fn an_empty_packet_is_no_end_of_file() {
    let flow = user_flow(&[1]);
    flow.push_bytes(1, Lane::Main, b"").unwrap();
    flow.push_bytes(1, Lane::Main, b"x").unwrap();
    flow.push(1, Event::Eof);
    assert_eq!(next(&flow, 1).await, Some(Event::Data("x".into())));
    assert_eq!(next(&flow, 1).await, Some(Event::Eof));
}

#[tokio::test]
async fn a_million_window_changes_take_one_place() {
    let flow = user_flow(&[1]);
    for n in 1..=1_000_000 {
        let size = WindowSize::clamped(n % 999 + 1, 24, 0, 0);
        assert!(flow.push_request(1, ChannelRequest::WindowChange(size)));
    }
    assert!(flow.queued() < 1000);
    let last = WindowSize::clamped(1_000_000 % 999 + 1, 24, 0, 0);
    assert_eq!(
        next(&flow, 1).await,
        Some(Event::Request(ChannelRequest::WindowChange(last)))
    );
}

#[tokio::test]
async fn a_million_ends_of_file_take_one_place() {
    let flow = user_flow(&[1]);
    for _ in 0..1_000_000 {
        flow.push(1, Event::Eof);
    }
    assert!(flow.queued() < 1024, "{}", flow.queued());
    assert_eq!(next(&flow, 1).await, Some(Event::Eof));
}

#[test]
fn requests_that_nobody_takes_are_refused_at_some_point() {
    let flow = user_flow(&[1]);
    let refused = (0..1000).any(|_| !flow.push_request(1, ChannelRequest::Exec(vec![0; 100])));
    assert!(refused);
}

#[test]
fn a_channel_counts_until_it_is_closed_and_its_inbox_dropped() {
    let flow = user_flow(&[1, 2, 3, 4]);
    assert_eq!(flow.register(5, Kind::Stream).unwrap_err(), Full::Channels);
    flow.closed_by_peer(1);
    assert_eq!(flow.register(5, Kind::Stream).unwrap_err(), Full::Channels);
    flow.drop_reader(1);
    flow.register(5, Kind::Stream).unwrap();
    flow.forget(5);
    flow.register(6, Kind::Session).unwrap();
}

#[test]
fn sessions_have_a_cap_of_their_own() {
    let flow = user_flow(&[]);
    flow.register(1, Kind::Session).unwrap();
    flow.register(2, Kind::Session).unwrap();
    assert_eq!(flow.register(3, Kind::Session).unwrap_err(), Full::Sessions);
    flow.register(3, Kind::Stream).unwrap();
}

#[test]
fn the_nodes_answers_belong_to_our_questions_in_their_order() {
    let flow = Flow::new(Side::Node, CAPS);
    flow.adopt(1, Kind::Session);
    flow.asked(1, RequestKind::Pty);
    flow.asked(1, RequestKind::Shell);
    assert_eq!(flow.answered(1), Some(RequestKind::Pty));
    assert_eq!(flow.answered(1), Some(RequestKind::Shell));
    assert_eq!(flow.answered(1), None, "an answer to no question");
}

#[tokio::test]
async fn the_end_of_a_connection_releases_everyone_who_waits_on_it() {
    let flow = user_flow(&[]);
    let gone = flow.register(1, Kind::Stream).unwrap();
    flow.set_unsent(OUT_ROOM + 1);
    let (reader, room) = (Arc::clone(&flow), Arc::clone(&flow));
    let waiting = tokio::spawn(async move {
        tokio::join!(next(&reader, 1), room.room(), gone.wait());
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    flow.end();
    waiting.await.unwrap();
    assert_eq!(flow.register(2, Kind::Stream).unwrap_err(), Full::Over);
}

#[tokio::test]
async fn what_arrived_before_the_end_is_still_handed_out() {
    let flow = user_flow(&[1]);
    flow.push_bytes(1, Lane::Main, b"last words").unwrap();
    flow.closed_by_peer(1);
    flow.end();
    assert_eq!(next(&flow, 1).await, Some(Event::Data("last words".into())));
    assert_eq!(next(&flow, 1).await, Some(Event::Close));
    assert_eq!(next(&flow, 1).await, None);
}

#[tokio::test]
async fn producers_wait_for_room_and_go_on_when_there_is_some() {
    let flow = user_flow(&[]);
    flow.set_unsent(OUT_ROOM + 1);
    let waiting = tokio::spawn({
        let flow = Arc::clone(&flow);
        async move { flow.room().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    flow.set_unsent(OUT_ROOM);
    waiting.await.unwrap();
}

#[test]
fn channels_that_we_close_first_are_counted_and_at_last_no_more_are_opened() {
    let flow = user_flow(&[]);
    for id in 0..u32::try_from(MAX_CLOSED_FIRST).unwrap() {
        flow.register(id, Kind::Stream).unwrap();
        flow.closed_by_us(id);
        flow.drop_reader(id);
    }
    assert_eq!(
        flow.register(9999, Kind::Stream).unwrap_err(),
        Full::WornOut
    );
}

#[test]
fn channels_that_the_peer_closes_may_be_opened_without_end() {
    let flow = user_flow(&[]);
    for id in 0..u32::try_from(2 * MAX_CLOSED_FIRST).unwrap() {
        flow.register(id, Kind::Stream).unwrap();
        flow.closed_by_peer(id);
        flow.closed_by_us(id);
        flow.drop_reader(id);
    }
}
