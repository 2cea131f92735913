//! Flow control, with the real `ssh` and a stock `sshd`: what must go through does,
//! nothing delays what it should not, and memory stays bounded. The last tests show
//! the limits that remain (L1, L2, L3 of `proxy/ssh/flow.rs`), so that we notice
//! when one of them falls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support_ssh;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use support_ssh::{Lab, Setup, WAYS, never_within, until};

/// What the relay holds when nothing goes on, with room for its allocator, in KiB.
const BASE: u64 = 24 << 10;

/// What a stalled channel may cost, in KiB.
const PER_CHANNEL: u64 = 4 << 10;

/// Not a test: the relay of the others, in a process of its own.
#[test]
#[ignore = "started by the other tests"]
fn relay_process() {
    support_ssh::relay::run();
}

#[test]
fn a_slow_reader_in_both_directions_at_once_gets_everything() {
    let lab = Lab::new();
    let got = lab.ok("head -c 300M /dev/zero | $SSH hop cat | (sleep 6; wc -c)");
    assert_eq!(got, (300 << 20).to_string());
    assert!(lab.peak() < BASE + PER_CHANNEL, "{} KiB", lab.peak());
}

#[test]
fn a_slow_reader_behind_a_jump_gets_everything() {
    let lab = Lab::new();
    let got = lab.ok("head -c 64M /dev/zero | $SSH node cat | (sleep 3; wc -c)");
    assert_eq!(got, (64 << 20).to_string());
    assert!(lab.peak() < BASE + 2 * PER_CHANNEL, "{} KiB", lab.peak());
}

#[test]
fn a_gibibyte_to_a_node_that_does_not_read_for_a_while_arrives_whole_in_bounded_memory() {
    let lab = Lab::new();
    let got = lab.ok("head -c 1G /dev/zero | $SSH hop 'sleep 5; wc -c'");
    assert_eq!(got, (1 << 30).to_string());
    assert!(lab.peak() < BASE + PER_CHANNEL, "{} KiB", lab.peak());
}

#[test]
fn bytes_behind_a_jump_to_a_node_that_does_not_read_for_a_while_arrive_whole() {
    let lab = Lab::new();
    let sent = "head -c 96M /dev/urandom | tee >(sha256sum > $D/sent)";
    let got = lab.ok(&format!("{sent} | $SSH node 'sleep 3; sha256sum'"));
    until("the sum of what was sent", || {
        !fs::read(lab.path("sent")).unwrap().is_empty()
    });
    assert_eq!(got, fs::read_to_string(lab.path("sent")).unwrap().trim());
    assert!(lab.peak() < BASE + 2 * PER_CHANNEL, "{} KiB", lab.peak());
}

#[test]
fn a_reader_that_pauses_gets_everything_in_bounded_memory() {
    for way in WAYS {
        let lab = Lab::new();
        let paused = "(head -c 1M; sleep 2; head -c 1M; sleep 2; cat) | wc -c";
        let got = lab.ok(&format!("$SSH {way} 'head -c 128M /dev/zero' | {paused}"));
        assert_eq!(got, (128 << 20).to_string(), "{way}");
        assert!(
            lab.peak() < BASE + 2 * PER_CHANNEL,
            "{way}: {} KiB",
            lab.peak()
        );
    }
}

#[test]
fn a_live_channel_answers_beside_a_stalled_upload_on_one_connection() {
    for way in WAYS {
        let lab = Lab::new();
        let _master = lab.master(way);
        let mut stalled = lab.start(&format!("head -c 1G /dev/zero | $SSH {way} 'sleep 150'"));
        lab.settle();
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(lab.ok(&format!("$SSH {way} echo alive")), "alive");
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{way}: {:?}",
                start.elapsed()
            );
        }
        assert!(!stalled.is_over());
    }
}

#[test]
fn a_live_channel_answers_beside_a_stalled_download_on_one_connection() {
    for way in WAYS {
        let lab = Lab::new();
        let _master = lab.master(way);
        // Nobody reads its standard output.
        let mut stalled = lab.start(&format!("$SSH {way} 'cat /dev/zero' | sleep 150"));
        lab.settle();
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(lab.ok(&format!("$SSH {way} echo alive")), "alive");
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{way}: {:?}",
                start.elapsed()
            );
        }
        assert!(!stalled.is_over());
    }
}

#[test]
fn eight_stalled_uploads_on_one_connection_cost_at_most_four_mebibytes_each() {
    let lab = Lab::new();
    let _master = lab.master("hop");
    let go = lab.path("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done; wc -c", go.display());
    let uploads: Vec<_> = (0..8)
        .map(|_| lab.start(&format!("head -c 16M /dev/zero | $SSH hop '{wait}'")))
        .collect();
    lab.settle();
    assert_eq!(lab.ok("$SSH hop echo alive"), "alive");
    fs::write(go, "").unwrap();
    for upload in uploads {
        assert_eq!(upload.finish(), (true, (16 << 20).to_string()));
    }
    assert!(lab.peak() < BASE + 8 * PER_CHANNEL, "{} KiB", lab.peak());
}

#[test]
fn a_hundred_exit_codes_over_one_connection_are_all_right() {
    for way in WAYS {
        let lab = Lab::new();
        let _master = lab.master(way);
        let line = format!(
            "seq 100 | xargs -P 5 -I{{}} bash -c '$SSH {way} \"echo out{{}}; exit {{}}\" > $D/out{{}}; \
             echo {{}} $? $(cat $D/out{{}})'"
        );
        let got = lab.ok(&line);
        let mut lines: Vec<_> = got.lines().collect();
        lines.sort_by_key(|line| line.split(' ').next().unwrap().parse::<u32>().unwrap());
        let expected: Vec<_> = (1..=100).map(|n| format!("{n} {n} out{n}")).collect();
        assert_eq!(lines, expected, "{way}");
    }
}

#[test]
fn rekeying_by_client_and_node_in_both_directions_changes_no_byte() {
    let lab = Lab::with(Setup {
        sshd: "RekeyLimit 1M",
        ..Setup::default()
    });
    lab.ok("head -c 24M /dev/urandom > $D/random");
    let sum = lab.ok("sha256sum < $D/random");
    for way in WAYS {
        assert_eq!(
            lab.ok(&format!(
                "$SSH -o RekeyLimit=1M {way} sha256sum < $D/random"
            )),
            sum
        );
        let down = format!("$SSH -o RekeyLimit=1M {way} cat $D/random | sha256sum");
        assert_eq!(lab.ok(&down), sum, "{way}");
        let both = format!("$SSH -o RekeyLimit=1M {way} cat < $D/random | sha256sum");
        assert_eq!(lab.ok(&both), sum, "{way}");
    }
}

#[test]
fn a_slow_reader_under_rekeying_gets_everything() {
    let lab = Lab::with(Setup {
        sshd: "RekeyLimit 1M",
        ..Setup::default()
    });
    for way in WAYS {
        let line =
            format!("head -c 32M /dev/zero | $SSH -o RekeyLimit=1M {way} cat | (sleep 2; wc -c)");
        assert_eq!(lab.ok(&line), (32 << 20).to_string(), "{way}");
    }
}

#[test]
fn files_are_copied_byte_for_byte_under_rekeying() {
    let lab = Lab::with(Setup {
        sshd: "RekeyLimit 1M",
        ..Setup::default()
    });
    lab.ok("mkdir $D/src && head -c 12M /dev/urandom > $D/src/big && : > $D/src/empty && head -c 1 /dev/urandom > $D/src/one");
    for way in WAYS {
        for (name, line) in [
            (
                "scp",
                "scp -F $F -o RekeyLimit=1M -r $D/src WAY:$D/there-scp && scp -F $F -r WAY:$D/there-scp $D/back",
            ),
            (
                "scp -O",
                "scp -O -F $F -r $D/src WAY:$D/there-old && scp -O -F $F -r WAY:$D/there-old $D/back",
            ),
            (
                "sftp",
                "printf 'put -r %s %s\\nget -r %s %s\\n' $D/src $D/there-sftp $D/there-sftp $D/back | sftp -F $F -b - WAY",
            ),
            (
                "rsync",
                "rsync -a -e \"$SSH\" $D/src/ WAY:$D/there-rsync && rsync -a -e \"$SSH\" WAY:$D/there-rsync/ $D/back",
            ),
        ] {
            lab.ok(&line.replace("WAY", way));
            assert_eq!(
                lab.ok("diff -r $D/src $D/back && echo same"),
                "same",
                "{name} {way}"
            );
            lab.ok("rm -r $D/back $D/there-*");
        }
    }
}

#[test]
fn a_program_that_a_signal_kills_is_said_to_be() {
    let lab = Lab::new();
    let line = "$SSH -o LogLevel=DEBUG1 WAY 'kill -TERM $$' 2>&1 | grep -o 'rtype exit-[a-z]*'";
    let direct = lab.ok(&line.replace("WAY", "direct"));
    assert_eq!(direct, "rtype exit-signal");
    for way in WAYS {
        assert_eq!(lab.ok(&line.replace("WAY", way)), direct, "{way}");
        let code = |way: &str| lab.ok(&format!("$SSH {way} 'kill -TERM $$'; echo $?"));
        assert_eq!(code(way), code("direct"), "{way}");
    }
}

#[test]
fn stderr_stays_apart_and_end_of_file_goes_both_ways() {
    let lab = Lab::new();
    for way in WAYS {
        let line = format!("echo in | $SSH {way} 'cat; echo err >&2; exit 7' 2> $D/err; echo $?");
        assert_eq!(lab.ok(&line), "in\n7", "{way}");
        assert_eq!(fs::read_to_string(lab.path("err")).unwrap(), "err\n");
        // The program ends its output long before its input ends.
        let far = lab.path("far");
        let line = format!("$SSH {way} 'exec >&-; cat > {}'", far.display());
        lab.ok(&format!("(echo one; sleep 0.3; echo two) | {line}"));
        assert_eq!(fs::read_to_string(far).unwrap(), "one\ntwo\n", "{way}");
    }
}

#[test]
fn the_node_is_rid_of_a_session_whose_client_was_killed_while_everything_stood() {
    for way in WAYS {
        let lab = Lab::new();
        let pid = lab.path("pid");
        let line = format!(
            "head -c 1G /dev/zero | $SSH {way} 'echo $$ > {}; cat /dev/zero & sleep 150' | sleep 150",
            pid.display()
        );
        let mut stalled = lab.start(&line);
        until("the program runs", || {
            fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
        });
        let sessions = || {
            lab.ok(&format!(
                "ss -Htn state established '( dport = :{} )' | wc -l",
                lab.sshd_port
            ))
        };
        until("the node connection stands", || sessions() == "1");
        stalled.kill();
        until("the node connection is ended", || sessions() == "0");
    }
}

#[test]
fn a_disconnect_ends_a_connection_on_which_everything_stands_and_says_why() {
    for way in WAYS {
        let lab = Lab::kicking();
        let (err, up) = (lab.path("err"), lab.path("up"));
        let mut stalled = lab.start(&format!(
            "head -c 1G /dev/zero | $SSH {way} 'touch {}; cat /dev/zero & sleep 150' 2> {} | sleep 150",
            up.display(),
            err.display()
        ));
        until("the program runs", || up.exists());
        lab.settle();
        fs::write(lab.path("kick"), "").unwrap();
        until("it is over", || lab.log().contains("kicked within"));
        assert!(
            lab.kicked_within() < Duration::from_secs(12),
            "{}",
            lab.log()
        );
        if way == "hop" {
            until("the client says why", || {
                fs::read_to_string(&err).is_ok_and(|said| said.contains("kicked for a reason"))
            });
        }
        stalled.kill();
    }
}

#[test]
fn a_disconnect_ends_the_connection_of_a_client_that_has_stopped() {
    let lab = Lab::kicking();
    let stalled = lab.start("exec $SSH hop 'cat /dev/zero'");
    lab.settle();
    stalled.signal(nix::sys::signal::Signal::SIGSTOP);
    fs::write(lab.path("kick"), "").unwrap();
    until("it is over", || lab.log().contains("kicked within"));
    assert!(
        lab.kicked_within() < Duration::from_secs(12),
        "{}",
        lab.log()
    );
    until("the engine is gone", || {
        lab.log().contains("outer ended: Ok(ByUs)")
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure_memory_per_idle_session() {
    for way in WAYS {
        let lab = Lab::new();
        lab.ok(&format!("$SSH {way} true"));
        let before = lab.rss();
        let sessions: Vec<_> = (0..50)
            .map(|n| {
                let up = lab.path(&format!("up{n}"));
                let running = lab.start(&format!("$SSH {way} 'touch {}; sleep 150'", up.display()));
                until("the session runs", || up.exists());
                running
            })
            .collect();
        lab.settle();
        eprintln!("{way}: {} KiB per idle session", (lab.rss() - before) / 50);
        drop(sessions);
    }
}

#[test]
#[ignore = "a measurement, not a test"]
fn measure_memory_that_a_long_lived_connection_keeps() {
    let lab = Lab::new();
    let _master = lab.master("hop");
    let run = || lab.ok("seq 400 | xargs -P 4 -I{} $SSH hop true");
    run();
    let before = lab.rss();
    run();
    run();
    eprintln!(
        "{} bytes per session that is over",
        (lab.rss().saturating_sub(before) << 10) / 800
    );
}

// ---- limits that remain

/// L1: while one upload is stalled, another of the same user connection stops; it
/// goes on as soon as the first one does.
#[test]
fn limit_l1_an_upload_stops_while_another_of_its_connection_is_stalled() {
    let lab = Lab::new();
    let _master = lab.master("hop");
    let go = lab.path("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done; wc -c", go.display());
    let first = lab.start(&format!("head -c 16M /dev/zero | $SSH hop '{wait}'"));
    lab.settle();
    let mut second = lab.start("head -c 16M /dev/zero | $SSH hop 'wc -c'");
    assert!(
        never_within(Duration::from_secs(4), || second.is_over()),
        "L1 is gone: say so"
    );
    assert_eq!(lab.ok("$SSH hop echo alive"), "alive");
    fs::write(go, "").unwrap();
    assert_eq!(first.finish(), (true, (16 << 20).to_string()));
    assert_eq!(second.finish(), (true, (16 << 20).to_string()));
}

/// L2: a stalled download stops the upload of its channel, until it is read.
#[test]
fn limit_l2_a_stalled_download_stops_the_upload_of_its_channel() {
    let lab = Lab::new();
    let done = lab.path("done");
    let far = format!("head -c 16M /dev/zero & wc -c > {}; wait", done.display());
    let line = |way: &str| {
        format!(
            "head -c 32M /dev/zero | $SSH {way} '{far}' | (while [ ! -e $D/go ]; do sleep 0.1; done; wc -c)"
        )
    };
    let arrived = || fs::read_to_string(&done).is_ok_and(|text| text.ends_with('\n'));
    let direct = lab.start(&line("direct"));
    until("directly the upload does not wait", arrived);
    fs::write(lab.path("go"), "").unwrap();
    assert_eq!(direct.finish(), (true, (16 << 20).to_string()));
    fs::remove_file(lab.path("go")).unwrap();
    fs::remove_file(&done).unwrap();

    let relayed = lab.start(&line("hop"));
    assert!(
        never_within(Duration::from_secs(4), arrived),
        "L2 is gone: say so"
    );
    fs::write(lab.path("go"), "").unwrap();
    assert_eq!(relayed.finish(), (true, (16 << 20).to_string()));
    assert!(arrived());
}

/// A forward over the master that nobody reads, and one beside it that is read:
/// whether the second one gets all its 16 MiB within `time`.
fn second_forward_gets_through(lab: &Lab, time: Duration) -> bool {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming().map_while(Result::ok) {
            std::thread::spawn(move || (&stream).write_all(&vec![7; 16 << 20]));
        }
    });
    let _master = lab.master("hop");
    let forward = format!("$SSH -W 127.0.0.1:{port} hop < /dev/null");
    let _unread = lab.start(&format!("{forward} | sleep 150"));
    lab.settle();
    let mut read = lab.start(&format!("{forward} | wc -c"));
    if never_within(time, || read.is_over()) {
        return false;
    }
    assert_eq!(read.finish(), (true, (16 << 20).to_string()));
    true
}

/// L3: forwards that share a node connection block each other.
#[test]
fn limit_l3_forwards_that_share_a_node_connection_block_each_other() {
    let lab = Lab::with(Setup {
        relay: &[("RELAY_SHARE_FORWARDS", "1")],
        ..Setup::default()
    });
    let through = second_forward_gets_through(&lab, Duration::from_secs(6));
    assert!(!through, "L3 is gone: say so");
}

#[test]
fn forwards_with_a_node_connection_each_do_not_block_each_other() {
    assert!(second_forward_gets_through(&Lab::new(), support_ssh::LIMIT));
}
