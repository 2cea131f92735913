//! Conditions through the real ssh: in queries with every quoting that a shell leaves, in roles over live connections and
//! reviews.

use anteroom_tests::{Cmd, Finished, Way, World, login, request_id};

/// What a person types behind `ssh -F CONFIG access` in a shell.
fn typed(world: &World, line: &str) -> Finished {
    let config = world.person("carol").config();
    let line = format!("exec ssh -F '{}' access {line}", config.display());
    Cmd::new("sh").arg("-c").arg(line).run()
}

#[test]
fn a_query_is_understood_however_a_shell_hands_it_over() {
    let world = World::usual();
    for line in [
        r#"ls --query 'labels["env"] == "staging"'"#,
        r#"ls --query='labels["env"] == "staging"'"#,
        r#"ls --query "labels['env'] == 'staging'""#,
        r#"ls --query "labels[\"env\"] == \"staging\"" -v"#,
        // Quoted once more, as people do who know that ssh joins words.
        r#"ls --query "'labels[\"env\"] == \"staging\"'" --search iot"#,
        r#"'ls --query labels["env"] == "staging"'"#,
    ] {
        let listed = typed(&world, line);
        listed.exits(0).prints_part("iot");
        assert!(!listed.text().contains("n2"), "{line}: {listed}");
    }
    // carol is no administrator: it is read, and refused.
    typed(&world, r#"nodes ls --query 'labels.env != "prod"'"#).exits(77);
    let both = typed(
        &world,
        r#"ls --query 'name != "x" || search("- not this")' env=staging"#,
    );
    both.exits(0).prints_part("iot");
    assert!(!both.text().contains("n2"), "{both}");
    typed(&world, r#"ls env=staging --query 'name == "n2"'"#).exits(0);
    typed(&world, r#"ls --query 'lables["env"] == "staging"'"#)
        .exits(64)
        .says("`--query`: column 1: `lables` is not a name in a query; did you mean `labels`?")
        .says("  lables[\"env\"] == \"staging\"\n");
    let local = world.ctl(&["nodes", "ls", "--query", r#"labels["env"] == "staging""#]);
    local.exits(0).prints_part("iot");
    assert!(!local.text().contains("n2"), "{local}");
    let asked = world.person("alice").access(&[
        "request",
        "search",
        "--kind",
        "node",
        "--query",
        r#"hasPrefix(name, "n") && exists(labels["env"])"#,
    ]);
    let asked = asked.run();
    asked.exits(0).prints_part("n2");
    assert!(!asked.text().contains("iot"), "{asked}");
}

#[test]
fn an_expression_in_a_role_opens_one_node_and_closes_another() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v7\nmetadata: {name: not-prod}\nspec:\n  allow:\n    logins: ['{{internal.logins}}']\n    \
             node_labels_expression: |\n      labels[\"env\"] != \"prod\" &&\n      contains(user.spec.traits[\"logins\"], \"deploy\")\n",
        )
        .user("dora", "not-prod")
        .start();
    let dora = world.person("dora");
    let target = |node: &str| format!("{}@{node}", login());
    dora.ssh(Way::OneHop, &[], &target("iot"), &["echo", "in"])
        .run()
        .exits(0)
        .prints("in\n");
    dora.ssh(Way::OneHop, &[], &target("n2"), &["echo", "in"])
        .run()
        .exits(77);
    world
        .ctl(&["explain", &target("n2"), "--user", "dora"])
        .prints_part("`not-prod`: allow.node_labels_expression does not select the node: labels[\"env\"] != \"prod\" &&");
    // Whoever may not read roles is told no more than what they do.
    let told = dora.access(&["explain", &target("iot")]).run();
    told.exits(0)
        .prints_part("`not-prod`: allow.node_labels_expression selects the node\n");
    // The label changes, and with it the answer.
    world
        .ctl(&["nodes", "update", "n2", "--labels", "env=test"])
        .exits(0);
    dora.ssh(Way::OneHop, &[], &target("n2"), &["echo", "in"])
        .run()
        .exits(0);
}

#[test]
fn a_threshold_with_a_filter_waits_for_those_it_matches() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nmetadata: {name: asker}\nspec:\n  allow:\n    request:\n      search_as_roles: [access]\n      thresholds:\n        \
             - {filter: 'contains(reviewer.roles, \"auditor\")', approve: 1, deny: 1}\n---\n\
             kind: role\nmetadata: {name: only-for-work}\nspec:\n  allow:\n    review_requests:\n      roles: [access]\n      \
             where: regexp.match(request.reason, \"*work*\")\n",
        )
        .user("ada", "asker")
        .user("wendy", "only-for-work,auditor")
        .start();
    let filed = |reason: &str| {
        let created = world.person("ada").access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--reason",
            reason,
        ]);
        let created = created.run();
        request_id(&(created.text() + &created.stderr))
    };
    let review = |who: &str, id: &str| {
        world
            .person(who)
            .access(&["request", "review", id, "--approve"])
            .run()
    };
    let fun = filed("fun");
    review("wendy", &fun).exits(77);
    // An equal request would join the pending one.
    world
        .person("ada")
        .access(&["request", "cancel", &fun])
        .run()
        .exits(0);
    let id = filed("work");
    review("bob", &id).exits(0);
    assert_eq!(world.state(&id), "PENDING", "bob is no auditor");
    assert_eq!(world.request(&id)["reviews"][0]["counted"], false);
    review("wendy", &id).exits(0);
    assert_eq!(world.state(&id), "APPROVED");
}
