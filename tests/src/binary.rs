//! Finds the `anteroom` binary, building it first where nobody named one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `anteroom` binary under test.
///
/// `ANTEROOM_BIN` names one; otherwise `cargo build` makes it in the target directory
/// this test was built in, so `cargo test -p anteroom-tests` alone always tests the
/// sources as they are.
///
/// # Panics
/// If `ANTEROOM_BIN` names no file, or the build fails.
pub fn anteroom() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match env::var_os("ANTEROOM_BIN") {
        Some(named) => {
            let named = PathBuf::from(named);
            assert!(
                named.is_file(),
                "ANTEROOM_BIN names `{}`, which is not a file",
                named.display()
            );
            named
        }
        None => build(),
    })
}

fn build() -> PathBuf {
    // …/target/PROFILE/deps/system-0123456789abcdef, or …/target/PROFILE/bench
    let exe = env::current_exe().expect("the test knows its own path");
    let mut profile_dir = exe.parent().expect("an executable is in a directory");
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir
            .parent()
            .expect("deps is in a profile directory");
    }
    let target_dir = profile_dir
        .parent()
        .expect("a profile directory is in a target directory");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--quiet",
            "-p",
            "anteroom-proxy",
            "--bin",
            "anteroom",
        ])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir);
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "cannot build the anteroom binary ({status:?}); build it with `cargo build -p \
         anteroom-proxy` or name one in ANTEROOM_BIN"
    );
    profile_dir.join("anteroom")
}

/// Asserts that `program` is installed, and names the Debian package where it isn't.
///
/// # Panics
/// If it isn't found in `PATH` or in `/usr/sbin`. A missing program is a failure and not
/// a skipped test: what isn't run isn't shown.
pub fn need(program: &str) {
    let package = match program {
        "sshd" => "openssh-server",
        "ssh" | "scp" | "sftp" | "ssh-keygen" | "ssh-add" | "ssh-agent" => "openssh-client",
        "setsid" | "setpriv" => "util-linux",
        "stty" => "coreutils",
        "plink" | "pscp" | "puttygen" => "putty-tools",
        "dbclient" => "dropbear-bin",
        other => other,
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .any(|dir| dir.join(program).is_file());
    assert!(
        found,
        "`{program}` is not installed: apt-get install {package} (tests/run does this)"
    );
}
