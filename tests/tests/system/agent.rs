//! `login --agent`: a key and its certificate in the agent that `ssh -A` forwards, and every agent that does not take them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, Finished, PATIENCE, Person, Proc, Way, World, login, need};

fn target(node: &str) -> String {
    format!("{}@{node}", login())
}

/// Starts `ssh-agent`, with nothing in it.
fn agent(world: &World) -> (Proc, String) {
    need("ssh-agent");
    let socket = world.path("agent").display().to_string();
    let agent = Cmd::new("ssh-agent").args(["-D", "-a", &socket]).start();
    agent.expect_out("SSH_AUTH_SOCK");
    (agent, socket)
}

fn ssh_add(socket: &str, words: &[&str]) -> Finished {
    Cmd::new("ssh-add")
        .args(words)
        .env("SSH_AUTH_SOCK", socket)
        .run()
}

/// `ssh -A access login --agent OPTIONS` with this agent.
fn login_by_agent(person: &Person, socket: &str, options: &[&str]) -> Finished {
    person
        .client("ssh")
        .args(["-A", "-o", &format!("IdentityAgent={socket}")])
        .args(["access", "login", "--agent"])
        .args(options)
        .run()
}

/// The same person with an `ssh_config` that leaves everything to this agent.
fn by_agent_alone(person: &Person, socket: &str) -> Person {
    let text = fs::read_to_string(person.config()).unwrap();
    let text = text
        .replace(
            &format!("IdentityFile {}", person.key.display()),
            "IdentityFile none",
        )
        .replace("IdentitiesOnly yes", "IdentitiesOnly no")
        .replace("IdentityAgent none", &format!("IdentityAgent {socket}"));
    let mut other = person.clone();
    other.key = person.dir.join("by-agent");
    fs::write(other.config(), text).unwrap();
    other
}

/// The line of `ssh-keygen -L` for the one certificate in the agent.
fn certificate_in(person: &Person, socket: &str) -> String {
    let listed = ssh_add(socket, &["-L"]);
    listed.exits(0);
    let text = listed.text();
    let certificates = text.lines().filter(|line| line.contains("-cert-v01@"));
    let [one] = certificates.collect::<Vec<_>>()[..] else {
        panic!("not one certificate: {listed}");
    };
    let file = person.dir.join("from-agent-cert.pub");
    fs::write(&file, format!("{one}\n")).unwrap();
    let shown = Cmd::new("ssh-keygen").args(["-L", "-f"]).arg(&file).run();
    shown.exits(0);
    shown.text()
}

/// The certificates that were issued by `login` and do not count any more.
fn revoked(world: &World) -> usize {
    let issued = world.events("cert.create");
    let taken_back = issued.iter().filter(|entry| {
        entry["reason"]
            .to_string()
            .contains("is revoked: the agent")
    });
    taken_back.count()
}

fn identities_issued(world: &World) -> usize {
    let issued = world.events("cert.create");
    let identities = issued
        .iter()
        .filter(|entry| entry["success"] == true && entry["roles"].is_array());
    identities.count()
}

#[test]
fn a_login_into_the_agent_is_what_ssh_uses_until_the_certificate_ends() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let (_agent, socket) = agent(&world);
    let began = Instant::now();
    let printed = login_by_agent(&carol, &socket, &["--ttl", "15s"]);
    printed.exits(0);
    assert_eq!(printed.text().lines().count(), 1, "{printed}");
    let held = ssh_add(&socket, &["-l"]);
    held.exits(0)
        .prints_part("anteroom:carol@example.com (ED25519-CERT)")
        .prints_part("anteroom:carol@example.com (ED25519)");
    let shown = certificate_in(&carol, &socket);
    assert!(shown.contains("role=access@anteroom"), "{shown}");
    // The key is a fresh one: not the one that she came with.
    let own = fs::read_to_string(carol.public_key()).unwrap();
    let own = own.split_whitespace().nth(1).unwrap();
    assert!(!ssh_add(&socket, &["-L"]).text().contains(own));

    let other = by_agent_alone(&carol, &socket);
    for way in Way::BOTH {
        let said = other.ssh(way, &[], &target("iot"), &["echo in"]).run();
        said.exits(0).prints("in\n");
    }
    let status = other.access(&["status"]).run();
    status.exits(0).prints_part("Valid until");
    let logins = world.events("user.login");
    assert_eq!(
        logins.iter().filter(|e| !e["serial"].is_null()).count(),
        3,
        "{logins:?}"
    );
    // And it goes by itself.
    while ssh_add(&socket, &["-l"]).code() != Some(1) {
        assert!(began.elapsed() < PATIENCE, "it is still there");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(began.elapsed() < Duration::from_secs(25));
    other.access(&["status"]).run().exits(255);
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn a_second_login_takes_the_first_ones_key_out_of_the_agent_and_no_other() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let (_agent, socket) = agent(&world);
    ssh_add(&socket, &[carol.key.to_str().unwrap()]).exits(0);
    login_by_agent(&carol, &socket, &[]).exits(0);
    let first = certificate_in(&carol, &socket);
    login_by_agent(&carol, &socket, &[]).exits(0);
    let second = certificate_in(&carol, &socket);
    assert_ne!(first, second);
    let held = ssh_add(&socket, &["-l"]).text();
    assert_eq!(held.lines().count(), 3, "{held}");
    assert!(held.contains(" carol (ED25519)"), "{held}");
}

#[test]
fn request_drop_with_the_agents_certificate_keeps_its_key_and_its_end() {
    let world = World::usual();
    let alice = world.person("alice").clone();
    let id = world.granted("iot");
    let (_agent, socket) = agent(&world);
    let file = alice.dir.join("anteroom-cert.pub");
    let printed = login_by_agent(&alice, &socket, &["--request-id", &id]);
    fs::write(&file, printed.exits(0).text()).unwrap();
    // A restart forgets nothing of it.
    let mut world = world;
    world.stop_proxy().exits(0);
    world.start_proxy();
    let other = by_agent_alone(&alice, &socket);
    let config = fs::read_to_string(other.config()).unwrap();
    let line = format!("  CertificateFile {}\n", file.display());
    fs::write(other.config(), config + &line).unwrap();
    let iot = target("iot");
    let inside = other.ssh(Way::OneHop, &[], &iot, &["echo in"]).run();
    inside.exits(0).prints("in\n");
    let outside = other.ssh(Way::OneHop, &[], &target("n2"), &["true"]).run();
    outside.exits(77);

    let before = listed(&file);
    let dropped = other.access(&["request", "drop"]).run();
    fs::write(&file, dropped.exits(0).text()).unwrap();
    let after = listed(&file);
    for same in ["Public key:", "Valid:"] {
        assert_eq!(part(&before, same), part(&after, same));
    }
    let now = other.access(&["status"]).run();
    now.exits(0).prints_part("Valid until");
    assert!(!now.text().contains(&id), "{now}");
    // The one that is still in the agent is revoked.
    let alone = by_agent_alone(&alice, &socket);
    alone.access(&["status"]).run().exits(255);
}

fn listed(file: &PathBuf) -> String {
    let shown = Cmd::new("ssh-keygen").args(["-L", "-f"]).arg(file).run();
    shown.exits(0);
    shown.text()
}

fn part<'a>(listed: &'a str, label: &str) -> &'a str {
    let mut lines = listed.lines().filter(|line| line.contains(label));
    // `from A to B`: only the end is promised.
    let line = lines.next().unwrap();
    line.rsplit_once(" to ").map_or(line, |(_, end)| end)
}

#[test]
fn a_lock_on_the_login_key_or_on_the_agents_own_shuts_what_came_of_it() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let (_agent, socket) = agent(&world);
    login_by_agent(&carol, &socket, &[]).exits(0);
    let other = by_agent_alone(&carol, &socket);
    let held = ssh_add(&socket, &["-l"]).text();
    let fresh = held.split_whitespace().nth(1).unwrap().to_owned();
    let file = carol.public_key();
    let own = Cmd::new("ssh-keygen").args(["-l", "-f"]).arg(file).run();
    let own = own.text().split_whitespace().nth(1).unwrap().to_owned();
    for key in [fresh, own] {
        let lock = world.ctl(&["lock", "--key", &key, "--message", "gone"]);
        lock.exits(0);
        let refused = other.ssh(Way::OneHop, &[], &target("iot"), &["true"]).run();
        refused.exits(77);
        assert!(refused.stderr.contains("gone"), "{refused}");
        world.ctl(&["locks", "rm", lock.text().trim()]).exits(0);
    }
    let again = other.ssh(Way::OneHop, &[], &target("iot"), &["true"]).run();
    again.exits(0);
    // Taking her key from her revokes what came of it.
    let new = carol.with_new_key("id2", anteroom_tests::KeyType::Ed25519);
    world
        .ctl_cmd(&["users", "update", "carol", "--key"])
        .arg(new.public_key())
        .run()
        .exits(0);
    other.access(&["status"]).run().exits(255);
}

#[test]
fn without_a_forwarded_agent_it_says_so_and_issues_nothing() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let plain = carol.access(&["login", "--agent"]).run();
    plain.exits(64);
    assert_eq!(plain.text(), "");
    assert!(plain.stderr.contains("`ssh -A …`"), "{plain}");
    let nobody = world.path("nobody").display().to_string();
    let gone = login_by_agent(&carol, &nobody, &[]);
    assert_ne!(gone.code(), Some(0), "{gone}");
    assert_eq!(gone.text(), "");
    world.ctl(&["login", "--agent"]).exits(64);
    assert_eq!(identities_issued(&world), 0);
}

#[test]
fn a_locked_agent_is_named_and_the_certificate_is_revoked() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let (_agent, socket) = agent(&world);
    let askpass = world.path("askpass");
    fs::write(&askpass, "#!/bin/sh\necho secret\n").unwrap();
    Cmd::new("chmod").arg("700").arg(&askpass).run().exits(0);
    Cmd::new("ssh-add")
        .arg("-x")
        .env("SSH_AUTH_SOCK", &socket)
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .run()
        .exits(0);
    let refused = login_by_agent(&carol, &socket, &[]);
    refused.exits(1);
    assert_eq!(refused.text(), "");
    assert!(
        refused.stderr.contains("`ssh-add -X` unlocks it"),
        "{refused}"
    );
    assert_eq!((identities_issued(&world), revoked(&world)), (1, 1));
    world.ctl(&["audit", "verify"]).exits(0);
}

/// What a fake agent does.
#[derive(Clone, Copy, Debug)]
enum Fake {
    /// Refuses to add anything.
    Nothing,
    /// Takes keys and no certificates.
    NoCertificates,
    /// Takes certificates and no plain keys.
    NoKeys,
    /// Knows nothing of constraints.
    NoConstraints,
    /// Answers what is no answer.
    Nonsense,
    /// Hangs up when it is asked to add something.
    HangsUp,
}

fn serve(mut client: UnixStream, fake: Fake) {
    let mut length = [0; 4];
    while client.read_exact(&mut length).is_ok() {
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut message).unwrap();
        let certificate = message.windows(9).any(|part| part == b"-cert-v01");
        let answer: &[u8] = match (message[0], fake) {
            (11, _) => &[12, 0, 0, 0, 0],
            (17, Fake::NoConstraints) => &[6],
            (25, Fake::NoCertificates) if !certificate => &[6],
            (25, Fake::NoKeys) if certificate => &[6],
            (25, Fake::Nonsense) => &[],
            (25, Fake::HangsUp) => return,
            _ => &[5],
        };
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        if client.write_all(&[&length, answer].concat()).is_err() {
            return;
        }
    }
}

#[test]
fn an_agent_that_refuses_gets_no_key_that_works() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let fakes = [
        Fake::Nothing,
        Fake::NoCertificates,
        Fake::NoKeys,
        Fake::NoConstraints,
        Fake::Nonsense,
        Fake::HangsUp,
    ];
    for (number, fake) in fakes.into_iter().enumerate() {
        let socket = world.path(&format!("fake{number}"));
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                thread::spawn(move || serve(client, fake));
            }
        });
        let refused = login_by_agent(&carol, socket.to_str().unwrap(), &[]);
        refused.exits(1);
        assert_eq!(refused.text(), "", "{fake:?}");
        let sentence = "your agent did not take the key: ";
        assert!(refused.stderr.contains(sentence), "{fake:?}: {refused}");
        assert_eq!(revoked(&world), number + 1, "{fake:?}: {refused}");
    }
    world.ctl(&["audit", "verify"]).exits(0);
}

/// In which order ssh means to offer what it has: `C` a certificate, `F` the fresh key, `K` her own key.
fn order(carol: &Person, world: &World, lines: &[String], own: &str) -> String {
    let text = format!(
        "Host access\n  HostName 127.0.0.1\n  Port {}\n  HostKeyAlias {}\n  User carol\n  \
         UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  {}\n",
        world.port,
        World::CLUSTER,
        world.known_hosts().display(),
        lines.join("\n  ")
    );
    let file = carol.dir.join("order");
    fs::write(&file, text).unwrap();
    let said = Cmd::new("ssh")
        .args(["-v", "-F"])
        .arg(&file)
        .args(["access", "whoami"])
        .run();
    let plan = said.stderr.lines();
    let plan = plan.filter_map(|line| line.split_once("Will attempt key: "));
    plan.map(|(_, key)| match key {
        key if key.contains("-CERT ") => 'C',
        key if key.contains(own) => 'K',
        _ => 'F',
    })
    .collect()
}

/// The tables of docs/certificates.md.
#[test]
fn openssh_offers_credentials_in_the_order_that_is_documented() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let own = Cmd::new("ssh-keygen")
        .args(["-l", "-f"])
        .arg(carol.public_key())
        .run();
    let own = own.text().split_whitespace().nth(1).unwrap().to_owned();
    let (key, plain) = (carol.key.display().to_string(), carol.dir.join("cert.pub"));
    let printed = carol.access(&["login"]).run();
    fs::write(&plain, printed.exits(0).text()).unwrap();
    let file = plain.display();
    let (_agent, socket) = agent(&world);
    let check = |expected: &str, lines: &[String]| {
        let found = order(&carol, &world, lines, &own);
        assert_eq!(found, expected, "{lines:#?}");
    };
    let identity = format!("IdentityFile {key}");
    let certificate = format!("CertificateFile {file}");
    let none = "IdentityAgent none".to_owned();
    let in_agent = format!("IdentityAgent {socket}");
    let only = "IdentitiesOnly yes".to_owned();
    let nothing = "IdentityFile none".to_owned();

    check("CK", &[identity.clone(), certificate.clone(), none.clone()]);
    check(
        "CK",
        &[
            identity.clone(),
            certificate.clone(),
            none.clone(),
            only.clone(),
        ],
    );
    let beside = carol.dir.join("id-cert.pub");
    fs::copy(&plain, &beside).unwrap();
    check("KC", &[identity.clone(), none.clone()]);
    let named = format!("CertificateFile {}", beside.display());
    check("CK", &[identity.clone(), named, none.clone()]);
    // `ssh-add` takes both.
    ssh_add(&socket, &[&key]).exits(0);
    check("KC", &[nothing.clone(), in_agent.clone()]);
    check(
        "CKC",
        &[nothing.clone(), certificate.clone(), in_agent.clone()],
    );
    fs::remove_file(&beside).unwrap();
    ssh_add(&socket, &["-D"]).exits(0);
    ssh_add(&socket, &[&key]).exits(0);
    check(
        "CK",
        &[nothing.clone(), certificate.clone(), in_agent.clone()],
    );

    // `login --agent`: behind what was in the agent before.
    let printed = login_by_agent(&carol, &socket, &[]);
    fs::write(&plain, printed.exits(0).text()).unwrap();
    check("KCF", &[nothing.clone(), in_agent.clone()]);
    check(
        "CKCF",
        &[nothing.clone(), certificate.clone(), in_agent.clone()],
    );
    check(
        "CK",
        &[
            identity.clone(),
            certificate.clone(),
            in_agent.clone(),
            only.clone(),
        ],
    );
    check(
        "C",
        &[
            format!("IdentityFile {file}"),
            in_agent.clone(),
            only.clone(),
        ],
    );
    ssh_add(&socket, &["-d", &key]).exits(0);
    check("CF", &[nothing, in_agent]);
}
