//! Behind a load balancer that speaks the PROXY protocol: a real HAProxy.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, PATIENCE, Proc, World, free_port, login, need};
use serde_json::Value;

/// As whom the balancer connects to the proxy.
const BALANCER: [u8; 4] = [127, 0, 0, 9];

fn world() -> World {
    World::with_nodes()
        .config("proxy_protocol_from: [127.0.0.8/31]")
        .user("carol", "access")
        .start()
}

/// A balancer before the proxy that introduces its clients so, and its port.
fn balancer(world: &World, how: &str) -> (Proc, u16) {
    need("haproxy");
    let (port, proxy) = (free_port(), world.port);
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  \
         timeout server 5m\nlisten ssh\n  bind 127.0.0.1:{port}\n  \
         server anteroom 127.0.0.1:{proxy} source 127.0.0.9 {how}\n"
    );
    let file = world.path("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let haproxy = Cmd::new("haproxy").arg("-db").arg("-f").arg(&file).start();
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the balancer does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    (haproxy, port)
}

/// Where the last login came from.
fn last_login(world: &World) -> String {
    let logins = world.events("user.login");
    let last = logins
        .last()
        .and_then(|entry| entry["remote_addr"].as_str());
    let (address, _port) = last.unwrap().rsplit_once(':').unwrap();
    address.to_owned()
}

#[test]
fn behind_a_balancer_people_come_from_where_they_are() {
    for how in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 check inter 100ms",
    ] {
        let world = world();
        let (_haproxy, port) = balancer(&world, how);
        let carol = world.person("carol");
        let target = format!("{}@iot@access", login());
        for from in ["127.0.0.1", "127.0.0.77"] {
            let port = port.to_string();
            let by = ["-p", &port, "-b", from, &target, "echo in"];
            carol.client("ssh").args(by).run().exits(0).prints("in\n");
            assert_eq!(last_login(&world), from, "{how}");
        }
    }
}

fn first_bytes(world: &World, from: [u8; 4], say: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let proxy = ([127, 0, 0, 1], world.port).into();
        socket.connect(proxy).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = stream;
    stream.write_all(say).unwrap();
    let mut first = vec![0; 4];
    match stream.read(&mut first) {
        Ok(n) => first.truncate(n),
        Err(_) => first.clear(),
    }
    first
}

#[test]
fn a_header_is_demanded_of_the_balancer_and_believed_of_nobody_else() {
    let world = world();
    let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 1000 22\r\nSSH-2.0-x\r\n";
    let hello = b"SSH-2.0-x\r\nand more than a header has to begin with";
    assert_eq!(first_bytes(&world, BALANCER, line), b"SSH-");
    assert_eq!(first_bytes(&world, BALANCER, hello), b"");
    assert_eq!(
        first_bytes(&world, BALANCER, b""),
        b"",
        "not within three seconds"
    );
    let log = world.proxy_log();
    assert!(log.contains("no PROXY header"), "{log}");
    // From elsewhere it is no line of SSH, and nobody's address.
    assert_eq!(first_bytes(&world, [127, 0, 0, 1], hello), b"SSH-");
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(line).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok();
    let said_by_192: Vec<Value> = world
        .audit()
        .into_iter()
        .filter(|entry| {
            entry["remote_addr"]
                .as_str()
                .is_some_and(|from| from.starts_with("192."))
        })
        .collect();
    assert!(said_by_192.is_empty(), "{said_by_192:?}");
}

#[test]
fn strangers_behind_a_balancer_are_counted_by_their_own_address() {
    let world = World::builder()
        .config("proxy_protocol_from: [127.0.0.9]\nmax_startups_per_source: 3")
        .user("alice", "requester")
        .start();
    let (_haproxy, port) = balancer(&world, "send-proxy-v2");
    let silent: Vec<TcpStream> = (0..10)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let status = world
        .ctl(&["status", "--server", "--format", "json"])
        .json();
    let most = status["unauthenticated_per_source"]["used"].as_u64();
    assert!(most.unwrap() <= 3, "{status}");
    let port = port.to_string();
    let alice = world.person("alice").client("ssh");
    let by = ["-p", &port, "-b", "127.0.0.78", "access", "whoami"];
    alice.args(by).run().exits(0).prints_part("alice");
    drop(silent);
}
