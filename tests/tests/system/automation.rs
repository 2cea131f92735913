//! What scripts rely on: documents that may be applied again, and the inventory for Ansible.

use std::path::Path;

use anteroom_tests::{Cmd, World, login, need};

#[test]
fn a_file_that_is_applied_again_changes_nothing_and_says_so() {
    let world = World::usual();
    let node = "kind: node\nmetadata: {name: db1, labels: {env: prod}}\nspec: {addr: '192.0.2.7:22', host_ca: true}\n";
    let role = "---\nkind: role\nmetadata: {name: dba}\nspec: {allow: {logins: [postgres]}}\n";
    let both = format!("{node}{role}");
    world.create(&both).exits(0);
    let logged = world.audit().len();
    let id = |world: &World| {
        world
            .ctl(&["nodes", "show", "db1", "--format", "json"])
            .json()["id"]
            .clone()
    };
    let before = id(&world);
    let (once, again) = (world.create(node), world.replace(&both));
    for (said, times) in [(once, 1), (again, 2)] {
        said.exits(0);
        let text = said.text();
        assert!(text.contains("node `db1`"), "{text}");
        assert_eq!(text.matches(" unchanged").count(), times, "{text}");
    }
    // A user who is the same keeps her keys.
    let carol = world.ctl(&["get", "user/carol", "--format", "yaml"]).text();
    let same = world.replace(&carol);
    same.exits(0);
    assert!(same.text().contains("unchanged"), "{same}");
    assert_eq!(world.audit().len(), logged);
    world.person("carol").access(&["whoami"]).run().exits(0);
    assert_eq!(id(&world), before);

    // Another one under that name is refused, or replaces it and keeps its UUID.
    let other = node.replace("192.0.2.7", "192.0.2.8");
    world.create(&other).exits(1);
    let replaced = world.replace(&other);
    replaced.exits(0);
    assert!(replaced.text().contains("replaced"), "{replaced}");
    assert_eq!(id(&world), before);

    // Of two nodes of one name none is meant.
    let second = ["nodes", "add", "db1", "--addr", "192.0.2.9:22", "--host-ca"];
    world.ctl(&second).exits(0);
    for again in [world.create(&other), world.replace(&other)] {
        again.exits(1);
        again.says("already exists with UUID");
    }
}

#[test]
fn the_inventory_is_read_by_ansible_and_its_hosts_are_reached() {
    for program in ["ansible", "ansible-inventory"] {
        need(program);
    }
    let world = World::usual();
    let carol = world.person("carol");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/inventory/anteroom.py");
    let config = carol.config().display().to_string();
    let access = format!("ssh -F {config} access");
    let listed = Cmd::new("ansible-inventory")
        .arg("-i")
        .arg(&script)
        .arg("--list")
        .env("ANTEROOM_SSH", &access)
        .run();
    listed.exits(0);
    let inventory = listed.json();
    assert_eq!(inventory["env_staging"]["hosts"][0], "iot", "{inventory}");
    assert_eq!(inventory["env_prod"]["hosts"][0], "n2", "{inventory}");
    let vars = &inventory["_meta"]["hostvars"]["iot"];
    assert_eq!(vars["anteroom_id"], *world.node("iot").uuid);
    assert_eq!(vars["anteroom_labels"]["env"], "staging");

    // Narrowed to one, and reached through the proxy that it names.
    let target = Cmd::new("ansible")
        .args(["-i"])
        .arg(&script)
        .args([
            "env_staging",
            "-m",
            "raw",
            "-a",
            "echo reached",
            "-u",
            &login(),
        ])
        .env("ANTEROOM_SSH", &access)
        .env("ANTEROOM_QUERY", "env=staging")
        .env("ANSIBLE_SSH_ARGS", format!("-F {config}"))
        .env(
            "ANSIBLE_HOME",
            world.path("ansible-home").display().to_string(),
        )
        .run();
    target.exits(0);
    assert!(target.text().contains("reached"), "{target}");
}
