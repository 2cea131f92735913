//! A channel of a kind that the SSH library does not know, as OpenSSH opens one for `-w` (`tun@openssh.com`, OpenSSH's
//! PROTOCOL section 2.3). The library refuses it twice, which no callback of it can keep it from; what that does to a
//! client is written down here beside what a stock sshd does, and in docs/security.md. Once it refuses once, the first
//! test fails, and both can go.

use std::path::Path;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, FourThings, PATIENCE, Way, World, login};

const TUNNEL: [&str; 2] = ["-w", "any:any"];

fn target() -> String {
    format!("{}@iot", login())
}

/// `-w` makes an interface first: that wants root and the device.
fn can_make_interfaces() -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !can {
        eprintln!("skipped: interfaces are made by root, of /dev/net/tun");
    }
    can
}

#[test]
fn a_tunnel_that_is_asked_for_is_refused_and_openssh_leaves_over_the_second_refusal() {
    if !can_make_interfaces() {
        return;
    }
    let world = World::usual();
    let carol = world.person("carol");
    let beside = carol
        .ssh(
            Way::Jump,
            &[],
            &target(),
            &["echo in; read line; echo $line"],
        )
        .stdin_open();
    let mut beside = beside.start();
    beside.expect_out("in\n");
    let things = FourThings::before(&world);
    let commands = carol.client("ssh").args(TUNNEL);
    let mut left = vec![commands.args(["access", "whoami"]).run()];
    for way in Way::BOTH {
        left.push(carol.ssh(way, &TUNNEL, &target(), &["echo in"]).run());
    }
    for finished in left {
        finished.exits(255).prints("");
        finished.says("unknown channel type");
        finished.says("open failure packet referred to nonexistent channel");
    }
    // It is her connection alone; what had been asked for on it may have begun.
    things.hold_with(&world, "tunnels", |table, more| match table {
        "issuances" | "sessions" => more <= 2,
        _ => more == 0,
    });
    beside.say("still\n");
    beside.finish(PATIENCE).exits(0).prints("in\nstill\n");

    // A stock sshd refuses once, and the command runs.
    let key = carol.public_key().display().to_string();
    let lines = format!("PermitTunnel no\nAuthorizedKeysFile {key}\n");
    let sshd = world.plain_sshd("plain", &lines);
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
    let direct = Cmd::new("ssh").args(["-F", "/dev/null", "-o", options[0], "-o", options[1]]);
    let direct = direct.args(TUNNEL).arg("-i").arg(&carol.key);
    let there = format!("ssh://{}@127.0.0.1:{}", login(), sshd.port);
    let went_on = direct.args([there.as_str(), "sleep 0.5; echo in"]).run();
    went_on.exits(0).prints("in\n").says("open failed");
}

#[test]
fn a_tunnel_that_is_asked_for_over_a_shared_connection_ends_nobody() {
    if !can_make_interfaces() {
        return;
    }
    let world = World::usual();
    let carol = world.person("carol");
    let path = world.path("cm");
    let control = format!("ControlPath={}", path.display());
    let _master = carol
        .ssh(Way::OneHop, &["-M", "-N", "-o", &control], &target(), &[])
        .start();
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < until, "no connection to share");
        std::thread::sleep(Duration::from_millis(20));
    }
    let through = ["-o", &control, "-o", "ControlMaster=no"];
    let command = "echo in; read line; echo $line";
    let shares = carol.ssh(Way::OneHop, &through, &target(), &[command]);
    let mut shares = shares.stdin_open().start();
    shares.expect_out("in\n");
    // OpenSSH asks for tunnels when it connects, and this one is connected.
    let options = [&through[..], &TUNNEL].concat();
    let more = carol.ssh(Way::OneHop, &options, &target(), &["echo more"]);
    more.run().exits(0).prints("more\n");
    shares.say("still\n");
    shares.finish(PATIENCE).exits(0).prints("in\nstill\n");
}
