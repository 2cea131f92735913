//! Access monitoring rules with the real ssh and a stock sshd.

use anteroom_tests::{Way, World, login};

const NOT_WAITING: [&str; 2] = ["-o", "SetEnv=ANTEROOM_WAIT=0"];

fn rule(name: &str, condition: &str, decision: &str) -> String {
    format!(
        "kind: access_monitoring_rule\nversion: v1\nmetadata: {{name: {name}}}\nspec:\n  \
         subjects: [access_request]\n  condition: '{condition}'\n  desired_state: reviewed\n  \
         automatic_review: {{integration: builtin, decision: {decision}}}\n"
    )
}

fn remove_live(world: &World) {
    for request in world.requests() {
        let id = request["id"].as_str().unwrap_or_default();
        match world.state(id).as_str() {
            // Denied, the next connection would hear of it.
            "PENDING" => {
                let alice = world.person("alice");
                alice.access(&["request", "cancel", id]).run().exits(0);
            }
            "APPROVED" => {
                world.ctl(&["requests", "rm", id]).exits(0);
            }
            _ => {}
        }
    }
}

#[test]
fn a_rule_lets_in_at_once_outside_its_condition_one_waits_and_a_denying_one_wins() {
    let world = World::usual();
    let alice = world.person("alice");
    let target = format!("{}@iot", login());
    let env = |value: &str| {
        format!("access_request.spec.resource_labels_intersection[\"env\"].contains(\"{value}\")")
    };
    world
        .create(&rule("quiet", &env("production"), "APPROVED"))
        .exits(0);
    let ssh = |way| alice.ssh(way, &NOT_WAITING, &target, &["echo in"]).run();
    ssh(Way::OneHop).exits(75).prints("");
    remove_live(&world);
    world
        .create(&rule("staging", &env("staging"), "APPROVED"))
        .exits(0);
    for way in Way::BOTH {
        ssh(way).exits(0).prints("in\n");
    }
    remove_live(&world);
    world.create(&rule("never", "true", "DENIED")).exits(0);
    for way in Way::BOTH {
        ssh(way).exits(77).prints("").says("@never");
    }
}
