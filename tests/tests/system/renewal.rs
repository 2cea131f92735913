//! A stock sshd renews what it was given when it was enrolled: by the script that the printed line leaves there. Needs
//! root, as making namespaces does.

use std::fs;

use anteroom_tests::{Cmd, World};

use super::enrol_machine::{Machine, failed_and_put_back, line, logs_in};

const RENEW: &str = "/usr/local/sbin/anteroom-renew";
const CERTIFICATE: &str = "/etc/ssh/anteroom_host_ssh-ed25519-cert.pub";

/// A machine whose sshd runs and that is a node; `None` where there can be none.
fn enrolled() -> Option<(Machine, World)> {
    let mut machine = Machine::new()?;
    machine.start_sshd();
    let world = machine.world();
    machine.gives(&line(&world, &[])).exits(0);
    Some((machine, world))
}

fn signer(machine: &Machine) -> String {
    let listed = machine.gives(&format!(
        "ssh-keygen -L -f {CERTIFICATE} | grep 'Signing CA'"
    ));
    listed.exits(0);
    listed.text()
}

fn rotate(world: &World, kind: &str, options: &[&str]) {
    let mut words = vec!["auth", "rotate", "--type", kind];
    words.extend(options);
    world.ctl(&words).exits(0);
}

/// Another program stands for ssh: what it says is what the proxy would have said.
fn in_place_of_ssh(machine: &Machine, body: &str) {
    machine.program("fake-ssh", body);
    let fake = machine.gives("command -v fake-ssh").text();
    machine
        .gives(&format!(
            "cp /usr/bin/ssh /run/real-ssh && mount --bind {} /usr/bin/ssh",
            fake.trim()
        ))
        .exits(0);
}

#[test]
fn what_was_enrolled_is_renewed_by_itself_and_a_rotation_is_learnt() {
    let Some((machine, world)) = enrolled() else {
        return;
    };
    // It is there for root alone to run, and something runs it daily.
    let there = machine.gives(&format!(
        "stat -c '%a %U' {RENEW}; cat /etc/cron.d/anteroom-renew"
    ));
    let text = there.text();
    assert!(text.starts_with("755 root\n"), "{text}");
    assert!(
        text.contains("* * * root [ ! -x /usr/local/sbin/anteroom-renew ] || "),
        "{text}"
    );
    let issued = world.events("cert.create").len();
    machine.gives(RENEW).exits(0).prints("");
    assert_eq!(
        world.events("cert.create").len(),
        issued,
        "the certificates are new"
    );
    // What is locked from now on is in its list.
    world.ctl(&["users", "lock", "carol"]).exits(0);
    std::thread::sleep(std::time::Duration::from_secs(2));
    machine.gives(RENEW).exits(0).prints("");
    let public = fs::read_to_string(world.person("carol").public_key()).unwrap();
    let query = format!(
        "echo '{}' >/run/k; ssh-keygen -Q -f /etc/ssh/anteroom_krl /run/k",
        public.trim()
    );
    machine.gives(&query).exits(1).prints_part("REVOKED");
    world.ctl(&["users", "unlock", "carol"]).exits(0);
    std::thread::sleep(std::time::Duration::from_secs(2));
    // The node CA: both keys while both count, the new one alone in the end.
    let keys = || {
        let lines = machine.gives("cat /etc/ssh/anteroom_node_ca.pub").text();
        assert_eq!(
            lines,
            world.ctl(&["auth", "export", "--type", "node"]).text()
        );
        lines.lines().count()
    };
    rotate(&world, "node", &["--stage", "announce"]);
    machine
        .gives(RENEW)
        .exits(0)
        .prints_part("the node CA of the cluster has changed");
    assert_eq!(keys(), 2);
    let status = world.ctl(&["auth", "status"]);
    status.exits(0).prints_part("not seen yet; fetched");
    // A login shows what its sshd trusts.
    logs_in(&world);
    let until = std::time::Instant::now() + anteroom_tests::PATIENCE;
    while !world
        .ctl(&["auth", "status", "--format", "json"])
        .text()
        .contains("\"learnt\": true")
    {
        assert!(std::time::Instant::now() < until, "it is never learnt");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    rotate(&world, "node", &["--stage", "sign"]);
    rotate(&world, "node", &["--stage", "retire"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    machine.gives(RENEW).exits(0);
    assert_eq!(keys(), 1);
    logs_in(&world);
    // The host CA: other certificates, and sshd is told.
    let (before, told) = (signer(&machine), "Received SIGHUP; restarting.");
    let log = || {
        machine
            .sshd
            .as_ref()
            .unwrap()
            .err
            .text()
            .matches(told)
            .count()
    };
    let restarts = log();
    rotate(&world, "host", &["--stage", "announce"]);
    rotate(&world, "host", &["--stage", "sign"]);
    let renewed = machine.gives(RENEW);
    renewed
        .exits(0)
        .prints_part(&format!("renewed {CERTIFICATE}: valid from"));
    assert_ne!(signer(&machine), before);
    let until = std::time::Instant::now() + anteroom_tests::PATIENCE;
    while log() == restarts {
        assert!(std::time::Instant::now() < until, "sshd was not told");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    machine.gives(RENEW).exits(0).prints("");
    world.write_known_hosts();
    logs_in(&world);
    let left = machine.gives("ls -A /etc/ssh | grep -e '\\.anteroom' -e new || echo nothing");
    assert_eq!(left.text(), "nothing\n");
}

#[test]
fn a_machine_that_was_enrolled_before_gets_its_renewal_by_another_token() {
    let Some((machine, world)) = enrolled() else {
        return;
    };
    // As it was before there was a renewal, and its token is gone.
    machine
        .gives(&format!("rm {RENEW} /etc/cron.d/anteroom-renew"))
        .exits(0);
    let id = world.ctl(&["nodes", "ls", "--format", "json"]).json()[0]["id"].clone();
    let tokens = world.ctl(&["tokens", "ls", "--format", "json"]).json();
    let token = tokens[0]["id"].as_str().unwrap().to_owned();
    world.ctl(&["tokens", "rm", &token]).exits(0);
    // One that says something else is for another machine.
    let given = machine.gives(&line(&world, &["--labels", "env=prod"]));
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(
        given.stderr.contains("enrolled already with other labels"),
        "{given}"
    );
    let given = machine.gives(&line(&world, &[]));
    given.exits(0);
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    assert_eq!(nodes[0]["id"], id);
    machine.gives(RENEW).exits(0).prints("");
    logs_in(&world);
    // Another machine of that name stays out, and a locked node as well.
    let next = line(&world, &[]);
    machine
        .gives("rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -A >/dev/null")
        .exits(0);
    let given = machine.gives(&next);
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(given.stderr.contains("the name `iot` is taken"), "{given}");
}

#[test]
fn whatever_is_not_right_stays_as_it_was_and_is_said() {
    let Some((machine, mut world)) = enrolled() else {
        return;
    };
    let fails = |part: &str| {
        let before = machine.state();
        let given = machine.gives(RENEW);
        assert_eq!(given.code(), Some(1), "{given}");
        assert!(given.stderr.contains(part), "{part}: {given}");
        assert_eq!(machine.state(), before, "{given}");
    };
    // A key that the proxy does not have: as if somebody else answered.
    let other = "ssh-keygen -q -t ed25519 -N '' -f /run/other; cut -d' ' -f2 /run/other.pub";
    let other = machine.gives(other).text();
    machine
        .gives(&format!(
            "cp {RENEW} /run/renew; sed -i 's#%H ssh-ed25519 [^'\\'']*#%H ssh-ed25519 {}#' {RENEW}",
            other.trim()
        ))
        .exits(0);
    fails("Host key verification failed");
    machine.gives(&format!("cp /run/renew {RENEW}")).exits(0);
    world.ctl(&["lock", "--node", "iot"]).exits(0);
    fails("Permission denied");
    world.stop_proxy();
    fails("the proxy did not give `krl`: ssh: connect to host");
    world.start_proxy();
    let locks = world.ctl(&["locks", "ls", "--format", "json"]).json();
    let lock = locks[0]["id"].as_str().unwrap().to_owned();
    world.ctl(&["locks", "rm", &lock]).exits(0);
    machine.gives(RENEW).exits(0);
    // What comes is no list, nothing, or one by which nobody could log in; no keys; no certificate, or another's.
    in_place_of_ssh(
        &machine,
        "for last; do :; done\n\
         case $last in\n\
         host-cert*) last=host-cert ;;\n\
         esac\n\
         if [ -e \"/run/say.$last\" ]; then cat \"/run/say.$last\"; else exec /run/real-ssh \"$@\"; fi",
    );
    machine
        .gives("touch -d '1 day ago' /etc/ssh/anteroom_krl; ssh-keygen -q -k -f /run/locked /etc/ssh/anteroom_node_ca.pub")
        .exits(0);
    let keeps = |command: &str, file: &str, part: &str| {
        let before = machine.gives(&format!("base64 {file}")).text();
        let given = machine.gives(RENEW);
        assert_eq!(given.code(), Some(1), "{given}");
        assert!(given.stderr.contains(part), "{part}: {given}");
        assert_eq!(
            machine.gives(&format!("base64 {file}")).text(),
            before,
            "{command}"
        );
        machine.gives(&format!("rm /run/say.{command}")).exits(0);
    };
    let krl = "/etc/ssh/anteroom_krl";
    for make in [
        ": >/run/say.krl",
        "echo garbage >/run/say.krl",
        "head -c 20 /etc/ssh/anteroom_krl >/run/say.krl",
    ] {
        machine.gives(make).exits(0);
        keeps("krl", krl, "is no revocation list");
    }
    machine.gives("cp /run/locked /run/say.krl").exits(0);
    keeps("krl", krl, "nobody could log in");
    let ca = "/etc/ssh/anteroom_node_ca.pub";
    for make in [
        ": >/run/say.ca",
        "echo garbage >/run/say.ca",
        "{ cat /etc/ssh/anteroom_node_ca.pub; echo x; } >/run/say.ca",
    ] {
        machine.gives(make).exits(0);
        keeps("ca", ca, "are no keys");
    }
    for make in [
        "echo garbage >/run/say.host-cert",
        "cp /etc/ssh/anteroom_host_ssh-rsa-cert.pub /run/say.host-cert",
        "ssh-keygen -q -s /run/other -h -I x -n other /run/other.pub && cp /run/other-cert.pub /run/say.host-cert",
    ] {
        machine.gives(make).exits(0);
        keeps("host-cert", CERTIFICATE, "is no certificate for");
    }
    machine.gives(RENEW).exits(0);
    logs_in(&world);
}

#[test]
fn what_sshd_does_not_take_is_put_back() {
    let Some((machine, world)) = enrolled() else {
        return;
    };
    rotate(&world, "node", &["--stage", "announce"]);
    // The first question is whether it was right before.
    machine.program(
        "sshd",
        "case $1 in -t) if [ -e /run/asked ]; then echo 'no good'; exit 255; fi; : >/run/asked ;; esac\n\
         exec /usr/sbin/sshd \"$@\"",
    );
    let before = machine.state();
    let given = machine.gives(RENEW);
    failed_and_put_back(
        &machine,
        &given,
        &before,
        "sshd does not take what was renewed: no good",
    );
    // And one that was not right before is left alone.
    let given = machine.gives(RENEW);
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(
        given.stderr.contains("nothing was renewed: no good"),
        "{given}"
    );
    assert_eq!(machine.state(), before);
    machine.program("sshd", "exec /usr/sbin/sshd \"$@\"");
    machine.gives(RENEW).exits(0);
    logs_in(&world);
}

#[test]
fn a_machine_on_which_the_script_has_no_place_is_a_node_all_the_same_and_is_told() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let readonly = "mount -o remount,ro /usr/local/sbin";
    machine.gives(readonly).exits(0);
    let given = machine.gives(&line(&world, &[]));
    given
        .exits(0)
        .prints_part("nothing is renewed here by itself");
    given.prints_part("this machine is node iot");
    machine.gives("ls -A /etc/cron.d").exits(0).prints("");
}

#[test]
fn where_systemd_runs_a_timer_renews_and_one_that_does_not_start_undoes_it_all() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let line = line(&world, &[]);
    machine.program(
        "systemctl",
        "echo \"$*\" >>/run/systemctl\n\
         case $* in *is-active*) exit 1 ;; 'restart anteroom-renew.timer') [ ! -e /run/broken ] || exit 1 ;; esac",
    );
    machine
        .gives("mkdir -p /run/systemd/system; : >/run/broken")
        .exits(0);
    let before = machine.state();
    let given = machine.gives(&line);
    failed_and_put_back(
        &machine,
        &given,
        &before,
        "the renewal could not be started",
    );
    let asked = machine.gives("cat /run/systemctl").text();
    assert!(
        asked.contains("disable --now anteroom-renew.timer"),
        "{asked}"
    );
    machine.gives("rm /run/broken").exits(0);
    machine.gives(&line).exits(0);
    let units =
        machine.gives("cd /etc/systemd/system; ls; ls /etc/cron.d; cat anteroom-renew.timer");
    let text = units.text();
    assert!(
        text.starts_with("anteroom-renew.service\nanteroom-renew.timer\n[Unit]"),
        "{text}"
    );
    assert!(text.contains("RandomizedDelaySec="), "{text}");
    machine.gives(RENEW).exits(0);
    if Cmd::new("sh")
        .args(["-c", "command -v systemd-analyze"])
        .run()
        .code()
        == Some(0)
    {
        let verified = machine.gives("systemd-analyze verify /etc/systemd/system/anteroom-renew.*");
        verified.exits(0).prints("");
        assert_eq!(verified.stderr, "");
    }
}
