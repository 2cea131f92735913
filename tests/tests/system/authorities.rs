//! The keys of the certificate authorities: under a passphrase.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_tests::{Cmd, Finished, Way, World, anteroom, login};

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

/// Puts the three CA keys under the passphrase, as an operator does.
fn encrypt(world: &World) {
    for name in ["user", "node", "host"] {
        Cmd::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", PASSPHRASE, "-f"])
            .arg(world.data_dir().join("ca").join(name))
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
