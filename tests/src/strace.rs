//! Faults put between a running proxy and its kernel, with strace's fault injection.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::{Cmd, PATIENCE, Proc, World};

/// strace on every thread of a running process.
///
/// strace counts per thread, which is what is wanted: SQLite writes in one, tokio's workers send in
/// others. Whichever thread gets to the count first has the fault.
pub struct Strace {
    strace: Proc,
}

impl Strace {
    /// Whether strace is here and may attach to a process that others may not look into, as the
    /// proxy is. Where not, the tests that need it say so and end.
    pub fn works() -> bool {
        // A child of a child, as the proxy is: what Yama lets root do it may keep others from.
        let mut sleeping = Command::new("sleep").arg("30").spawn().unwrap();
        let attached = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=none", "-p"])
            .arg(sleeping.id().to_string())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn();
        std::thread::sleep(Duration::from_millis(150));
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        let said = attached.and_then(std::process::Child::wait_with_output);
        let works = nix::unistd::geteuid().is_root()
            && said.is_ok_and(|said| String::from_utf8_lossy(&said.stderr).contains("attached"));
        if !works {
            eprintln!("skipped: strace is not installed, or may not trace here (only root may)");
        }
        works
    }

    /// Attaches to the proxy; `fault` is what follows the calls' names in `-e inject=`, as in
    /// `signal=KILL:when=3` or `error=ENOSPC`. Returns when every thread is traced.
    pub fn attach(world: &World, calls: &str, fault: &str) -> Self {
        let strace = Cmd::new("strace")
            .args(["-f", "-o", "/dev/null", "-e"])
            .arg(format!("trace={calls}"))
            .arg("-e")
            .arg(format!("inject={calls}:{fault}"))
            .args(["-p", &world.proxy().id().to_string()])
            .start();
        strace.expect_err("attached");
        Self { strace }
    }

    /// Lets go of the proxy, which runs on as if nothing had been.
    pub fn detach(self) {
        self.strace.signal(Signal::SIGINT);
        self.strace.finish(PATIENCE);
    }
}

/// Whether the proxy dies within `patience`.
pub fn dies_within(world: &World, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while world.proxy().is_running() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
