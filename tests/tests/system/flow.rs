//! Flow control: slow and stalled readers, with memory bounded, and the limits L1 to L3
//! of the SSH library as they are known.

use std::time::{Duration, Instant};

use anteroom_tests::{NodeConfig, PATIENCE, Proc, Way, World, free_port, login};
use nix::sys::signal::Signal;

use crate::matrix::noise;

/// What one stalled channel may cost the proxy, with allowance for the allocator.
const STALLED_KIB: u64 = 4 * 1024;

fn target() -> String {
    format!("{}@iot", login())
}

fn world() -> World {
    World::builder()
        .node(NodeConfig::new("iot"))
        .user("carol", "access")
        .start()
}

/// The options of a ControlMaster to iot, and the master itself.
fn master(world: &World, way: Way) -> (Proc, [String; 4]) {
    let path = world.path("cm");
    let control = format!("ControlPath={}", path.display());
    let master = world
        .person("carol")
        .ssh(way, &["-M", "-N", "-o", &control], &target(), &[])
        .start();
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(
            master.is_running() && Instant::now() < until,
            "{}",
            master.err.text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    (
        master,
        [
            "-o".to_owned(),
            control,
            "-o".to_owned(),
            "ControlMaster=no".to_owned(),
        ],
    )
}

#[test]
fn a_slow_reader_in_both_directions_gets_everything() {
    let world = world();
    for way in Way::BOTH {
        for rekey in ["default", "4M"] {
            // The shape that makes naive bridges hang: input and output of one channel,
            // and nobody reads the output for a while.
            let line = format!(
                "head -c 100M /dev/zero | {} | (sleep 3; wc -c)",
                world
                    .person("carol")
                    .ssh(
                        way,
                        &["-o", &format!("RekeyLimit={rekey}")],
                        &target(),
                        &["cat"]
                    )
                    .line()
            );
            let finished = anteroom_tests::Cmd::new("sh")
                .args(["-c", &line])
                .run_within(Duration::from_secs(120));
            finished.exits(0).prints("104857600\n");
        }
    }
}

#[test]
fn a_live_channel_answers_beside_a_stalled_one_on_one_control_master() {
    let world = world();
    let (_master, options) = master(&world, Way::Jump);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let carol = world.person("carol");
    let stalled = carol
        .ssh(Way::Jump, &options, &target(), &["cat /dev/zero"])
        .start();
    assert!(stalled.out.wait_for_bytes(1024 * 1024, PATIENCE));
    // A client that is stopped reads no more: everything in between fills up.
    stalled.signal(Signal::SIGSTOP);
    let before = world.memory_kib();
    for n in 0..5 {
        let asked = Instant::now();
        carol
            .ssh(Way::Jump, &options, &target(), &[&format!("echo {n}")])
            .run_within(Duration::from_secs(20))
            .exits(0)
            .prints(format!("{n}\n"));
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
    }
    let grown = world.memory_kib().saturating_sub(before);
    assert!(grown < 3 * STALLED_KIB, "{grown} KiB");
    stalled.signal(Signal::SIGCONT);
}

#[test]
fn a_gigabyte_to_a_node_that_does_not_read_stays_outside_the_proxy() {
    let world = world();
    let before = world.memory_kib();
    let line = format!(
        "head -c 1G /dev/zero | {}",
        world
            .person("carol")
            .ssh(Way::OneHop, &[], &target(), &["sleep 8; wc -c"])
            .line()
    );
    let running = anteroom_tests::Cmd::new("sh").args(["-c", &line]).start();
    let finished = running.finish(Duration::from_secs(180));
    finished.exits(0).prints("1073741824\n");
    let grown = world.peak_memory_kib().saturating_sub(before);
    assert!(grown < 5 * STALLED_KIB, "{grown} KiB");
}

#[test]
fn paused_readers_cost_a_bounded_amount_each_and_lose_nothing() {
    let world = world();
    let carol = world.person("carol");
    let before = world.memory_kib();
    let readers: Vec<Proc> = (0..10)
        .map(|n| {
            let reader = carol
                .ssh(
                    Way::BOTH[n % 2],
                    &[],
                    &target(),
                    &["head -c 50M /dev/zero; echo end"],
                )
                .start();
            assert!(reader.out.wait_for_bytes(64 * 1024, PATIENCE));
            reader.signal(Signal::SIGSTOP);
            reader
        })
        .collect();
    // Somebody else is served meanwhile, and by the time she has been, buffers are full.
    let asked = Instant::now();
    carol
        .ssh(Way::Jump, &[], &target(), &["sleep 2; echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );
    let grown = world.memory_kib().saturating_sub(before);
    assert!(
        grown < 10 * STALLED_KIB,
        "{grown} KiB for ten paused readers"
    );
    for reader in &readers {
        reader.signal(Signal::SIGCONT);
    }
    for reader in readers {
        let finished = reader.finish(Duration::from_secs(120));
        finished.exits(0);
        assert_eq!(finished.stdout.len(), 50 * 1024 * 1024 + 4);
        assert!(finished.stdout.ends_with(b"end\n"));
    }
}

#[test]
fn files_are_identical_under_rekeying_on_both_legs() {
    let world = World::builder()
        .node(NodeConfig::new("iot").config("RekeyLimit 2M"))
        .user("carol", "access")
        .start();
    let from = world.path("from");
    let payload = noise(77, 30 * 1024 * 1024 + 5);
    std::fs::write(&from, &payload).unwrap();
    for way in Way::BOTH {
        for protocol in ["-s", "-O"] {
            let there = world.path("there");
            let back = world.path("back");
            let remote = format!("{}:{}", way.destination(&login(), "iot"), there.display());
            let scp = || {
                world
                    .person("carol")
                    .client("scp")
                    .args(way.options())
                    .args([protocol, "-o", "RekeyLimit=2M"])
            };
            scp().arg(&from).arg(&remote).run().exits(0);
            scp().arg(&remote).arg(&back).run().exits(0);
            assert!(
                std::fs::read(&back).unwrap() == payload,
                "{way:?} {protocol}"
            );
            std::fs::remove_file(there).unwrap();
            std::fs::remove_file(back).unwrap();
        }
    }
}

#[test]
fn stalled_uploads_end_with_their_client_and_free_what_they_held() {
    let world = world();
    let carol = world.person("carol");
    let before = world.memory_kib();
    let stalled: Vec<Proc> = (0..8)
        .map(|_| {
            carol
                .ssh(Way::OneHop, &[], &target(), &["echo in; exec sleep 600"])
                .stdin(vec![0; 16 * 1024 * 1024])
                .start()
        })
        .collect();
    for proc in &stalled {
        proc.expect_out("in\n");
    }
    carol
        .ssh(Way::Jump, &[], &target(), &["sleep 1; echo in"])
        .run()
        .exits(0);
    let grown = world.memory_kib().saturating_sub(before);
    assert!(
        grown < 8 * STALLED_KIB + 8 * 256,
        "{grown} KiB for eight stalled uploads"
    );
    drop(stalled);
    for _ in 0..8 {
        world.node("iot").expect_log("Disconnected from user");
    }
}

/// L1 of the SSH library: while one upload of a connection stalls, other uploads of the
/// same connection stop. They go on when it does, and nothing is lost.
#[test]
fn known_limit_1_an_upload_beside_a_stalled_upload_waits_and_then_completes() {
    let world = world();
    let (_master, options) = master(&world, Way::OneHop);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let carol = world.person("carol");
    let stalled = carol
        .ssh(
            Way::OneHop,
            &options,
            &target(),
            &["echo in; sleep 6; wc -c"],
        )
        .stdin(vec![0; 16 * 1024 * 1024])
        .start();
    stalled.expect_out("in\n");
    let input = noise(3, 4 * 1024 * 1024);
    let beside = carol
        .ssh(Way::OneHop, &options, &target(), &["cat"])
        .stdin(input.clone())
        .start();
    // Another connection of hers is not touched by it.
    let asked = Instant::now();
    carol
        .ssh(Way::OneHop, &[], &target(), &["cat"])
        .stdin("free")
        .run()
        .exits(0)
        .prints("free");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    stalled.finish(PATIENCE).exits(0).prints("in\n16777216\n");
    beside.finish(PATIENCE).exits(0).prints(input);
}

/// L2 of the SSH library: a stalled download stops the upload of the same channel too. It
/// goes on when the download does.
#[test]
fn known_limit_2_a_stalled_download_stops_its_own_upload_until_it_moves_again() {
    let world = world();
    let carol = world.person("carol");
    let mut both = carol
        .ssh(
            Way::OneHop,
            &[],
            &target(),
            &["head -c 30M /dev/zero; exec wc -c"],
        )
        .stdin_open()
        .start();
    assert!(both.out.wait_for_bytes(64 * 1024, PATIENCE));
    both.signal(Signal::SIGSTOP);
    carol
        .ssh(Way::OneHop, &[], &target(), &["sleep 1; echo in"])
        .run()
        .exits(0);
    both.signal(Signal::SIGCONT);
    both.say("12345");
    both.end_input();
    let finished = both.finish(PATIENCE);
    finished.exits(0);
    assert!(finished.stdout.ends_with(b"5\n"), "{}", finished.stderr);
    assert_eq!(finished.stdout.len(), 30 * 1024 * 1024 + 2);
}

/// L3 of the SSH library: forwards that share one node connection can hold each other up.
/// A connection has several, so a few stalled forwards leave the next ones alone.
#[test]
fn known_limit_3_a_few_stalled_forwards_leave_others_alone() {
    let world = world();
    let port = free_port();
    let source = zeros();
    let forward = format!("{port}:127.0.0.1:{source}");
    let tunnel = world
        .person("carol")
        .ssh(Way::Jump, &["-N", "-L", &forward], &target(), &[])
        .start();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = crate::forward::connect(port);
        let mut first = [0; 1024];
        std::io::Read::read_exact(&mut stream, &mut first).unwrap();
        stalled.push(stream);
    }
    let mut live = crate::forward::connect(port);
    let mut received = vec![0; 8 * 1024 * 1024];
    live.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    std::io::Read::read_exact(&mut live, &mut received).unwrap();
    assert!(tunnel.is_running());
}

/// A server that sends zeros to whoever connects, as fast as they are read.
fn zeros() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let block = vec![0; 64 * 1024];
                while std::io::Write::write_all(&mut stream, &block).is_ok() {}
            });
        }
    });
    port
}
