//! A grant for one command, with the real ssh and a stock sshd.

use anteroom_tests::{PATIENCE, Way, World, login, request_id};

const SCOPED: [&str; 2] = ["-o", "SetEnv=ANTEROOM_SCOPE=command"];
const NOT_WAITING: [&str; 2] = ["-o", "SetEnv=ANTEROOM_WAIT=0"];

fn target() -> String {
    format!("{}@iot", login())
}

#[test]
fn one_command_is_asked_for_granted_and_run_and_no_other() {
    let world = World::usual();
    let alice = world.person("alice");
    for way in Way::BOTH {
        let command = "echo granted: 'a  b'";
        let waiting = alice.ssh(way, &SCOPED, &target(), &[command]).start();
        let said = waiting.expect_err("Waiting for request approval...");
        let grants = format!(
            "Grants:      only the command \"{command}\" on iot as {} until ",
            login()
        );
        assert!(said.contains(&grants), "{said}");
        let id = request_id(&said);
        world.approve(&id);
        waiting.finish(PATIENCE).exits(0).prints("granted: a  b\n");
        // Once more, and without saying so: the grant is for these bytes.
        let again = alice.ssh(way, &[], &target(), &[command]).run();
        again.exits(0).prints("granted: a  b\n");
        for other in [
            "echo other",
            "echo granted: 'a  b' ",
            "echo granted: 'a  b'; id",
        ] {
            alice
                .ssh(way, &NOT_WAITING, &target(), &[other])
                .run()
                .exits(75)
                .prints("")
                .says(&format!("Request {id} grants only the command "));
        }
        world.ctl(&["requests", "rm", &id]).exits(0);
    }
}

#[test]
fn what_is_no_command_is_refused_with_a_sentence_and_nothing_is_filed() {
    let world = World::usual();
    let alice = world.person("alice");
    let shell = alice
        .ssh(Way::OneHop, &SCOPED, &target(), &[])
        .stdin("")
        .run();
    shell
        .exits(64)
        .says("is for one command, and a shell is none");
    let subsystem = ["-s", SCOPED[0], SCOPED[1]];
    let sftp = alice.ssh(Way::OneHop, &subsystem, &target(), &["sftp"]);
    sftp.stdin("")
        .run()
        .exits(64)
        .says("a subsystem like sftp is none");
    let unknown = ["-o", "SetEnv=ANTEROOM_SCOPE=everything"];
    let unknown = alice.ssh(Way::OneHop, &unknown, &target(), &["id"]).run();
    unknown.exits(64).says("is not a scope; write `command`");
    assert!(world.requests().is_empty());
}
