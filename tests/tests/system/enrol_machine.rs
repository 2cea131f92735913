//! A machine with an address, a configuration and an sshd of its own, in a network and a mount namespace: the line
//! that `tokens add` prints is given there as it stands. Needs root, as making namespaces does.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, Finished, KeyType, NodeConfig, Proc, World, login};

use super::enrol::{enrol, key, token};

/// What a stock Debian has, without what needs a running system.
const STOCK: &str = "Include /etc/ssh/sshd_config.d/*.conf\n\nKbdInteractiveAuthentication no\nUsePAM no\n\
                     PrintMotd no\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp\n";

/// Long enough for a script on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Machine {
    /// The interface on the proxy's side.
    outside: String,
    pub(super) address: IpAddr,
    proxy: IpAddr,
    /// Programs that stand before the system's.
    bin: PathBuf,
    pub(super) sshd: Option<Proc>,
    holder: Proc,
}

fn ip(words: &[&str]) {
    Cmd::new("ip").args(words).run().exits(0);
}

impl Machine {
    /// `None` where the tests may not make namespaces.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let may = Cmd::new("unshare").args(["--net", "--mount", "true"]).run();
        if !nix::unistd::geteuid().is_root() || may.code() != Some(0) {
            eprintln!("skipped: namespaces are made by root");
            return None;
        }
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let third = u8::try_from(process % 256).expect("below 256");
        // A network of four addresses below 10.214, another one for each.
        let address = |last: u8| IpAddr::from([10, 214, third, number * 4 + last]);
        let outside = format!("en{}x{number}", process % 100_000);
        let holder = Cmd::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["sh", "-c", "echo ready; exec sleep 3600"])
            .start();
        holder.expect_out("ready");
        let pid = holder.id().to_string();
        let machine = Self {
            address: address(2),
            proxy: address(1),
            bin: std::env::temp_dir().join(format!("{outside}-bin")),
            sshd: None,
            outside,
            holder,
        };
        ip(&[
            "link",
            "add",
            &machine.outside,
            "type",
            "veth",
            "peer",
            "name",
            "inside",
            "netns",
            &pid,
        ]);
        ip(&[
            "addr",
            "add",
            &format!("{}/30", machine.proxy),
            "dev",
            &machine.outside,
        ]);
        ip(&["link", "set", &machine.outside, "up"]);
        fs::create_dir_all(&machine.bin).unwrap();
        machine.program("sudo", "exec \"$@\"");
        machine
            .sh(&format!(
                "set -e; ip link set lo up; ip addr add {}/30 dev inside; ip link set inside up\n\
                 mount -t tmpfs none /etc/ssh; mount -t tmpfs none /run; mkdir -p /run/sshd /etc/ssh/sshd_config.d\n\
                 for dir in /etc/cron.d /etc/systemd/system /usr/local/sbin; do mkdir -p $dir; mount -t tmpfs none $dir; done\n\
                 ssh-keygen -A >/dev/null; printf %s '{STOCK}' >/etc/ssh/sshd_config",
                machine.address
            ))
            .run()
            .exits(0);
        Some(machine)
    }

    /// A program of ours in the place of the system's.
    pub(super) fn program(&self, name: &str, body: &str) {
        let file = self.bin.join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A script for the machine's shell.
    fn sh(&self, script: &str) -> Cmd {
        Cmd::new("nsenter")
            .args([
                "-t",
                &self.holder.id().to_string(),
                "-n",
                "-m",
                "sh",
                "-c",
                script,
            ])
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display()),
            )
    }

    pub(super) fn gives(&self, script: &str) -> Finished {
        self.sh(script).run_within(PATIENCE)
    }

    pub(super) fn start_sshd(&mut self) {
        let sshd = self.sh("exec /usr/sbin/sshd -D -e").start();
        sshd.expect_err("Server listening on");
        self.sshd = Some(sshd);
    }

    pub(super) fn world(&self) -> World {
        World::builder()
            .listen(self.proxy)
            .user("carol", "access")
            .start()
    }

    /// All of its configuration, in one text.
    pub(super) fn state(&self) -> String {
        let all = self.gives(
            "find /etc/ssh /etc/cron.d /etc/systemd/system /usr/local/sbin | sort | while read -r f; do stat -c '%n %a %U' \"$f\"; [ -d \"$f\" ] || cat \"$f\"; done | base64",
        );
        all.exits(0);
        all.text()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Cmd::new("ip").args(["link", "del", &self.outside]).run();
        let _gone = fs::remove_dir_all(&self.bin);
    }
}

/// The line that `tokens add` prints.
pub(super) fn line(world: &World, options: &[&str]) -> String {
    let mut words = vec!["tokens", "add", "--type", "node", "--name", "iot"];
    words.extend(options);
    let made = world.ctl(&words);
    made.exits(0);
    let text = made.text();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    text
}

/// carol logs in on the machine through the proxy.
pub(super) fn logs_in(world: &World) {
    let target = format!("{}@iot@access", login());
    let until = Instant::now() + PATIENCE;
    loop {
        let finished = Cmd::new("ssh")
            .arg("-F")
            .arg(world.person("carol").config())
            .args([&target, "echo in"])
            .run_within(PATIENCE);
        // An sshd that reads its configuration again starts itself anew, and nobody listens for a moment.
        if finished.code() == Some(69) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        finished.exits(0).prints("in\n");
        return;
    }
}

pub(super) fn failed_and_put_back(
    machine: &Machine,
    finished: &Finished,
    before: &str,
    part: &str,
) {
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stderr.contains(part), "{part}: {finished}");
    assert!(
        finished.stderr.contains("everything was put back"),
        "{finished}"
    );
    assert_eq!(machine.state(), before, "{finished}");
}

#[test]
fn the_printed_line_makes_a_stock_sshd_a_node_and_may_be_given_again() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    machine.start_sshd();
    let world = machine.world();
    let line = line(&world, &["--labels", "env=staging"]);
    let first = machine.gives(&line);
    first.exits(0);
    assert!(first.text().contains("this machine is node iot"), "{first}");
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).json();
    assert_eq!(nodes[0]["addr"], format!("{}:22", machine.address));
    assert_eq!(nodes[0]["labels"]["env"], "staging");
    logs_in(&world);
    let before = machine
        .gives("cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/anteroom.conf")
        .text();
    let again = machine.gives(&line);
    again.exits(0);
    let after = machine
        .gives("cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/anteroom.conf")
        .text();
    assert_eq!(before, after, "the same lines");
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    logs_in(&world);
    let left = machine
        .gives("ls -A /etc/ssh | grep -e backup -e new || echo nothing")
        .text();
    assert_eq!(left, "nothing\n");
    // Its host certificate is what others who trust the cluster's CA see.
    let certificate = machine.gives("ssh-keygen -L -f /etc/ssh/anteroom_host_ssh-ed25519-cert.pub");
    certificate.exits(0);
    assert!(
        certificate.text().contains("host certificate"),
        "{certificate}"
    );
}

#[test]
fn a_busybox_shell_and_an_sshd_config_without_include_do_as_well() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    machine.program("sudo", "shift; exec busybox sh \"$@\"");
    machine
        .gives("printf '# mine\\nUsePAM no\\nMatch User nosuch\\n  X11Forwarding no\\n' >/etc/ssh/sshd_config")
        .exits(0);
    machine.start_sshd();
    let world = machine.world();
    let line = line(&world, &[]);
    for _ in 0..2 {
        let given = machine.gives(&line);
        given.exits(0);
        assert!(given.text().contains("the lines go to its top"), "{given}");
        logs_in(&world);
    }
    let config = machine.gives("cat /etc/ssh/sshd_config").text();
    assert!(config.starts_with("# BEGIN anteroom\n"), "{config}");
    assert_eq!(config.matches("# BEGIN anteroom").count(), 1, "{config}");
    assert!(
        config.ends_with(
            "# END anteroom\n# mine\nUsePAM no\nMatch User nosuch\n  X11Forwarding no\n"
        ),
        "{config}"
    );
}

#[test]
fn what_somebody_else_has_set_is_told_and_stays() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let line = line(&world, &[]);
    let others = [
        (
            "TrustedUserCAKeys /etc/ssh/other_ca.pub",
            "TrustedUserCAKeys",
        ),
        (
            "AuthorizedPrincipalsCommand /bin/echo other\nAuthorizedPrincipalsCommandUser nobody",
            "AuthorizedPrincipalsCommand",
        ),
        ("RevokedKeys /etc/ssh/other_krl", "RevokedKeys"),
        (
            "Match User root\n  PubkeyAuthentication no",
            "PubkeyAuthentication",
        ),
        (
            "Match User nobody\n  TrustedUserCAKeys none",
            "TrustedUserCAKeys",
        ),
    ];
    for (lines, option) in others {
        let write = format!(
            "[ -e /etc/ssh/other_ca ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/other_ca; : >/etc/ssh/other_krl\n\
             printf '%s\\n' '{lines}' >/etc/ssh/sshd_config.d/00-other.conf"
        );
        machine.gives(&write).exits(0);
        let before = machine.state();
        let given = machine.gives(&line);
        failed_and_put_back(&machine, &given, &before, &format!("`{option} "));
    }
    machine
        .gives("rm /etc/ssh/sshd_config.d/00-other.conf")
        .exits(0);
    machine.gives(&line).exits(0);
}

#[test]
fn what_counts_is_the_configuration_of_the_port_that_the_proxy_comes_to() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let line = line(&world, &[]);
    let at_2022 = line.replace(" iot ", " iot --port 2022 ");
    let block = "printf 'Match LocalPort 2022\\n  TrustedUserCAKeys none\\n' >/etc/ssh/sshd_config.d/00-other.conf";
    machine.gives(block).exits(0);
    let before = machine.state();
    let given = machine.gives(&at_2022);
    failed_and_put_back(&machine, &given, &before, "`TrustedUserCAKeys none`");
    let other = block.replace("2022", "2023");
    machine.gives(&other).exits(0);
    machine.gives(&at_2022).exits(0);
}

#[test]
fn whatever_sshd_refuses_everything_is_put_back() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    machine.start_sshd();
    let world = machine.world();
    let line = line(&world, &[]);
    // An sshd that takes nothing of ours.
    machine.program(
        "sshd",
        "case $1 in -t) if [ -e /etc/ssh/sshd_config.d/anteroom.conf ]; then echo 'no good'; exit 255; fi; esac\n\
         exec /usr/sbin/sshd \"$@\"",
    );
    let before = machine.state();
    let given = machine.gives(&line);
    failed_and_put_back(&machine, &given, &before, "no good");
    // And a machine on which nothing was right before.
    fs::remove_file(machine.bin.join("sshd")).unwrap();
    machine
        .gives("echo Nonsense yes >>/etc/ssh/sshd_config")
        .exits(0);
    let before = machine.state();
    let given = machine.gives(&line);
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(
        given
            .stderr
            .contains("was not right before, and nothing was changed"),
        "{given}"
    );
    assert_eq!(machine.state(), before);
    machine
        .gives("sed -i /Nonsense/d /etc/ssh/sshd_config")
        .exits(0);
    machine.gives(&line).exits(0);
    logs_in(&world);
}

#[test]
fn nobody_in_between_gets_the_token_and_a_refusal_fails_the_line() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let line = line(&world, &[]);
    // Another key than the pinned one: as if somebody else answered.
    let (start, rest) = line.split_once("%H ssh-ed25519 ").unwrap();
    let (_, end) = rest.split_once('\'').unwrap();
    let other = machine
        .gives("cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub")
        .text();
    let before = machine.state();
    let given = machine.gives(&format!("{start}%H ssh-ed25519 {}'{end}", other.trim()));
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(
        given.stderr.contains("Host key verification failed"),
        "{given}"
    );
    assert!(world.events("instance.join").is_empty(), "nothing was said");
    // A token that is none.
    let given = machine.gives(&line.replace("printf '%s\\n' ", "printf '%s\\n' x"));
    assert_eq!(given.code(), Some(1), "{given}");
    assert!(given.stderr.contains("the token is not valid"), "{given}");
    assert_eq!(machine.state(), before);
}

#[test]
fn a_machine_can_give_itself_no_address_of_the_proxy() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let world = machine.world();
    let line = line(&world, &[]);
    let proxy = machine.proxy;
    let mapped = format!("[::ffff:{proxy}]:22");
    for addr in [
        format!("{proxy}:22"),
        format!("{proxy}:{}", world.port),
        mapped,
    ] {
        let given = machine.gives(&line.replace(" iot ", &format!(" iot --addr {addr} ")));
        assert_eq!(given.code(), Some(1), "{given}");
        assert!(
            given.stderr.contains("an address of the proxy itself"),
            "{given}"
        );
    }
    // Another port of its own is its own affair.
    let given = machine.gives(&line.replace(" iot ", " iot --port 2022 "));
    given.exits(0);
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).json();
    assert_eq!(nodes[0]["addr"], format!("{}:2022", machine.address));
}

#[test]
fn a_machine_that_comes_in_keeps_nobody_else_from_reviewing() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let mut world = World::builder()
        .listen(machine.proxy)
        .node(NodeConfig::new("n1").labels("env=staging"))
        .user("alice", "requester")
        .user("bob", "reviewer")
        .start();
    let mut ask = {
        let mut number = 0;
        move |world: &World| {
            number += 1;
            let (reason, alice) = (format!("--reason=r{number}"), world.person("alice"));
            let words = ["request", "create", "--nowait", "--resource", "n1", &reason];
            let created = alice.access(&words).run();
            anteroom_tests::request_id(&(created.text() + &created.stderr))
        }
    };
    // bob sits where the machine is, behind the same gateway.
    let review = |world: &World, id: &str| {
        let config = world.person("bob").config();
        machine.gives(&format!(
            "ssh -F {} access request review --deny {id}",
            config.display()
        ))
    };
    let first = line(&world, &[]);
    for addr in ["192.0.2.7:22", "[2001:db8::7]:22"] {
        let elsewhere = first.replace(" iot ", &format!(" iot --addr {addr} "));
        let given = machine.gives(&elsewhere);
        given.exits(1).says("not where this machine comes from");
    }
    review(&world, &ask(&world)).exits(0);
    machine.gives(&first).exits(0);
    let id = ask(&world);
    review(&world, &id).exits(77).says("is a registered node");
    // The operator's word about people counts for more than what machines say, and for those to come.
    world.stop_proxy();
    world.set_config(&format!("shared_addresses: [{}]", machine.address));
    world.start_proxy();
    review(&world, &id).exits(0);
    world.ctl(&["nodes", "rm", "iot"]).exits(0);
    let second = line(&world, &[]);
    let port = second.replace(" iot ", " iot --port 2022 ");
    for refused in [&second, &port] {
        let given = machine.gives(refused);
        given
            .exits(1)
            .says("people share with nodes")
            .says("--tunnel");
    }
    machine
        .gives(&second.replace(" iot ", " iot --tunnel "))
        .exits(0);
    world.ctl(&["nodes", "rm", "iot"]).exits(0);
    let by_the_operator = format!("{}:22", machine.address);
    let third = line(&world, &["--addr", &by_the_operator]);
    machine.gives(&third).exits(0);
}

#[test]
fn a_machine_behind_nat_is_told_how_to_keep_its_tunnel_and_is_reached_by_it() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    machine.start_sshd();
    let world = machine.world();
    let line = line(&world, &["--addr", "tunnel"]);
    let given = machine.gives(&line);
    given.exits(0);
    let text = given.text();
    // Where there is no systemd, the command is printed for whatever there is.
    let command = text
        .lines()
        .find(|line| line.contains("/usr/bin/ssh "))
        .unwrap_or_else(|| panic!("{given}"));
    let tunnel = machine.sh(&format!("exec {command}")).start();
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let target = format!("{}@iot@access", login());
        let tried = Cmd::new("ssh")
            .arg("-F")
            .arg(world.person("carol").config())
            .args([&target, "echo in"])
            .run_within(PATIENCE);
        if tried.code() == Some(0) {
            tried.prints("in\n");
            break;
        }
        assert!(
            std::time::Instant::now() < until && tunnel.is_running(),
            "{tried}\n{}",
            tunnel.err.text()
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn the_scripts_are_clean_by_shellchecks_rules() {
    let world = World::usual();
    let token = token(&world, &["--name", "new"]);
    let keys = key(&world, "new_host_key", KeyType::Ed25519);
    let script = enrol(&world, &token.secret, &keys, &["new", "--tunnel"]);
    script.exits(0);
    let renewal = world.ctl(&["nodes", "renewal", "new"]);
    renewal.exits(0);
    for (name, text) in [("enrol", script.text()), ("renew", renewal.text())] {
        let file = world.path(name);
        fs::write(&file, text).unwrap();
        // A unit that the script writes has `$` for another shell.
        let checked = Cmd::new("shellcheck")
            .args(["-s", "sh", "-e", "SC2016"])
            .arg(&file)
            .run();
        checked.exits(0);
    }
    // The one is in the other as it stands.
    assert!(script.text().contains(&renewal.text()));
}
