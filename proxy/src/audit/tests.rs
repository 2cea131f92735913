use proptest::prelude::*;
use time::macros::datetime;

use super::line::MAX_FIELD;
use super::*;
use crate::say::is_hostile;

fn chain(length: usize) -> (Vec<Record>, Head) {
    let mut head = Head::genesis();
    let mut records = Vec::new();
    for number in 0..length {
        let entry = Entry::new(Event::Exec)
            .user("alice")
            .command(format!("command {number}"));
        let record = head
            .append(&entry, "example.com", datetime!(2026-11-20 20:00 UTC))
            .unwrap();
        head = Head {
            seq: record.seq,
            hash: record.hash.clone(),
        };
        records.push(record);
    }
    (records, head)
}

fn verify(records: &[Record], head: &Head) -> Result<Head, Tampered> {
    let mut verifier = Verifier::new(Vec::new());
    for record in records {
        verifier.next(record)?;
    }
    verifier.finish(head)
}

#[test]
fn an_untouched_chain_verifies() {
    let (records, head) = chain(20);
    assert_eq!(verify(&records, &head), Ok(head));
}

#[test]
fn an_empty_log_verifies() {
    assert_eq!(verify(&[], &Head::genesis()), Ok(Head::genesis()));
}

#[test]
fn an_edited_text_is_named() {
    let (mut records, head) = chain(9);
    records[4].text = records[4].text.replace("alice", "bob");
    assert_eq!(verify(&records, &head), Err(Tampered::Edited { seq: 5 }));
}

#[test]
fn an_edited_text_with_its_hash_recomputed_is_named_at_the_next_entry() {
    let (mut records, head) = chain(9);
    records[4].text = records[4].text.replace("alice", "bob");
    records[4].hash = link(&records[4].prev, &records[4].text);
    assert_eq!(verify(&records, &head), Err(Tampered::Unlinked { seq: 6 }));
}

#[test]
fn an_edited_column_is_named() {
    let (mut records, head) = chain(9);
    records[4].event = "scp".to_owned();
    assert_eq!(verify(&records, &head), Err(Tampered::Edited { seq: 5 }));
}

#[test]
fn a_deleted_entry_is_named() {
    let (mut records, head) = chain(9);
    records.remove(4);
    assert_eq!(verify(&records, &head), Err(Tampered::Missing { seq: 5 }));
}

#[test]
fn two_entries_that_changed_places_are_named() {
    let (mut records, head) = chain(9);
    records.swap(3, 4);
    let (first, second) = (records[4].seq, records[3].seq);
    records[3].seq = first;
    records[4].seq = second;
    assert_eq!(verify(&records, &head).map_err(|bad| bad.seq()), Err(4));
}

#[test]
fn entries_cut_off_the_end_are_named() {
    let (records, head) = chain(9);
    assert_eq!(
        verify(&records[..6], &head),
        Err(Tampered::Missing { seq: 7 })
    );
}

#[test]
fn an_entry_beside_the_head_is_named() {
    let (records, _) = chain(9);
    let (_, shorter) = chain(8);
    assert_eq!(
        verify(&records, &shorter),
        Err(Tampered::NotTheHead { seq: 9 })
    );
}

#[test]
fn a_rewritten_chain_differs_from_its_anchor() {
    let (records, _) = chain(9);
    let anchor = Anchor {
        seq: 7,
        hash: link(GENESIS, "what it was"),
    };
    let mut verifier = Verifier::new(vec![anchor]);
    let bad = records
        .iter()
        .find_map(|record| verifier.next(record).err());
    assert_eq!(bad, Some(Tampered::NotAsAnchored { seq: 7 }));
}

#[test]
fn a_chain_that_ends_before_its_anchor_is_named() {
    let (records, head) = chain(9);
    let mut verifier = Verifier::new(vec![Anchor {
        seq: 12,
        hash: GENESIS.to_owned(),
    }]);
    records
        .iter()
        .for_each(|record| verifier.next(record).unwrap());
    assert_eq!(verifier.finish(&head), Err(Tampered::Missing { seq: 10 }));
}

#[test]
fn hostile_text_is_escaped_and_read_back_unchanged() {
    let hostile = "\u{1b}[2J\u{202e}txt\u{200b}\u{9b}31m\u{7f}\n\"\\\u{e0041}é世";
    let record = Head::genesis()
        .append(
            &Entry::new(Event::Exec).command(hostile),
            "c",
            datetime!(2026-11-20 20:00 UTC),
        )
        .unwrap();
    assert!(!record.text.chars().any(is_hostile), "{}", record.text);
    assert!(record.text.contains("é世"));
    assert_eq!(record.fields()["command"], hostile);
}

#[test]
fn an_oversized_field_is_cut_between_characters() {
    let record = Head::genesis()
        .append(
            &Entry::new(Event::Exec).command("é".repeat(MAX_FIELD)),
            "c",
            datetime!(2026-11-20 20:00 UTC),
        )
        .unwrap();
    assert_eq!(
        record.fields()["command"].as_str().unwrap().len(),
        MAX_FIELD
    );
}

#[test]
fn the_text_is_canonical() {
    let record = Head::genesis()
        .append(
            &Entry::failed(Event::Auth, "no such key")
                .user("alice")
                .remote_addr("192.0.2.1:5000"),
            "example.com",
            datetime!(2026-11-20 20:00 UTC),
        )
        .unwrap();
    assert_eq!(
        record.text,
        r#"{"seq":1,"time":"2026-11-20T20:00:00Z","event":"auth","code":"T3007W","success":false,"cluster":"example.com","user":"alice","remote_addr":"192.0.2.1:5000","reason":"no such key"}"#
    );
}

#[test]
fn every_field_is_written_in_its_place() {
    let entry = Entry {
        bytes_sent: Some(1),
        bytes_received: Some(2),
        roles: vec!["dev".to_owned()],
        resource_ids: vec!["/c/node/x".to_owned()],
        labels: Some("env=prod".to_owned()),
        ..Entry::new(Event::Exec)
            .user("u")
            .remote_addr("a")
            .key("k")
            .node_id("i")
            .node("n")
            .login("l")
            .request_id("r")
            .session_id("s")
            .state("t")
            .serial("7")
            .reason("y")
            .name("m")
            .command("c")
            .exit("0")
            .expires("e")
            .certificate_sha256("h")
            .proposed_state("p")
            .delegator("d")
            .annotations("x=y")
            .automatic("o")
            .lock_id("f")
            .pre_approval_id("g")
    };
    let record = Head::genesis()
        .append(&entry, "c", datetime!(2026-11-20 20:00 UTC))
        .unwrap();
    assert_eq!(
        record.text,
        concat!(
            r#"{"seq":1,"time":"2026-11-20T20:00:00Z","event":"exec","code":"T3002I","success":true,"#,
            r#""cluster":"c","user":"u","remote_addr":"a","key":"k","node_id":"i","node":"n","#,
            r#""login":"l","request_id":"r","session_id":"s","state":"t","serial":"7","reason":"y","#,
            r#""name":"m","command":"c","exit":"0","bytes_sent":1,"bytes_received":2,"expires":"e","#,
            r#""certificate_sha256":"h","proposed_state":"p","delegator":"d","annotations":"x=y","#,
            r#""automatic":"o","roles":["dev"],"resource_ids":["/c/node/x"],"lock_id":"f","#,
            r#""pre_approval_id":"g","labels":"env=prod"}"#,
        )
    );
}

proptest! {
    #[test]
    fn any_string_survives_and_none_is_dangerous(text in "\\PC*|.*") {
        let record = Head::genesis()
            .append(&Entry::new(Event::Exec).reason(&text), "c", datetime!(2026-11-20 20:00 UTC))
            .unwrap();
        prop_assert!(!record.text.chars().any(is_hostile));
        let fields = record.fields();
        prop_assert_eq!(fields["reason"].as_str().unwrap(), text);
    }
}
