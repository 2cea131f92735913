//! The door of the SSH seam: what is possible before a login, and how long. Real
//! `ssh` where it can be made to misbehave enough, bytes by hand where it cannot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support_ssh;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support_ssh::{LIMIT, Lab, Setup, WAYS, until};

/// Not a test: the relay of the others, in a process of its own.
#[test]
#[ignore = "started by the other tests"]
fn relay_process() {
    support_ssh::relay::run();
}

/// A relay whose grace time is short enough to wait for.
fn impatient() -> Lab {
    Lab::with(Setup {
        relay: &[("RELAY_GRACE_MS", "1500")],
        ..Setup::default()
    })
}

/// Reads until the relay closes; how long that took.
fn closed_after(mut stream: &TcpStream, start: Instant) -> Duration {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn assert_closed_by_grace_time(lab: &Lab, took: Duration) {
    assert!(took >= Duration::from_millis(1400), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    until("the relay says why", || lab.log().contains("GraceTime"));
}

#[test]
fn a_silent_peer_is_cut_off_at_the_end_of_the_grace_time() {
    let lab = impatient();
    let start = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", lab.relay_port)).unwrap();
    let took = closed_after(&stream, start);
    assert_closed_by_grace_time(&lab, took);
}

#[test]
fn a_peer_that_stops_in_the_middle_of_the_key_exchange_is_cut_off() {
    let lab = impatient();
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", lab.relay_port)).unwrap();
    stream.write_all(b"SSH-2.0-slow\r\n").unwrap();
    let took = closed_after(&stream, start);
    assert_closed_by_grace_time(&lab, took);
}

#[test]
fn a_peer_that_keeps_sending_before_the_key_exchange_is_cut_off() {
    let lab = impatient();
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", lab.relay_port)).unwrap();
    stream.write_all(b"SSH-2.0-busy\r\n").unwrap();
    let mut writer = stream.try_clone().unwrap();
    // SSH_MSG_IGNORE (RFC 4253 section 11.2) in a packet of 16 bytes, over and over.
    std::thread::spawn(move || {
        let packet = [0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        while writer.write_all(&packet).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let took = closed_after(&stream, start);
    assert_closed_by_grace_time(&lab, took);
}

#[test]
fn a_peer_that_never_ends_its_first_line_is_cut_off() {
    let lab = impatient();
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", lab.relay_port)).unwrap();
    stream.write_all(b"SSH-2.0-endless").unwrap();
    let took = closed_after(&stream, start);
    assert_closed_by_grace_time(&lab, took);
}

#[test]
fn a_login_that_succeeded_outlives_the_grace_time() {
    let lab = impatient();
    for way in WAYS {
        assert_eq!(
            lab.ok(&format!("$SSH {way} 'sleep 2; echo still here'")),
            "still here"
        );
    }
}

#[test]
fn the_seventh_key_is_not_looked_at() {
    let lab = Lab::new();
    lab.ok("for n in 1 2 3 4 5 6 7 8; do ssh-keygen -q -t ed25519 -N '' -f $D/k$n; done");
    let keys: String = (1..=8)
        .map(|n| format!(" -o IdentityFile=$D/k{n}"))
        .collect();
    // The good key comes last: it would be the ninth.
    let config = "sed \"s,^  IdentityFile.*,,\" $F > $D/bare";
    lab.ok(config);
    let output = lab.sh(&format!("ssh -F $D/bare {keys} -i $D/user hop true"));
    assert_eq!(output.status.code(), Some(255));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Too many authentication failures"), "{said}");
    until("the connection is over", || lab.log().contains("AuthLimit"));
    assert_eq!(lab.log().matches("offered").count(), 6, "{}", lab.log());
}

#[test]
fn five_wrong_keys_before_the_right_one_are_forgiven() {
    let lab = Lab::new();
    lab.ok("for n in 1 2 3 4 5; do ssh-keygen -q -t ed25519 -N '' -f $D/k$n; done");
    let keys: String = (1..=5).map(|n| format!(" -i $D/k{n}")).collect();
    lab.ok("sed \"s,^  IdentityFile.*,,\" $F > $D/bare");
    assert_eq!(
        lab.ok(&format!("ssh -F $D/bare {keys} -i $D/user hop echo in")),
        "in"
    );
}

#[test]
fn only_keys_are_accepted_and_nothing_else_is_advertised() {
    let lab = Lab::new();
    let line = "$SSH -o LogLevel=DEBUG1 -o BatchMode=no -o NumberOfPasswordPrompts=3 \
                -o PreferredAuthentications=password,keyboard-interactive,hostbased,gssapi-with-mic \
                hop true 2>&1 | grep 'continue:\\|Permission denied'";
    let said = lab.ok(line);
    let continues: Vec<_> = said
        .lines()
        .filter(|line| line.contains("can continue"))
        .collect();
    assert!(!continues.is_empty());
    assert!(
        continues
            .iter()
            .all(|line| line.ends_with("continue: publickey")),
        "{said}"
    );
    assert!(said.contains("Permission denied (publickey)"), "{said}");
}

#[test]
fn a_stranger_is_refused() {
    let lab = Lab::new();
    let output = lab.sh("sed \"s,^  IdentityFile.*,  IdentityFile $D/stranger,\" $F > $D/other && ssh -F $D/other hop true");
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied (publickey)"));
}

/// Lets the relay take an RSA key, and tries to log in with it.
fn rsa(bits: u32, options: &str) -> (Option<i32>, String) {
    let lab = Lab::with(Setup::default());
    lab.ok(&format!("ssh-keygen -q -t rsa -b {bits} -N '' -f $D/rsa"));
    // The relay reads the key it lets in at its start.
    std::fs::copy(lab.path("rsa.pub"), lab.path("user.pub")).unwrap();
    let lab = lab.restart_relay();
    lab.ok("sed \"s,^  IdentityFile.*,  IdentityFile $D/rsa,\" $F > $D/rsaconf");
    let output = lab.sh(&format!("ssh -F $D/rsaconf {options} hop echo in"));
    let log = lab.log();
    (output.status.code(), log)
}

#[test]
fn rsa_of_2048_bits_with_sha2_is_let_in() {
    let (code, log) = rsa(2048, "");
    assert_eq!(code, Some(0), "{log}");
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        let (code, log) = rsa(2048, &format!("-o PubkeyAcceptedAlgorithms={algorithm}"));
        assert_eq!(code, Some(0), "{algorithm} {log}");
    }
}

#[test]
fn rsa_with_sha1_is_not_even_looked_at() {
    let (code, log) = rsa(2048, "-o PubkeyAcceptedAlgorithms=ssh-rsa");
    assert_eq!(code, Some(255));
    assert!(!log.contains("offered"), "{log}");
}

#[test]
fn rsa_below_2048_bits_is_not_even_looked_at() {
    let (code, log) = rsa(1024, "-o RequiredRSASize=1024");
    assert_eq!(code, Some(255));
    assert!(!log.contains("offered"), "{log}");
}

#[test]
fn the_server_offers_no_compression_group_exchange_sha1_or_cbc() {
    let lab = Lab::new();
    let debug =
        lab.ok("$SSH -vv hop true 2>&1 | sed -n '/peer server KEXINIT/,/first_kex_follows/p'");
    assert!(
        debug.contains("compression ctos: none\r\n") || debug.contains("compression ctos: none\n"),
        "{debug}"
    );
    for refused in [
        "group-exchange",
        "sha1",
        "cbc",
        "ssh-rsa,",
        "zlib",
        "hmac-md5",
    ] {
        assert!(!debug.contains(refused), "{refused}: {debug}");
    }
    let ciphers = debug
        .lines()
        .find(|line| line.contains("ciphers ctos"))
        .unwrap();
    assert!(
        ciphers.contains("ctos: aes256-gcm@openssh.com,"),
        "{ciphers}"
    );
    assert!(
        ciphers.contains("chacha20-poly1305@openssh.com"),
        "{ciphers}"
    );
    let banner = lab.ok("$SSH -v hop true 2>&1 | grep 'remote software version'");
    assert!(banner.contains("Anteroom_"), "{banner}");
}

#[test]
fn the_eleventh_session_of_a_connection_is_refused_and_the_others_go_on() {
    let lab = Lab::new();
    let _master = lab.master("hop");
    let up = |n: u32| lab.path(&format!("up{n}"));
    let mut sessions: Vec<_> = (0..10)
        .map(|n| {
            lab.start(&format!(
                "$SSH hop 'touch {}; cat; echo over'",
                up(n).display()
            ))
        })
        .collect();
    for n in 0..10 {
        until("the session runs", || up(n).exists());
    }
    let output = lab.sh("$SSH -o ControlMaster=no hop echo eleven");
    let said = String::from_utf8_lossy(&output.stderr);
    // OpenSSH falls back to a connection of its own when a session is refused.
    assert!(
        said.contains("open refused by peer") || said.contains("too many sessions"),
        "{said}"
    );
    let (ended, text) = sessions.pop().unwrap().finish();
    assert!(ended);
    assert_eq!(text, "over");
    assert_eq!(lab.ok("$SSH hop echo room again"), "room again");
    for mut session in sessions {
        assert!(!session.is_over());
    }
}

#[test]
fn the_sixty_fifth_channel_of_a_connection_is_refused_and_the_others_go_on() {
    let lab = Lab::new();
    let echo = echo_server();
    let local = support_ssh::free_port();
    let _forward = lab.start(&format!(
        "exec $SSH -N -o ExitOnForwardFailure=yes -L {local}:127.0.0.1:{echo} hop"
    ));
    until("the forward listens", || {
        TcpStream::connect(("127.0.0.1", local)).is_ok()
    });
    // Those of the look above may not be closed yet: what counts is that no more
    // than 64 are alive, and that there are nearly as many.
    let alive: Vec<_> = (0..80).filter_map(|_| echoing(local)).collect();
    assert!((60..=64).contains(&alive.len()), "{}", alive.len());
    for stream in &alive {
        assert!(echoes(stream), "a channel that was open goes on");
    }
    drop(alive);
    until("there is room again", || echoing(local).is_some());
}

/// A server that sends back what it is sent.
fn echo_server() -> u16 {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

fn echoing(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    echoes(&stream).then_some(stream)
}

fn echoes(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"ping"
}

#[test]
fn a_panic_in_one_connection_ends_no_other() {
    let lab = Lab::new();
    let mut other = lab.start("$SSH hop 'cat; echo over'");
    let output = lab.sh("$SSH -l panic hop true");
    assert_eq!(output.status.code(), Some(255));
    until("the panic is reported", || lab.log().contains("Panicked"));
    assert!(!other.is_over());
    assert_eq!(other.finish(), (true, "over".to_owned()));
    assert_eq!(lab.ok("$SSH hop echo alive"), "alive");
}

#[test]
fn a_terminal_has_its_size_and_type_and_none_is_given_for_a_type_out_of_its_alphabet() {
    let lab = Lab::new();
    for way in WAYS {
        let line = format!(
            "script -qec \"stty cols 77 rows 33; TERM=xterm-256color $SSH -o LogLevel=QUIET -tt {way} 'stty size; echo \\$TERM; tty'\" /dev/null"
        );
        let said = lab.ok(&line);
        assert!(said.contains("33 77"), "{way}: {said}");
        assert!(said.contains("xterm-256color"), "{way}: {said}");
        assert!(said.contains("/dev/pts/"), "{way}: {said}");
        // A type outside the alphabet is refused, and with it the terminal.
        let said = lab.ok(&format!("TERM='x;id' $SSH -tt {way} tty 2>&1 || true"));
        assert!(
            said.contains("PTY allocation request failed"),
            "{way}: {said}"
        );
    }
}

#[test]
fn remote_forwards_and_the_agent_go_through() {
    let lab = Lab::new();
    let echo = echo_server();
    for way in WAYS {
        // The node chooses the port, and a program there connects to it.
        let port = lab.path("port");
        let mut forward = lab.start(&format!(
            "$SSH -N -o LogLevel=INFO -R 0:127.0.0.1:{echo} {way} 2> {}",
            port.display()
        ));
        let allocated = || {
            let said = std::fs::read_to_string(&port).unwrap_or_default();
            let number = said.split("Allocated port ").nth(1)?;
            number.split(' ').next()?.parse::<u16>().ok()
        };
        until("a port is allocated", || {
            allocated().is_some() || forward.is_over()
        });
        assert!(echoing(allocated().expect("a port")).is_some(), "{way}");
        drop(forward);
        std::fs::remove_file(&port).unwrap();
        let line = format!(
            "eval $(ssh-agent) >/dev/null; ssh-add -q $D/stranger; \
             $SSH -o IdentityAgent=$SSH_AUTH_SOCK -A {way} 'ssh-add -l'; kill $SSH_AGENT_PID"
        );
        let said = lab.ok(&line);
        assert!(said.contains("ED25519"), "{way}: {said}");
    }
}
