//! What OpenSSH carries between a client and a server, carried through the proxy.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anteroom_tests::{Cmd, PATIENCE, Person, Way, World, login};

use crate::matrix::noise;

fn target() -> String {
    format!("{}@iot", login())
}

/// A ControlMaster of `person` to iot, and the options that use it.
fn master(world: &World, person: &Person, way: Way) -> (anteroom_tests::Proc, Vec<String>) {
    let path = world.path(&format!("cm{way:?}"));
    let control = format!("ControlPath={}", path.display());
    let master = person
        .ssh(way, &["-M", "-N", "-o", &control], &target(), &[])
        .start();
    let until = std::time::Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(
            master.is_running() && std::time::Instant::now() < until,
            "{}",
            master.err.text()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (
        master,
        vec![
            "-o".to_owned(),
            control,
            "-o".to_owned(),
            "ControlMaster=no".to_owned(),
        ],
    )
}

fn refs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

#[test]
fn exit_status_and_both_streams_come_back_as_the_command_left_them() {
    let world = World::usual();
    let carol = world.person("carol");
    for way in Way::BOTH {
        for code in [0, 1, 42, 255] {
            let finished = carol
                .ssh(
                    way,
                    &[],
                    &target(),
                    &[&format!("echo out; echo err >&2; exit {code}")],
                )
                .run();
            finished.exits(code).prints("out\n");
            assert_eq!(
                finished.stderr, "err\n",
                "nothing but the command's own words"
            );
        }
    }
}

#[test]
fn a_command_ended_by_a_signal_ends_like_one_behind_a_stock_sshd() {
    let world = World::usual();
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo out; kill -TERM $$"])
        .run();
    // OpenSSH's client exits 255 when the server reports a signal instead of a status.
    finished.exits(255).prints("out\n");
}

#[test]
fn a_hundred_exit_codes_survive_one_control_master() {
    let world = World::usual();
    let carol = world.person("carol");
    let (_master, options) = master(&world, carol, Way::OneHop);
    let mut wrong = BTreeMap::new();
    let codes: Vec<i32> = (0..256).step_by(5).chain(1..49).collect();
    assert_eq!(codes.len(), 100);
    // Up to five at a time: a connection carries at most ten sessions.
    for batch in codes.chunks(5) {
        let running: Vec<_> = batch
            .iter()
            .map(|code| {
                let command = format!("echo {code}; exit {code}");
                (
                    code,
                    carol
                        .ssh(Way::OneHop, &refs(&options), &target(), &[&command])
                        .start(),
                )
            })
            .collect();
        for (code, proc) in running {
            let finished = proc.finish(PATIENCE);
            if finished.code() != Some(*code) || finished.text() != format!("{code}\n") {
                wrong.insert(*code, finished);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of 100 are wrong: {wrong:#?}",
        wrong.len()
    );
}

#[test]
fn a_control_master_carries_many_sessions_and_refuses_the_eleventh() {
    let world = World::usual();
    let carol = world.person("carol");
    let (_master, options) = master(&world, carol, Way::Jump);
    let mut sessions: Vec<_> = (0..10)
        .map(|n| {
            let command = format!("echo {n}; cat");
            let session = carol
                .ssh(Way::Jump, &refs(&options), &target(), &[&command])
                .stdin_open()
                .start();
            session.expect_out(&format!("{n}\n"));
            session
        })
        .collect();
    let refused = carol
        .ssh(Way::Jump, &refs(&options), &target(), &["echo in"])
        .run();
    // OpenSSH goes on over a connection of its own where a master refuses it.
    refused.says("Session open refused by peer");
    for (n, session) in sessions.iter_mut().enumerate() {
        session.say(format!("to {n}\n"));
        session.end_input();
    }
    for (n, session) in sessions.into_iter().enumerate() {
        session
            .finish(PATIENCE)
            .exits(0)
            .prints(format!("{n}\nto {n}\n"));
    }
    carol
        .ssh(Way::Jump, &refs(&options), &target(), &["echo room again"])
        .run()
        .exits(0)
        .prints("room again\n");
}

#[test]
fn the_end_of_input_reaches_the_command_and_its_output_still_comes_back() {
    let world = World::usual();
    let input = noise(5, 200_003);
    for way in Way::BOTH {
        let finished = world
            .person("carol")
            .ssh(
                way,
                &[],
                &target(),
                &["cat > /dev/null; echo all read; sleep 0.3; echo done"],
            )
            .stdin(input.clone())
            .run();
        finished.exits(0).prints("all read\ndone\n");
    }
}

#[test]
fn a_command_that_closes_its_output_still_reads_all_input() {
    let world = World::usual();
    let file = world.path("received");
    let input = noise(9, 3_000_001);
    let command = format!("exec >&- 2>&-; cat > {}", file.display());
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &[&command])
        .stdin(input.clone())
        .run();
    finished.exits(0).prints("");
    assert!(fs::read(file).unwrap() == input);
}

#[test]
fn a_command_that_ends_without_reading_ends_the_connection() {
    let world = World::usual();
    let mut session = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["exit 4"])
        .stdin_open()
        .start();
    let stdin = session.take_stdin();
    session.finish(PATIENCE).exits(4);
    drop(stdin);
}

#[test]
fn twenty_megabytes_each_way_survive_rekeying_on_both_sides() {
    let world = World::builder()
        .node(anteroom_tests::NodeConfig::new("iot").config("RekeyLimit 1M"))
        .user("carol", "access")
        .start();
    let input = noise(21, 20 * 1024 * 1024 + 17);
    for way in Way::BOTH {
        let finished = world
            .person("carol")
            .ssh(way, &["-o", "RekeyLimit=1M"], &target(), &["cat"])
            .stdin(input.clone())
            .run();
        finished.exits(0).prints(&input);
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn ten_concurrent_transfers_of_one_person_do_not_mix() {
    let world = World::usual();
    let carol = world.person("carol");
    let running: Vec<_> = (0..10u32)
        .map(|n| {
            let input = noise(100 + n, 1_000_000 + n as usize);
            let proc = carol
                .ssh(Way::BOTH[n as usize % 2], &[], &target(), &["cat"])
                .stdin(input.clone())
                .start();
            (input, proc)
        })
        .collect();
    for (input, proc) in running {
        proc.finish(PATIENCE).exits(0).prints(input);
    }
}

#[test]
fn a_terminal_has_its_size_type_and_modes_on_the_node() {
    let world = World::usual();
    for way in Way::BOTH {
        let ssh = world.person("carol").ssh(
            way,
            &["-t"],
            &target(),
            &["stty size; echo term=$TERM; stty -a"],
        );
        // The modes are those of the client's terminal at the time it asks.
        let terminal = Cmd::new("sh")
            .args([
                "-c",
                &format!("stty intr ^X erase ^H -ixon; exec {}", ssh.line()),
            ])
            .in_terminal_of(123, 45);
        let (code, shown) = terminal.finish(PATIENCE);
        assert_eq!(code, 0, "{shown}");
        for part in [
            "45 123",
            "term=xterm-256color",
            "intr = ^X",
            "erase = ^H",
            "-ixon",
        ] {
            assert!(shown.contains(part), "no `{part}` in:\n{shown}");
        }
    }
}

#[test]
fn a_change_of_the_windows_size_reaches_the_command() {
    let world = World::usual();
    for way in Way::BOTH {
        let mut terminal = world
            .person("carol")
            .ssh(way, &["-t"], &target(), &["sh"])
            .in_terminal_of(80, 24);
        terminal.type_in("trap 'echo now=$(stty size)' WINCH; echo ready=$((1 + 1))\r");
        terminal.expect("ready=2");
        terminal.resize(101, 33);
        terminal.type_in("\r");
        terminal.expect("now=33 101");
        terminal.type_in("exit 6\r");
        assert_eq!(terminal.finish(PATIENCE).0, 6);
    }
}

#[test]
fn ctrl_c_in_a_session_interrupts_the_command_and_not_the_session() {
    let world = World::usual();
    let mut terminal = world
        .person("carol")
        .ssh(Way::Jump, &["-t"], &target(), &["sh"])
        .in_terminal();
    terminal.type_in("echo ready=$((1 + 1)); sleep 600; echo slept\r");
    terminal.expect("ready=2");
    terminal.type_in("\x03");
    terminal.type_in("echo status=$?; exit\r");
    terminal.expect("status=130");
}

#[test]
fn a_shell_without_a_terminal_reads_its_script_from_stdin() {
    let world = World::usual();
    for way in Way::BOTH {
        world
            .person("carol")
            .ssh(way, &["-T"], &target(), &[])
            .stdin("echo $((2 + 3))\nexit 9\n")
            .run()
            .exits(9)
            .prints_part("5\n");
    }
}

#[test]
fn the_environment_is_passed_on_by_the_list_only() {
    let world = World::usual();
    let finished = world
        .person("carol")
        .ssh(
            Way::Jump,
            &["-o", "SetEnv=LC_TEST=one LANG=C.UTF-8 SECRET_A=two TERM_PROGRAM=three ANTEROOM_REASON=four"],
            &target(),
            &["echo $LC_TEST,$LANG,$SECRET_A,$TERM_PROGRAM,$ANTEROOM_REASON"],
        )
        .run();
    finished.exits(0).prints("one,C.UTF-8,,,\n");
}

#[test]
fn what_the_operator_lists_in_accept_env_is_passed_on_too() {
    let world = World::builder()
        .config("accept_env: [SECRET_A, 'TERM_*']")
        .node(anteroom_tests::NodeConfig::new("iot"))
        .user("carol", "access")
        .start();
    let finished = world
        .person("carol")
        .ssh(
            Way::OneHop,
            &["-o", "SetEnv=SECRET_A=two SECRET_B=three TERM_PROGRAM=four"],
            &target(),
            &["echo $SECRET_A,$SECRET_B,$TERM_PROGRAM"],
        )
        .run();
    finished.exits(0).prints("two,,four\n");
}

#[test]
fn a_command_line_arrives_byte_for_byte() {
    let world = World::usual();
    let odd = "printf '%s' 'two  spaces; $HOME \\ \"quoted\" * \u{e9}\u{4e2d}'";
    world
        .person("carol")
        .ssh(Way::OneHop, &[], &target(), &[odd])
        .run()
        .exits(0)
        .prints("two  spaces; $HOME \\ \"quoted\" * \u{e9}\u{4e2d}");
}

#[test]
fn a_subsystem_that_the_node_lacks_fails_as_it_does_there() {
    let world = World::usual();
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &["-s"], &target(), &["nosuch"])
        .run();
    assert_ne!(finished.code(), Some(0), "{finished}");
    finished.prints("");
}

#[test]
fn compression_asked_for_by_the_client_does_no_harm() {
    let world = World::usual();
    world
        .person("carol")
        .ssh(Way::Jump, &["-C"], &target(), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn a_node_that_dies_in_the_middle_ends_the_session_with_a_word() {
    let mut world = World::usual();
    let session = world
        .person("carol")
        .ssh(
            Way::Jump,
            &[],
            &target(),
            &["echo in; echo $PPID; exec sleep 600"],
        )
        .start();
    session.expect_out("in\n");
    let parent = session.expect_out("\n").trim().to_owned();
    // The sshd of this one connection, as a crash of the node would take it.
    Command::new("kill").args(["-9", &parent]).status().unwrap();
    let finished = session.finish(PATIENCE);
    assert_ne!(finished.code(), Some(0), "{finished}");
    assert!(!finished.stderr.is_empty(), "{finished}");
    world.node_mut("iot").stop();
}

#[test]
fn killing_the_client_ends_the_session_on_the_node() {
    let world = World::usual();
    let session = world
        .person("carol")
        .ssh(Way::OneHop, &[], &target(), &["echo in; cat"])
        .stdin_open()
        .start();
    session.expect_out("in\n");
    drop(session);
    world.node("iot").expect_log("Disconnected from user");
}
