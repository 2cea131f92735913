//! What a stock sshd and ssh say to what is issued here: accepted where it is meant, refused everywhere else,
//! and each for its own reason.
//!
//! Every case has an sshd of its own that serves one connection in inetd mode, so nothing listens on a known
//! port and the whole log is there when the case is over. As root it is the real thing; as anybody else, sshd
//! runs the principals command as that user, who then is the login.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "sshd reads the real clock, so these tests do as well"
)]

mod common;

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anteroom_ca::export::{self, OtherDoors};
use anteroom_ca::host::{self, HostTerms};
use anteroom_ca::key::{Key, NodeCa};
use anteroom_ca::{IssueTime, Serial, SourceAddresses};
use anteroom_core::policy::Permit;
use anteroom_core::role::Options;
use common::{
    IOT, REQUEST, SESSION, WEB, access_role, host_ca, issuing, names, node_ca, node_id, requested,
    requested_for, rng, standing,
};
use time::{Duration, OffsetDateTime};

const SSHD: &str = "/usr/sbin/sshd";

/// A node `iot` with the lines of `export::sshd_config_lines`, and a client with an ephemeral key.
struct Bench {
    dir: tempfile::TempDir,
    login: String,
}

/// From where ssh takes key and certificate.
#[derive(Clone, Copy)]
enum Offer {
    Files,
    /// From an agent ssh offers what it would not take from a file: a host certificate, say.
    Agent,
}

/// How one connection went.
struct Outcome {
    client: Output,
    /// sshd's log.
    log: String,
}

impl Bench {
    fn new(others: OtherDoors) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let bench = Self {
            dir,
            login: said(Command::new("id").arg("-un")),
        };
        if bench.login == "root" {
            // Debian makes sshd's empty directory when the service starts; here nobody starts it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        Key::from_seed("node CA", &[1; 32])
            .create_new(&bench.file("ca"))
            .unwrap();
        Key::from_seed("", &[3; 32])
            .create_new(&bench.file("id"))
            .unwrap();
        bench.make_host();
        bench.write("sshd_config", &bench.sshd_config(others));
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// A host key with a certificate as node `iot`, and the known_hosts lines that trust it.
    fn make_host(&self) {
        let key = Key::from_seed("", &[4; 32]);
        key.create_new(&self.file("host_key")).unwrap();
        let at = IssueTime::new(OffsetDateTime::now_utc(), None).unwrap();
        let terms = HostTerms {
            serial: Serial::random(&mut rng()),
            lifetime: Duration::HOUR,
            at,
        };
        let approved = [
            names().admit("iot").unwrap(),
            names().admit("iot.lan").unwrap(),
        ];
        let cert = host::certify_node(
            &node_id(IOT),
            &approved,
            key.public_key(),
            terms,
            &host_ca(),
            &mut rng(),
        );
        self.write("host_key-cert.pub", cert.unwrap().to_openssh());
        let lines = export::known_hosts_lines(&names(), &[host_ca().public_key().clone()]).unwrap();
        self.write("known_hosts", &(lines.join("\n") + "\n"));
    }

    fn sshd_config(&self, others: OtherDoors) -> String {
        let lines = export::sshd_config_lines(&node_id(IOT), others);
        let ours = lines.replace(
            export::NODE_CA_FILE,
            &self.file("node_ca.pub").display().to_string(),
        );
        // `nobody` is what a node has; without root, sshd can become nobody else.
        let user = if self.login == "root" {
            "nobody"
        } else {
            &self.login
        };
        let ours = ours.replace(
            "AuthorizedPrincipalsCommandUser nobody",
            &format!("AuthorizedPrincipalsCommandUser {user}"),
        );
        let line =
            export::authorized_keys_line(node_ca().public_key(), "anteroom node CA").unwrap();
        self.write("node_ca.pub", &(line + "\n"));
        let host = self.file("host_key").display().to_string();
        format!(
            "LogLevel DEBUG2\nHostKey {host}\nHostCertificate {host}-cert.pub\nPidFile none\n{ours}"
        )
    }

    /// Alice's permit for `login` on `node`, decided at `now`.
    fn permit(&self, login: &str, node: &str, now: OffsetDateTime) -> Permit {
        standing(
            access_role(&[&self.login, login], Options::default()),
            login,
            node,
            now,
        )
    }

    /// Issues for our login on the node `iot`, but for what the case changes, and logs in with it.
    fn with_permit(&self, permit: &Permit, ca: &NodeCa, now: OffsetDateTime) -> Outcome {
        let cert = issuing(now).certify(permit, ca).unwrap();
        self.present(cert.to_openssh(), "iot")
    }

    fn present(&self, certificate: &str, host: &str) -> Outcome {
        self.write("id-cert.pub", certificate);
        self.connect(Offer::Files, host)
    }

    fn connect(&self, offer: Offer, host: &str) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ssh = self.client(offer, host, address.port());
        let client = thread::spawn(move || {
            let output = ssh.output().unwrap();
            // Frees `accept` below if ssh gave up before it connected.
            drop(TcpStream::connect(address));
            output
        });
        let (socket, _) = listener.accept().unwrap();
        let log = self.serve(socket);
        Outcome {
            client: client.join().unwrap(),
            log,
        }
    }

    fn serve(&self, socket: TcpStream) -> String {
        let output = Command::new(SSHD)
            .args(["-i", "-e", "-f"])
            .arg(self.file("sshd_config"))
            .stdin(OwnedFd::from(socket.try_clone().unwrap()))
            .stdout(OwnedFd::from(socket))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{SSHD}: {error}: install openssh-server"))
            .wait_with_output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn client(&self, offer: Offer, host: &str, port: u16) -> Command {
        let mut ssh = self.offering(offer);
        ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        ssh.args([
            "-F",
            "none",
            "-oBatchMode=yes",
            "-oConnectTimeout=20",
            "-oUpdateHostKeys=no",
        ]);
        ssh.args(["-oStrictHostKeyChecking=yes", "-oGlobalKnownHostsFile=none"]);
        ssh.arg(format!(
            "-oUserKnownHostsFile={}",
            self.file("known_hosts").display()
        ));
        ssh.arg(format!("-oHostKeyAlias={host}"))
            .arg("-l")
            .arg(&self.login);
        ssh.arg("-p")
            .arg(port.to_string())
            .args(["127.0.0.1", "echo in as $(id -un)"]);
        ssh
    }

    fn offering(&self, offer: Offer) -> Command {
        match offer {
            Offer::Files => {
                let mut ssh = Command::new("ssh");
                ssh.arg("-oIdentitiesOnly=yes")
                    .arg("-i")
                    .arg(self.file("id"));
                ssh.arg(format!(
                    "-oCertificateFile={}",
                    self.file("id-cert.pub").display()
                ));
                ssh
            }
            Offer::Agent => {
                let mut agent = Command::new("ssh-agent");
                agent.args([
                    "sh",
                    "-c",
                    "ssh-add -q \"$1\" && shift && exec ssh \"$@\"",
                    "sh",
                ]);
                agent.arg(self.file("id"));
                agent
            }
        }
    }

    /// Signs with `ssh-keygen` and the authority's own file, as one would in an emergency.
    fn sign_by_hand(&self, options: &[&str]) -> String {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .arg("-q")
            .arg("-s")
            .arg(self.file("ca"))
            .args(["-I", "emergency", "-V", "-1m:+1m"])
            .args(options);
        said(keygen.arg(self.file("id.pub")));
        fs::read_to_string(self.file("id-cert.pub")).unwrap()
    }
}

impl Outcome {
    #[track_caller]
    fn is_in_as(&self, login: &str) {
        let stdout = String::from_utf8_lossy(&self.client.stdout);
        assert_eq!(
            stdout,
            format!("in as {login}\n"),
            "{}\n{}",
            String::from_utf8_lossy(&self.client.stderr),
            self.log
        );
        assert!(self.client.status.success());
    }

    /// Refused by sshd, which says `why` in its log.
    #[track_caller]
    fn is_refused(&self, why: &str) {
        let stderr = String::from_utf8_lossy(&self.client.stderr);
        assert_eq!(
            self.client.status.code(),
            Some(255),
            "{stderr}\n{}",
            self.log
        );
        assert!(
            stderr.contains("Permission denied"),
            "{stderr}\n{}",
            self.log
        );
        assert!(self.client.stdout.is_empty());
        assert!(self.log.contains(why), "`{why}` is not in\n{}", self.log);
    }
}

/// What a program prints, without the line end.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[test]
fn accepted_on_its_node_and_login_and_named_in_the_log() {
    let bench = Bench::new(OtherDoors::Keep);
    let outcome = bench.with_permit(&bench.permit(&bench.login, IOT, now()), &node_ca(), now());
    outcome.is_in_as(&bench.login);
    let named = format!(
        "Accepted certificate ID \"alice sess={SESSION}\" (serial 4711) signed by ED25519 CA"
    );
    assert!(outcome.log.contains(&named), "{}", outcome.log);
}

#[test]
fn accepted_by_request_and_the_log_names_the_request() {
    let bench = Bench::new(OtherDoors::Keep);
    let outcome = bench.with_permit(
        &requested(&bench.login, IOT, now(), Duration::HOUR),
        &node_ca(),
        now(),
    );
    outcome.is_in_as(&bench.login);
    assert!(
        outcome
            .log
            .contains(&format!("\"carol req={REQUEST} sess={SESSION}\"")),
        "{}",
        outcome.log
    );
}

#[test]
fn under_a_certificate_for_one_command_sshd_runs_that_one_whatever_is_asked_for() {
    let bench = Bench::new(OtherDoors::Keep);
    // The client asks for `echo in as …`; quoting and blanks reach the shell as they were approved.
    for (command, said) in [
        ("echo forced", "forced\n"),
        ("printf '%s|' a  \"b c\"", "a|b c|"),
        ("echo \"$SSH_ORIGINAL_COMMAND\"", "echo in as $(id -un)\n"),
        ("echo ä; echo two", "ä\ntwo\n"),
    ] {
        let permit = requested_for(Some(command), &bench.login, IOT, now(), Duration::HOUR);
        let outcome = bench.with_permit(&permit, &node_ca(), now());
        let stdout = String::from_utf8_lossy(&outcome.client.stdout);
        assert_eq!(stdout, said, "{command}: {}", outcome.log);
    }
}

#[test]
fn accepted_where_every_other_door_is_closed() {
    let bench = Bench::new(OtherDoors::Close);
    let outcome = bench.with_permit(&bench.permit(&bench.login, IOT, now()), &node_ca(), now());
    outcome.is_in_as(&bench.login);
}

#[test]
fn refused_for_another_nodes_uuid() {
    let bench = Bench::new(OtherDoors::Keep);
    let outcome = bench.with_permit(&bench.permit(&bench.login, WEB, now()), &node_ca(), now());
    outcome.is_refused("Certificate does not contain an authorized principal");
}

#[test]
fn refused_for_another_login() {
    let bench = Bench::new(OtherDoors::Keep);
    let outcome = bench.with_permit(&bench.permit("deploy", IOT, now()), &node_ca(), now());
    outcome.is_refused("Certificate does not contain an authorized principal");
}

#[test]
fn refused_after_its_end_and_before_its_beginning() {
    let bench = Bench::new(OtherDoors::Keep);
    let earlier = now() - Duration::seconds(61);
    let outcome = bench.with_permit(
        &bench.permit(&bench.login, IOT, earlier),
        &node_ca(),
        earlier,
    );
    outcome.is_refused("Certificate invalid: expired");
    let later = now() + Duration::minutes(5);
    let outcome = bench.with_permit(&bench.permit(&bench.login, IOT, later), &node_ca(), later);
    outcome.is_refused("Certificate invalid: not yet valid");
}

#[test]
fn refused_from_another_authority() {
    let bench = Bench::new(OtherDoors::Keep);
    let stranger = NodeCa::new(Key::from_seed("", &[9; 32]));
    let outcome = bench.with_permit(&bench.permit(&bench.login, IOT, now()), &stranger, now());
    let ca = stranger.public_key().fingerprint(ssh_key::HashAlg::Sha256);
    outcome.is_refused(&format!("CA ED25519 {ca} is not listed in"));
}

#[test]
fn refused_from_another_source_address() {
    let bench = Bench::new(OtherDoors::Keep);
    let mut issuing = issuing(now());
    issuing.source = SourceAddresses::parse(&["192.0.2.1", "::1"]).unwrap();
    let cert = issuing
        .certify(&bench.permit(&bench.login, IOT, now()), &node_ca())
        .unwrap();
    let outcome = bench.present(cert.to_openssh(), "iot");
    outcome.is_refused("not from a permitted source address");
}

#[test]
fn refused_if_it_is_a_host_certificate() {
    let bench = Bench::new(OtherDoors::Keep);
    let principal = format!("{}@{IOT}", bench.login);
    bench.sign_by_hand(&["-h", "-n", &principal]);
    let refused = bench.connect(Offer::Agent, "iot");
    refused.is_refused("Certificate invalid: not a user certificate");
    // By the same way a user certificate comes through.
    bench.sign_by_hand(&["-n", &principal]);
    bench.connect(Offer::Agent, "iot").is_in_as(&bench.login);
}

#[test]
fn accepted_if_signed_by_hand_with_the_authoritys_file_in_an_emergency() {
    let bench = Bench::new(OtherDoors::Keep);
    let principal = format!("{}@{IOT}", bench.login);
    let cert = bench.sign_by_hand(&["-n", &principal]);
    bench.present(&cert, "iot").is_in_as(&bench.login);
}

#[test]
fn the_bare_key_opens_nothing() {
    let bench = Bench::new(OtherDoors::Close);
    bench.present("", "iot").is_refused("Failed publickey");
}

#[test]
fn ssh_trusts_the_host_certificate_by_the_names_it_carries_alone() {
    let bench = Bench::new(OtherDoors::Keep);
    let cert = issuing(now())
        .certify(&bench.permit(&bench.login, IOT, now()), &node_ca())
        .unwrap();
    for host in ["iot", "iot.lan"] {
        bench
            .present(cert.to_openssh(), host)
            .is_in_as(&bench.login);
    }
    // In order: a name the certificate lacks, names that no pattern covers, an address.
    for (host, why) in [
        ("web", "name is not a listed principal"),
        ("github.com", "Host key verification failed"),
        ("lan", "name is not a listed principal"),
        ("[iot]:2222", "Host key verification failed"),
        ("127.0.0.1", "Host key verification failed"),
        ("::1", "Host key verification failed"),
    ] {
        let outcome = bench.present(cert.to_openssh(), host);
        let stderr = String::from_utf8_lossy(&outcome.client.stderr);
        assert_eq!(outcome.client.status.code(), Some(255), "{host}: {stderr}");
        assert!(stderr.contains(why), "{host}: {stderr}");
    }
}

#[test]
fn sshd_finds_no_fault_in_the_lines_and_sees_every_other_door_closed() {
    let bench = Bench::new(OtherDoors::Close);
    let path = bench.file("sshd_config");
    let effective = said(Command::new(SSHD).arg("-T").arg("-f").arg(&path));
    for line in [
        "authenticationmethods publickey",
        "authorizedkeysfile none",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "hostbasedauthentication no",
        &format!("authorizedprincipalscommand /bin/echo %u@{IOT}"),
    ] {
        assert!(
            effective.lines().any(|found| found == line),
            "`{line}` is not in\n{effective}"
        );
    }
    let checked = Command::new(SSHD)
        .arg("-t")
        .arg("-f")
        .arg(Path::new(&path))
        .output()
        .unwrap();
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
