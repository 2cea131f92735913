//! Clients that are not OpenSSH: held on a request, then connected, in the one-hop form that
//! needs nothing but a user name.

use std::fs;
use std::path::PathBuf;

use anteroom_tests::{Cmd, PATIENCE, Person, World, login, need, request_id};

/// What a client is started with.
struct Place<'a> {
    world: &'a World,
    alice: &'a Person,
    /// `LOGIN@iot`.
    user: String,
    /// The proxy's host key as these clients name it: `SHA256:…`.
    host_key: String,
}

impl<'a> Place<'a> {
    fn of(world: &'a World) -> Self {
        let shown = Cmd::new("ssh-keygen")
            .arg("-lf")
            .arg(world.data_dir().join("host_key.pub"))
            .run();
        let host_key = shown
            .text()
            .split(' ')
            .nth(1)
            .expect("a fingerprint")
            .to_owned();
        Self {
            world,
            alice: world.person("alice"),
            user: format!("{}@iot", login()),
            host_key,
        }
    }
}

/// A client and how it runs `echo in; echo err >&2; exit 3`, its notice going to standard error.
type Client = (&'static str, fn(&Place<'_>) -> Cmd);

const COMMAND: &str = "echo in; echo err >&2; exit 3";

const CLIENTS: &[Client] = &[
    ("PuTTY's plink", plink),
    ("Dropbear's dbclient", dbclient),
    ("paramiko", paramiko),
    ("asyncssh", asyncssh),
    ("libssh", libssh),
];

fn plink(place: &Place<'_>) -> Cmd {
    need("plink");
    Cmd::new("plink")
        .args(["-batch", "-ssh", "-P", &place.world.port.to_string()])
        .args(["-hostkey", &place.host_key, "-l", &place.user, "-i"])
        .arg(putty_key(place))
        .args(["127.0.0.1", COMMAND])
        .env("HOME", place.alice.dir.display().to_string())
}

/// Alice's key in PuTTY's format.
fn putty_key(place: &Place<'_>) -> PathBuf {
    need("puttygen");
    let file = place.alice.dir.join("id.ppk");
    if !file.exists() {
        Cmd::new("puttygen")
            .arg(&place.alice.key)
            .arg("-o")
            .arg(&file)
            .run()
            .exits(0);
    }
    file
}

fn dbclient(place: &Place<'_>) -> Cmd {
    need("dbclient");
    let file = place.alice.dir.join("id.dropbear");
    Cmd::new("dropbearconvert")
        .args(["openssh", "dropbear"])
        .arg(&place.alice.key)
        .arg(&file)
        .run()
        .exits(0);
    Cmd::new("dbclient")
        // It has no option for a host key, and the world is the test's own.
        .args(["-y", "-p", &place.world.port.to_string(), "-i"])
        .arg(file)
        .args(["-l", &place.user, "127.0.0.1", COMMAND])
        .env("HOME", place.alice.dir.display().to_string())
}

fn paramiko(place: &Place<'_>) -> Cmd {
    python(
        place,
        "import paramiko, sys
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect('127.0.0.1', port=port, username=user, key_filename=key, look_for_keys=False,
               allow_agent=False)
channel = client.get_transport().open_session()
channel.exec_command(command)
err = channel.makefile_stderr('r')
for line in err:
    sys.stderr.write(line)
    sys.stderr.flush()
sys.stdout.write(channel.makefile('r').read().decode())
sys.exit(channel.recv_exit_status())
",
    )
}

fn asyncssh(place: &Place<'_>) -> Cmd {
    python(
        place,
        "import warnings
warnings.simplefilter('ignore')
import asyncio, asyncssh, sys
async def run():
    async with asyncssh.connect('127.0.0.1', port=port, username=user, client_keys=[key],
                                known_hosts=None) as connection:
        async with connection.create_process(command) as process:
            async for line in process.stderr:
                sys.stderr.write(line)
                sys.stderr.flush()
            sys.stdout.write(await process.stdout.read())
            return (await process.wait()).exit_status
sys.exit(asyncio.run(run()))
",
    )
}

/// A small program, compiled on the spot against the library.
fn libssh(place: &Place<'_>) -> Cmd {
    need("cc");
    let program = place.world.path("libssh-client");
    if !program.exists() {
        Cmd::new("cc")
            .args(["-Wall", "-Werror", "-o"])
            .arg(&program)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/libssh.c"))
            .arg("-lssh")
            .run()
            .exits(0);
    }
    Cmd::new(program)
        .arg(place.world.port.to_string())
        .arg(&place.user)
        .arg(&place.alice.key)
        .arg(COMMAND)
        .env("HOME", place.alice.dir.display().to_string())
}

/// Debian's Python, which has the libraries of Debian's packages.
fn python(place: &Place<'_>, script: &str) -> Cmd {
    let variables = format!(
        "port = {}\nuser = {:?}\nkey = {:?}\ncommand = {COMMAND:?}\n",
        place.world.port,
        place.user,
        place.alice.key.display().to_string(),
    );
    Cmd::new("/usr/bin/python3").args(["-c", &(variables + script)])
}

#[test]
fn putty_dropbear_paramiko_asyncssh_and_libssh_are_held_and_then_connected() {
    let world = World::usual();
    let alice = world.person("alice");
    let place = Place::of(&world);
    for (name, client) in CLIENTS {
        let waiting = client(&place).start();
        let said = waiting.expect_err("Waiting for request approval...");
        let id = request_id(&said);
        world.approve(&id);
        let finished = waiting.finish(PATIENCE);
        finished.exits(3).prints("in\n");
        assert!(finished.stderr.contains("err\n"), "{name}: {finished}");
        assert!(
            finished.stderr.contains("Approval received from bob"),
            "{name}: {finished}"
        );
        // The next client asks again.
        alice
            .access(&["request", "drop", "--end", &id])
            .run()
            .exits(0);
    }
}

#[test]
fn a_denied_client_that_is_not_openssh_is_told_so_and_ends_with_77() {
    let world = World::usual();
    let place = Place::of(&world);
    for (name, client) in CLIENTS {
        let waiting = client(&place).start();
        let id = request_id(&waiting.expect_err("Waiting for request approval..."));
        world.deny(&id, "not today");
        let finished = waiting.finish(PATIENCE);
        finished.exits(77);
        assert!(
            finished
                .stderr
                .contains("Request denied by bob, reason=\"not today\""),
            "{name}: {finished}"
        );
    }
}

#[test]
fn puttys_pscp_is_held_and_then_copies() {
    let world = World::usual();
    let alice = world.person("alice");
    let place = Place::of(&world);
    let payload = super::matrix::noise(11, 300_011);
    let (from, to) = (world.path("payload"), world.path("copied"));
    fs::write(&from, &payload).unwrap();
    need("pscp");
    let waiting = Cmd::new("pscp")
        .args(["-batch", "-q", "-P", &world.port.to_string()])
        .args(["-hostkey", &place.host_key, "-l", &place.user, "-i"])
        .arg(putty_key(&place))
        .arg(&from)
        .arg(format!("127.0.0.1:{}", to.display()))
        .env("HOME", alice.dir.display().to_string())
        .start();
    let id = request_id(&waiting.expect_err("Waiting for request approval..."));
    world.approve(&id);
    waiting.finish(PATIENCE).exits(0);
    assert!(fs::read(&to).unwrap() == payload, "the copy differs");
}
