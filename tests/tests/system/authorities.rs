//! The keys of the certificate authorities: under a passphrase, and in an ssh-agent.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_tests::{Cmd, Finished, KeyType, Proc, Way, World, anteroom, login, need};

const PASSPHRASE: &str = "open sesame, please";

fn target() -> String {
    format!("{}@iot", login())
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn doctor(world: &World, options: &[&str]) -> Finished {
    Cmd::new(anteroom())
        .args(["doctor", "--data-dir"])
        .arg(world.data_dir())
        .args(options)
        .run()
}

/// Puts the keys of the authorities and the proxy's own under the passphrase, as an operator does.
fn encrypt(world: &World) {
    for name in [
        "ca/user",
        "ca/node",
        "ca/host",
        "host_key",
        "inner_host_key",
    ] {
        Cmd::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"])
            .arg(world.data_dir().join(name))
            .run()
            .exits(0);
    }
}

fn enters(world: &World) {
    world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn encrypted_ca_keys_are_opened_from_a_file_a_variable_or_a_credential() {
    let mut world = World::usual();
    world.stop_proxy().exits(0);
    encrypt(&world);
    let file = world.path("ca.pass");
    let in_file = format!("ca_passphrase_file: {}\n", file.display());
    write(&file, &format!("{PASSPHRASE}\n"), 0o600);
    world.set_config(&in_file);
    world.start_proxy();
    enters(&world);
    assert!(!world.proxy_log().contains("not encrypted"));
    doctor(&world, &[])
        .exits(0)
        .prints_part("(encrypted, not opened: name the configuration with --config)");
    let config = world.path("anteroom.yaml").display().to_string();
    doctor(&world, &["--config", &config])
        .exits(0)
        .prints_part("(encrypted)")
        .is_silent_about("not opened");
    world.stop_proxy().exits(0);

    world.set_config("ca_passphrase_env: CA_PASS\n");
    world.set_env("CA_PASS", PASSPHRASE);
    world.start_proxy();
    enters(&world);
    let everything = world.proxy_log() + &serde_json::to_string(&world.audit()).unwrap();
    assert!(!everything.contains("sesame"), "{everything}");
    world.stop_proxy().exits(0);
    world.set_env("CA_PASS", "");

    let credentials = world.path("credentials");
    fs::create_dir(&credentials).unwrap();
    write(&credentials.join("ca"), PASSPHRASE, 0o400);
    world.set_config("ca_passphrase_credential: ca\n");
    world.set_env("CREDENTIALS_DIRECTORY", &credentials.display().to_string());
    world.start_proxy();
    enters(&world);
}

#[test]
fn without_the_right_passphrase_the_start_is_refused_with_78_and_says_what_to_do() {
    let mut world = World::bare("");
    world.stop_proxy().exits(0);
    encrypt(&world);
    let user_ca = world.data_dir().join("ca/user").display().to_string();
    let before = fs::read(&user_ca).unwrap();
    let refused = |world: &World, parts: &[&str]| {
        let refused = world.serve(0).run();
        refused.exits(78).is_silent_about("sesame");
        for part in parts {
            refused.says(part);
        }
    };
    let by_hand = format!("ssh-keygen -p -f {user_ca}");
    refused(&world, &[&user_ca, "ca_passphrase_file", &by_hand]);
    let file = world.path("ca.pass");
    let name = file.display().to_string();
    world.set_config(&format!("ca_passphrase_file: {name}\n"));
    refused(&world, &[&name, "cannot be read"]);
    write(&file, "another sesame\n", 0o600);
    refused(&world, &[&user_ca, "does not open", &by_hand]);
    let config = world.path("anteroom.yaml").display().to_string();
    doctor(&world, &["--config", &config])
        .exits(1)
        .prints_part("does not open");
    write(&file, PASSPHRASE, 0o644);
    refused(&world, &[&name, "chmod 0600"]);
    write(&file, "", 0o600);
    refused(&world, &[&name, "empty"]);
    world.set_config("ca_passphrase_env: CA_PASS\n");
    refused(&world, &["CA_PASS", "not set"]);
    world.set_config("ca_passphrase_credential: ca\n");
    refused(&world, &["LoadCredential=ca:PATH"]);
    assert_eq!(fs::read(&user_ca).unwrap(), before, "nothing is replaced");
}

#[test]
fn a_first_start_under_a_passphrase_makes_keys_that_it_alone_opens() {
    let mut world = World::bare("drain_timeout: 1s");
    world.stop_proxy().exits(0);
    fs::remove_dir_all(world.data_dir()).unwrap();
    let file = world.path("ca.pass");
    write(&file, PASSPHRASE, 0o600);
    world.set_config(&format!("ca_passphrase_file: {}\n", file.display()));
    world.start_proxy();
    for name in ["user", "node", "host"] {
        let key = world.data_dir().join("ca").join(name);
        let read = |passphrase: &str| {
            Cmd::new("ssh-keygen")
                .args(["-y", "-P", passphrase, "-f"])
                .arg(&key)
                .run()
        };
        read(PASSPHRASE).exits(0).prints_part("ssh-ed25519");
        assert_ne!(read("").code(), Some(0), "{name}");
        // For an emergency: the file signs by hand.
        Cmd::new("ssh-keygen")
            .args(["-q", "-P", PASSPHRASE, "-I", "emergency", "-n", "root@x"])
            .args(["-V", "+10m", "-s"])
            .arg(&key)
            .arg(world.data_dir().join("inner_host_key.pub"))
            .run()
            .exits(0);
        fs::remove_file(world.data_dir().join("inner_host_key-cert.pub")).unwrap();
    }
    // Keys from before there was a passphrase go on serving, and the log says so.
    world.stop_proxy().exits(0);
    Cmd::new("ssh-keygen")
        .args(["-q", "-p", "-P", PASSPHRASE, "-N", "", "-f"])
        .arg(world.data_dir().join("ca/node"))
        .run()
        .exits(0);
    world.start_proxy();
    let log = world.proxy_log();
    assert!(log.contains("ca/node` is not encrypted"), "{log}");
}

/// Starts the agent of the authorities, with nothing in it.
fn agent(world: &World) -> Proc {
    need("ssh-agent");
    let socket = world.path("ca.sock");
    // Left behind by one that was killed.
    let _none = fs::remove_file(&socket);
    let agent = Cmd::new("ssh-agent").args(["-D", "-a"]).arg(socket).start();
    agent.expect_out("SSH_AUTH_SOCK");
    agent
}

fn ssh_add(world: &World, key: &Path) {
    Cmd::new("ssh-add")
        .arg("-q")
        .arg(key)
        .env("SSH_AUTH_SOCK", world.path("ca.sock"))
        .run()
        .exits(0);
}

/// Moves the private keys of these authorities out of the data directory, as an operator does who
/// gives them to an agent.
fn take_out(world: &World, kinds: &[&str]) {
    fs::create_dir_all(world.path("vault")).unwrap();
    for kind in kinds {
        let from = world.data_dir().join("ca").join(kind);
        fs::rename(from, world.path("vault").join(kind)).unwrap();
    }
}

fn load(world: &World, kinds: &[&str]) {
    for kind in kinds {
        ssh_add(world, &world.path("vault").join(kind));
    }
}

const ALL: [&str; 3] = ["user", "node", "host"];

#[test]
fn authorities_in_an_ssh_agent_serve_and_come_back_with_it() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    world.stop_proxy().exits(0);
    take_out(&world, &ALL);
    let first = agent(&world);
    load(&world, &ALL);
    world.set_config("ca_key: agent\n");
    world.set_env(
        "SSH_AUTH_SOCK",
        &world.path("ca.sock").display().to_string(),
    );
    world.start_proxy();
    enters(&world);
    carol.access(&["login"]).run().exits(0);
    let config = world.path("anteroom.yaml").display().to_string();
    doctor(&world, &["--config", &config])
        .exits(0)
        .prints_part("in an ssh-agent, not asked");
    doctor(&world, &[])
        .exits(1)
        .prints_part("only the public half");
    let mut session = carol
        .ssh(Way::OneHop, &[], &target(), &["echo ready; cat"])
        .stdin_open()
        .start();
    session.expect_out("ready\n");

    // The agent is gone: a clear word, at once; nothing else suffers.
    drop(first);
    let refused = carol.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    refused
        .exits(69)
        .says("certificate authority unavailable: the key of the node CA does not sign")
        .is_silent_about("ca.sock");
    let refused = carol.access(&["login"]).run();
    refused.exits(69).prints("").says("the key of the user CA");
    // A name that no inner server has been certified for within the hour.
    let n2 = format!("{}@n2", login());
    let refused = carol.ssh(Way::Jump, &[], &n2, &["true"]).run();
    refused.says("the key of the host CA does not sign");
    carol.access(&["ls"]).run().exits(0);
    session.say("still here\n");
    session.expect_out("still here\n");
    world.proxy().expect_err("ca.sock` cannot be asked");
    let failed: Vec<_> = world
        .events("cert.create")
        .into_iter()
        .filter(|entry| entry["success"] == false)
        .collect();
    assert!(!failed.is_empty());

    // It is back, and does not have the keys yet; then it has.
    let _second = agent(&world);
    carol
        .ssh(Way::OneHop, &[], &target(), &["true"])
        .run()
        .exits(69);
    world.proxy().expect_err("does not have the key SHA256:");
    load(&world, &ALL);
    enters(&world);
    carol.access(&["login"]).run().exits(0);
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn an_agent_that_waits_for_somebody_keeps_nobody_else_waiting() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    world.stop_proxy().exits(0);
    take_out(&world, &["node"]);
    let agent = agent(&world);
    load(&world, &["node"]);
    let socket = world.path("ca.sock").display().to_string();
    world.set_config(&format!(
        "ca_key: {{node: agent}}\nca_agent_socket: {socket}\n"
    ));
    world.start_proxy();
    enters(&world);
    // As with `ssh-add -c` while nobody looks.
    agent.signal(nix::sys::signal::Signal::SIGSTOP);
    let waiting: Vec<Proc> = (0..4)
        .map(|_| carol.ssh(Way::OneHop, &[], &target(), &["echo in"]).start())
        .collect();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let bob = world.person("bob").access(&["request", "ls"]).run();
    bob.exits(0);
    assert!(
        bob.took < std::time::Duration::from_secs(5),
        "{:?}",
        bob.took
    );
    // Nor does it hold up what is written.
    world.ctl(&["users", "lock", "alice"]).exits(0);
    agent.signal(nix::sys::signal::Signal::SIGCONT);
    for one in waiting {
        one.finish(anteroom_tests::PATIENCE).exits(0).prints("in\n");
    }
}

#[test]
fn keys_of_other_types_in_the_agent_take_over_by_rotation() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    world.stop_proxy().exits(0);
    let _agent = agent(&world);
    let socket = world.path("ca.sock").display().to_string();
    // The keys that are files go on signing until the rotation.
    world.set_config(&format!("ca_key: agent\nca_agent_socket: {socket}\n"));
    world.start_proxy();
    assert!(
        world
            .proxy_log()
            .contains("the private key is still in that file")
    );
    enters(&world);
    world
        .ctl(&["auth", "rotate", "--type", "node"])
        .exits(78)
        .says("ca/node.next.pub`: write the key's public half there");
    for (kind, key_type) in [
        ("node", KeyType::Ecdsa256),
        ("user", KeyType::Rsa),
        ("host", KeyType::Ecdsa384),
    ] {
        let key = world.path(&format!("token-{kind}"));
        key_type.generate(&key, "token");
        let next = world.data_dir().join("ca").join(format!("{kind}.next.pub"));
        fs::copy(key.with_extension("pub"), &next).unwrap();
        let rotate = |options: &[&str]| {
            let mut words = vec!["auth", "rotate", "--type", kind];
            words.extend(options);
            world.ctl(&words)
        };
        // Not in the agent yet: found out before anything is announced.
        rotate(&[]).exits(69).says("does not have the key");
        ssh_add(&world, &key);
        for step in ["announce", "sign", "retire"] {
            rotate(&["--stage", step, "--force"]).exits(0);
            world.sshd_config("iot");
            world.write_known_hosts();
            enters(&world);
        }
        assert!(!world.data_dir().join("ca").join(kind).exists(), "{kind}");
        assert!(
            world
                .data_dir()
                .join("ca")
                .join(format!("{kind}.pub"))
                .exists()
        );
    }
    // An identity certificate of an RSA authority, by the agent: issued, presented, good.
    let printed = carol.access(&["login"]).run();
    printed.exits(0);
    let file = carol.dir.join("of-rsa-cert.pub");
    fs::write(&file, &printed.stdout).unwrap();
    let presents = format!("CertificateFile={}", file.display());
    carol
        .client("ssh")
        .args(["-o", &presents, "access", "status"])
        .run()
        .exits(0)
        .is_silent_about("your roles or key change");
    // And in an emergency, by the agent.
    let uuid = world.node("iot").uuid.clone();
    Cmd::new("ssh-keygen")
        .args(["-q", "-U", "-I", "emergency", "-V", "-1m:+5m", "-n"])
        .arg(format!("{}@{uuid}", login()))
        .arg("-s")
        .arg(world.data_dir().join("ca/node.pub"))
        .arg(carol.public_key())
        .env("SSH_AUTH_SOCK", &socket)
        .run()
        .exits(0);
}

#[test]
fn a_start_without_what_the_agent_should_have_says_what_is_missing() {
    let mut world = World::bare("drain_timeout: 1s");
    world.stop_proxy().exits(0);
    let refused = |world: &World, code: i32, says: &str| {
        world.serve(0).run().exits(code).says(says);
    };
    let socket = world.path("ca.sock").display().to_string();
    let with_socket = format!("ca_key: agent\nca_agent_socket: {socket}\n");
    take_out(&world, &ALL);
    refused(&world, 78, "only the public half");
    world.set_config("ca_key: agent\n");
    refused(&world, 78, "SSH_AUTH_SOCK");
    // The proxy's own host certificate needs a signature.
    world.set_config(&with_socket);
    refused(&world, 69, "the key of the host CA does not sign");
    world.set_config("ca_key: [agent]\n");
    refused(&world, 78, "ca_key");
    world.set_config("ca_key: {tls: agent}\n");
    refused(&world, 78, "ca_key");
    world.set_config(&with_socket);
    let node = world.data_dir().join("ca/node.pub");
    fs::write(
        &node,
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIJbAsEUJfjvfTQBxMXcYwaaPpW9hGh6TpJgRkZXHDWMnAAAABHNzaDo=\n",
    )
    .unwrap();
    refused(
        &world,
        78,
        "sk-ssh-ed25519@openssh.com is not used as a certificate authority",
    );
    fs::remove_file(&node).unwrap();
    refused(&world, 78, "ca/node");
}
