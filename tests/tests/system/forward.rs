//! Port, agent and X11 forwarding: what OpenSSH carries, and what a role lets through.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, PATIENCE, Way, World, free_port, login, need};

/// Connects to a port that somebody is about to listen on.
pub(crate) fn connect(port: u16) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "port {port}: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads up to the end of a line, or of the stream.
pub(crate) fn read_line(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        if byte == *b"\n" {
            break;
        }
        line.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// Whether the stream ends (or is reset) before a long time has passed.
pub(crate) fn ends(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Connects to a forwarded port and reads the first line that comes, in the background.
pub(crate) fn banner_of(port: u16) -> JoinHandle<String> {
    thread::spawn(move || read_line(&mut connect(port)))
}

fn target() -> String {
    format!("{}@iot", login())
}

/// A role that gives its holder every node, with these options.
fn role(name: &str, options: &str) -> String {
    format!(
        "kind: role\nversion: v7\nmetadata: {{name: {name}}}\nspec:\n  allow:\n    \
         logins: ['{{{{internal.logins}}}}']\n    node_labels: {{'*': '*'}}\n  options: {{{options}}}\n"
    )
}

/// A world in which dora has a role with these options.
fn world_with(options: &str) -> World {
    World::with_nodes()
        .documents(&role("special", options))
        .user("dora", "special")
        .start()
}

/// A listener that answers each connection with one line and echoes what follows.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                stream.write_all(b"hello\n")?;
                let mut copy = stream.try_clone()?;
                std::io::copy(&mut copy, &mut stream)?;
                stream.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    port
}

/// Sends bytes through a forward to the echo server and asserts that the same come back.
fn echoes(mut stream: TcpStream) {
    assert_eq!(read_line(&mut stream), "hello");
    let sent = crate::matrix::noise(11, 1_000_003);
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
}

#[test]
fn local_forwards_work_by_both_ways_beside_a_command() {
    let world = World::usual();
    let server = echo_server();
    for way in Way::BOTH {
        let port = free_port();
        let session = world
            .person("carol")
            .ssh(
                way,
                &["-L", &format!("{port}:127.0.0.1:{server}")],
                &target(),
                &["echo in; sleep 600"],
            )
            .start();
        session.expect_out("in\n");
        let streams: Vec<TcpStream> = (0..3).map(|_| connect(port)).collect();
        let threads: Vec<_> = streams
            .into_iter()
            .map(|s| thread::spawn(|| echoes(s)))
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(session.is_running());
    }
}

#[test]
fn a_dynamic_forward_reaches_what_the_node_reaches() {
    let world = World::usual();
    let server = echo_server();
    let port = free_port();
    let session = world
        .person("carol")
        .ssh(
            Way::OneHop,
            &["-N", "-D", &port.to_string()],
            &target(),
            &[],
        )
        .start();
    let mut stream = connect(port);
    // SOCKS 5 without authentication, then CONNECT 127.0.0.1 (RFC 1928).
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0]);
    let mut request = vec![5, 1, 0, 1, 127, 0, 0, 1];
    request.extend(server.to_be_bytes());
    stream.write_all(&request).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], 0, "{}", session.err.text());
    echoes(stream);
}

#[test]
fn dash_w_through_the_node_reaches_a_port_there() {
    let world = World::usual();
    let there = format!("127.0.0.1:{}", world.node("n2").port);
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &["-W", &there], &target(), &[])
        .stdin("\r\n")
        .run();
    finished.prints_part("SSH-2.0-OpenSSH");
}

#[test]
fn a_destination_that_refuses_is_told_to_the_client() {
    let world = World::usual();
    let port = free_port();
    let nobody = free_port();
    let session = world
        .person("carol")
        .ssh(
            Way::Jump,
            &["-L", &format!("{port}:127.0.0.1:{nobody}")],
            &target(),
            &["echo in; sleep 600"],
        )
        .start();
    session.expect_out("in\n");
    assert!(ends(&mut connect(port)));
    session.expect_err("open failed");
    assert!(session.is_running(), "only the forward fails");
}

#[test]
fn remote_forwards_are_refused_unless_a_role_allows_them() {
    let world = World::usual();
    for way in Way::BOTH {
        let refused = world
            .person("carol")
            .ssh(
                way,
                &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"],
                &target(),
                &["echo in"],
            )
            .run();
        refused
            .exits(255)
            .prints("")
            .says("remote port forwarding failed");
        let tolerated = world
            .person("carol")
            .ssh(way, &["-R", "0:127.0.0.1:9"], &target(), &["echo in"])
            .run();
        tolerated.exits(0).prints("in\n");
    }
}

#[test]
fn a_role_with_port_forwarding_opens_remote_forwards_too_also_on_port_0() {
    let world = world_with("port_forwarding: true");
    let server = echo_server();
    for way in Way::BOTH {
        let session = world
            .person("dora")
            .ssh(
                way,
                &["-R", &format!("0:127.0.0.1:{server}")],
                &target(),
                &["echo in; sleep 600"],
            )
            .start();
        let said = session.expect_err(" for remote forward");
        let port = said
            .split("Allocated port ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in: {said}"));
        echoes(connect(port));
        drop(session);
        // The listener on the node dies with the session.
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_ok() {
            assert!(Instant::now() < until, "port {port} still answers");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_named_remote_port_is_the_one_that_is_bound() {
    let world =
        world_with("ssh_port_forwarding: {remote: {enabled: true}, local: {enabled: true}}");
    let server = echo_server();
    let port = free_port();
    let session = world
        .person("dora")
        .ssh(
            Way::OneHop,
            &[
                "-o",
                "ExitOnForwardFailure=yes",
                "-R",
                &format!("{port}:127.0.0.1:{server}"),
            ],
            &target(),
            &["echo in; sleep 600"],
        )
        .start();
    session.expect_out("in\n");
    echoes(connect(port));
}

#[test]
fn a_role_without_port_forwarding_refuses_local_forwards_and_says_so() {
    for options in [
        "port_forwarding: false",
        "ssh_port_forwarding: {local: {enabled: false}}",
    ] {
        let world = world_with(options);
        let port = free_port();
        let server = echo_server();
        let session = world
            .person("dora")
            .ssh(
                Way::Jump,
                &["-L", &format!("{port}:127.0.0.1:{server}")],
                &target(),
                &["echo in; sleep 600"],
            )
            .start();
        session.expect_out("in\n");
        assert!(ends(&mut connect(port)), "{options}");
        session.expect_err("open failed");
        assert!(session.is_running(), "the command goes on");
    }
}

#[test]
fn where_both_options_are_set_the_detailed_one_decides() {
    let world = world_with(
        "port_forwarding: true, ssh_port_forwarding: {local: {enabled: true}, remote: {enabled: false}}",
    );
    let refused = world
        .person("dora")
        .ssh(
            Way::Jump,
            &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"],
            &target(),
            &["echo in"],
        )
        .run();
    refused.exits(255).prints("");
}

/// Starts `ssh-agent` with the key of `name`; it ends with the world's folder.
fn agent(world: &World, name: &str) -> (anteroom_tests::Proc, String) {
    need("ssh-agent");
    let socket = world.path("agent").display().to_string();
    let agent = Cmd::new("ssh-agent").args(["-D", "-a", &socket]).start();
    agent.expect_out("SSH_AUTH_SOCK");
    let until = Instant::now() + PATIENCE;
    while !world.path("agent").exists() {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(10));
    }
    Cmd::new("ssh-add")
        .arg("-q")
        .arg(&world.person(name).key)
        .env("SSH_AUTH_SOCK", &socket)
        .run()
        .exits(0);
    (agent, socket)
}

#[test]
fn agent_forwarding_is_off_unless_a_role_allows_it() {
    let world = World::usual();
    let (_agent, socket) = agent(&world, "carol");
    for way in Way::BOTH {
        let finished = world
            .person("carol")
            .ssh(way, &["-A"], &target(), &["echo sock=$SSH_AUTH_SOCK"])
            .env("SSH_AUTH_SOCK", &socket)
            .run();
        finished.exits(0).prints("sock=\n");
    }
}

#[test]
fn a_role_with_forward_agent_carries_the_agent() {
    let world = world_with("forward_agent: true");
    let (_agent, socket) = agent(&world, "dora");
    let key = std::fs::read_to_string(world.person("dora").public_key()).unwrap();
    for way in Way::BOTH {
        let finished = world
            .person("dora")
            // The folder's configuration says `IdentityAgent none` for everyday use.
            .ssh(
                way,
                &["-A", "-o", &format!("IdentityAgent={socket}")],
                &target(),
                &["ssh-add -L"],
            )
            .env("SSH_AUTH_SOCK", &socket)
            .run();
        finished.exits(0).prints(&key);
        let without = world
            .person("dora")
            .ssh(way, &[], &target(), &["echo sock=$SSH_AUTH_SOCK"])
            .env("SSH_AUTH_SOCK", &socket)
            .run();
        without.exits(0).prints("sock=\n");
    }
}

#[test]
fn x11_forwarding_is_off_by_default() {
    let world = World::usual();
    let finished = world
        .person("carol")
        .ssh(Way::OneHop, &["-Y"], &target(), &["echo display=$DISPLAY"])
        .env("DISPLAY", "127.0.0.1:77")
        .run();
    finished.exits(0).prints("display=\n");
}

#[test]
fn what_a_client_names_on_the_outer_connection_is_never_dialled() {
    let world = World::usual();
    let server = echo_server();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    bound.set_nonblocking(true).unwrap();
    let port = bound.local_addr().unwrap().port();
    let _keep = server;
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
    ] {
        let finished = world
            .person("carol")
            .client("ssh")
            .args(["-W", &format!("{host}:{port}"), "access"])
            .stdin("")
            .run();
        assert_ne!(finished.code(), Some(0), "{finished}");
        finished.prints("");
        assert!(
            matches!(bound.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{host} was dialled"
        );
    }
}
