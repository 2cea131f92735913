//! `ssh-keygen` reads what is issued here, and signs with the key files written here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anteroom_ca::host::{self, HostTerms};
use anteroom_ca::key::Key;
use anteroom_ca::{Certificate, IssueTime, Serial};
use anteroom_core::role::Options;
use common::{
    IOT, access_role, host_ca, issuing, names, node_ca, node_id, requested, rng, standing, subject,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00 UTC);

/// What `ssh-keygen -L` says about the certificate, in UTC.
fn listed(cert: &Certificate) -> String {
    let mut child = Command::new("ssh-keygen")
        .args(["-L", "-f", "-"])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", cert.to_openssh()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "ssh-keygen: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with `golden/NAME.txt`, or writes that where `UPDATE_GOLDEN` is set; read the difference then.
fn assert_golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

fn terms(lifetime: Duration) -> HostTerms {
    HostTerms {
        serial: Serial::new(42).unwrap(),
        lifetime,
        at: IssueTime::new(NOW, None).unwrap(),
    }
}

#[test]
fn ssh_keygen_lists_an_access_certificate_under_standing_access() {
    let options = Options {
        forward_agent: Some(true),
        ..Options::default()
    };
    let permit = standing(access_role(&["root"], options), "root", IOT, NOW);
    let cert = issuing(NOW).certify(&permit, &node_ca()).unwrap();
    assert_golden("access-standing", &listed(&cert));
}

#[test]
fn ssh_keygen_lists_an_access_certificate_by_request() {
    let permit = requested("deploy", IOT, NOW, Duration::seconds(45));
    let cert = issuing(NOW).certify(&permit, &node_ca()).unwrap();
    assert_golden("access-request", &listed(&cert));
}

#[test]
fn ssh_keygen_lists_the_host_certificates() {
    let key = subject();
    let (key, ca, week) = (key.public_key(), &host_ca(), terms(Duration::days(7)));
    let proxy = host::certify_proxy(&names(), key, week, ca, &mut rng()).unwrap();
    assert_golden("host-proxy", &listed(&proxy));
    let iot = names().admit("iot").unwrap();
    let inner =
        host::certify_inner(&iot, key, terms(Duration::minutes(10)), ca, &mut rng()).unwrap();
    assert_golden("host-inner", &listed(&inner));
    let approved = [iot, names().admit("iot.lan").unwrap()];
    let node = host::certify_node(&node_id(IOT), &approved, key, week, ca, &mut rng()).unwrap();
    assert_golden("host-node", &listed(&node));
}

#[test]
fn ssh_keygen_reads_the_key_files_and_prints_the_same_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("node");
    let key = Key::generate("anteroom node CA", &mut rng());
    key.create_new(&path).unwrap();
    let run = |option: &str, file: &std::path::Path| {
        let output = Command::new("ssh-keygen")
            .arg(option)
            .arg("-f")
            .arg(file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    // From the private file itself, not from the public one beside it.
    assert_eq!(
        run("-y", &path),
        format!("{}\n", key.public_key().to_openssh().unwrap())
    );
    let listed = run("-l", &path.with_extension("pub"));
    assert_eq!(
        listed,
        format!("256 {} anteroom node CA (ED25519)\n", key.fingerprint())
    );
}

#[test]
fn a_key_file_that_ssh_keygen_wrote_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("host");
    let make = ["-q", "-t", "ed25519", "-N", "", "-C", "by hand", "-f"];
    assert!(
        Command::new("ssh-keygen")
            .args(make)
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let loaded = Key::load(&path).unwrap();
    assert_eq!(loaded.public_key().to_openssh().unwrap(), public.trim_end());
}

/// Runs the test below again under a umask; a process has only one.
fn under_umask(umask: &str) {
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", umask])
        .arg(this)
        .args(["--exact", "key_files_have_their_modes_whatever_the_umask"])
        .env("UNDER_UMASK", umask)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "umask {umask}: {said}"
    );
}

#[test]
fn key_files_have_their_modes_whatever_the_umask() {
    if std::env::var_os("UNDER_UMASK").is_none() {
        for umask in ["000", "022", "077", "277"] {
            under_umask(umask);
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("node");
    Key::generate("", &mut rng()).create_new(&path).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&path), mode(&path.with_extension("pub"))),
        (0o600, 0o644)
    );
    Key::load(&path).unwrap();
}
