//! Role documents as people bring them from Teleport: each field of its role reference in each
//! version, the preset roles as they are exported, and the roles of its guides for access
//! requests. Either a document is read as it is, or the error names the one field that is not
//! served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod golden;

use std::fmt::Write as _;

use anteroom_core::documents;

const VERSIONS: [&str; 6] = ["v3", "v4", "v5", "v6", "v7", "v8"];

/// What may stand under `spec.options`.
const OPTIONS: &[&str] = &[
    "max_session_ttl: 8h",
    "max_session_ttl: 30h0m0s",
    "forward_agent: true",
    "port_forwarding: true",
    "ssh_port_forwarding: {local: {enabled: true}, remote: {enabled: false}}",
    "ssh_file_copy: false",
    "client_idle_timeout: never",
    "client_idle_timeout: 1h30m",
    "disconnect_expired_cert: no",
    "max_sessions: 10",
    "max_connections: 2",
    "max_kubernetes_connections: 1",
    "enhanced_recording: [command, network]",
    "enhanced_recording: [command, disk, network]",
    "permit_x11_forwarding: true",
    "device_trust_mode: off",
    "device_trust_mode: required",
    "require_session_mfa: false",
    "require_session_mfa: hardware_key_touch",
    "mfa_verification_interval: 30m",
    "lock: strict",
    "request_access: reason",
    "request_access: always",
    "request_prompt: Please name your ticket",
    "record_session: {default: best_effort, desktop: true, ssh: best_effort}",
    "record_session: {default: strict}",
    "desktop_clipboard: true",
    "desktop_directory_sharing: false",
    "create_desktop_user: true",
    "pin_source_ip: false",
    "cert_extensions: [{type: ssh, mode: extension, name: login@github.com, value: '{{external.github}}'}]",
    "cert_format: standard",
    "create_host_user_mode: keep",
    "create_host_user_default_shell: /bin/bash",
    "create_host_user: false",
    "create_db_user_mode: best_effort_drop",
    "create_db_user: false",
    "idp: {saml: {enabled: true}}",
    "no_such_option: true",
];

/// What may stand under `spec.allow` and under `spec.deny`.
const CONDITIONS: &[&str] = &[
    "logins: [root, '{{internal.logins}}', '{{email.local(external.email)}}']",
    "node_labels: {'*': '*'}",
    "node_labels: {env: test, region: [us-west-1, eu-central-1], reg: '^us-west-1|eu-central-1$'}",
    "node_labels: {team: '{{regexp.replace(external.team, \"^(staging)$\", \"$1\")}}'}",
    "node_labels_expression: 'labels[\"env\"] == \"staging\" || contains(user.spec.traits[\"teams\"], labels[\"team\"])'",
    "app_labels: {env: prod, cluster_name: '^us.*\\.example\\.com$'}",
    "app_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "db_labels: {env: '{{external.env}}'}",
    "db_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "db_names: ['{{external.db_names}}', '*']",
    "db_users: ['{{email.local(external.email)}}']",
    "db_roles: ['{{external.db_roles}}']",
    "db_permissions: [{match: {object_kind: [table]}, permissions: [SELECT]}]",
    "db_service_labels: {'*': '*'}",
    "db_service_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "kubernetes_labels: {env: prod, region: 'us-west-*'}",
    "kubernetes_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "kubernetes_groups: ['system:masters', '{{external.groups}}']",
    "kubernetes_users: ['IAM#{{external.foo}};']",
    "kubernetes_resources: [{kind: pod, namespace: '*', name: '*'}]",
    "kubernetes_resources: [{kind: '*', namespace: '*', name: '^nginx-[a-z0-9-]+$', verbs: ['*']}]",
    "kubernetes_resources: [{kind: deployment, namespace: prod, name: web, verbs: [get, list]}]",
    "kubernetes_resources: [{kind: deployments, api_group: apps, namespace: prod, name: web}]",
    "windows_desktop_labels: {env: [dev, staging]}",
    "windows_desktop_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "windows_desktop_logins: [Administrator, '{{internal.windows_logins}}']",
    "desktop_groups: [Users]",
    "cluster_labels: {env: prod}",
    "cluster_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "group_labels: {env: prod}",
    "group_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "workload_identity_labels: {env: prod}",
    "workload_identity_labels_expression: 'labels[\"env\"] == \"staging\"'",
    "aws_role_arns: ['arn:aws:iam::1234567890:role/ec2-read-only']",
    "azure_identities: ['{{internal.azure_identities}}']",
    "gcp_service_accounts: ['{{internal.gcp_service_accounts}}']",
    "github_permissions: [{orgs: [example]}]",
    "mcp: {tools: ['slack_*']}",
    "spiffe: [{path: /svc}]",
    "account_assignments: [{account: a, permission_set: b}]",
    "host_groups: [docker]",
    "host_sudoers: ['ALL=(root) NOPASSWD: ALL']",
    "impersonate: {users: ['*'], roles: [jenkins]}",
    "impersonate: {}",
    "namespaces: [default]",
    "require_session_join: [{name: oversight, filter: 'contains(user.spec.roles, \"auditor\")', kinds: [ssh], modes: [moderator], count: 1, on_leave: terminate}]",
    "join_sessions: [{name: oversight, roles: [prod-access], kinds: [ssh], modes: [observer]}]",
    "request: {roles: [common, 'dev-*', '^dba-.*$']}",
    "request: {roles: ['{{regexp.match(\"^dev\")}}']}",
    "request: {search_as_roles: [access]}",
    "request: {claims_to_roles: [{claim: projects, value: '^product-(.*)$', roles: ['$1-admin']}]}",
    "request: {annotations: {foo: [bar], groups: ['{{external.groups}}']}}",
    "request: {kubernetes_resources: [{kind: pods, api_group: ''}]}",
    "request: {kubernetes_resources: [{kind: pod}]}",
    "request: {thresholds: [{approve: 2, deny: 1, filter: 'contains(reviewer.roles, \"lead\")', name: leads}]}",
    "request: {max_duration: 7d}",
    "request: {suggested_reviewers: [bob]}",
    "request: {reason: {mode: required, prompt: Which ticket?}}",
    "review_requests: {roles: [dbadmin]}",
    "review_requests: {preview_as_roles: [dbadmin]}",
    "review_requests: {where: 'contains(reviewer.traits[\"team\"], \"red\")', roles: [dba]}",
    "review_requests: {claims_to_roles: [{claim: groups, value: admins, roles: ['*']}]}",
    "rules: [{resources: [role, user, token], verbs: [list, create, read, update, delete]}]",
    "rules: [{resources: [auth_connector, trusted_cluster], verbs: [list, readnosecrets]}]",
    "rules: [{resources: [session], verbs: [list, read], where: 'contains(session.participants, user.metadata.name)'}]",
    "rules: [{resources: [session_tracker], verbs: ['*'], where: '!contains(session_tracker.participants, user.metadata.name)'}]",
    "rules: [{resources: [cert_authority], verbs: [rotate]}]",
    "rules: [{resources: [cert_authority], verbs: [read], where: 'equals(system.catype(), \"host\")'}]",
    "rules: [{resources: [event], verbs: [list], actions: ['log(\"info\", \"listed\")']}]",
    "rules: [{resources: [no_such_kind], verbs: [list]}]",
];

/// What the one document comes to.
fn read(text: &str) -> String {
    match documents::parse_role(text) {
        Ok(role) => {
            let again = documents::parse_role(&role.source.to_string());
            assert_eq!(again.as_ref(), Ok(&role), "{text}");
            "read".to_owned()
        }
        Err(error) => {
            let error = error.to_string();
            // What comes before is where it is, which says nothing of a line made by a test.
            let at = error.find('`').expect(&error);
            error[at..].to_owned()
        }
    }
}

fn one_field(version: &str, place: &str, field: &str) -> String {
    let login = if field.starts_with("logins") {
        ""
    } else {
        "logins: [x], "
    };
    let spec = match place {
        "options" => format!("options: {{{field}}}"),
        side => format!("{side}: {{{login}{field}}}"),
    };
    read(&format!(
        "kind: role\nversion: {version}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n"
    ))
}

#[test]
fn every_field_of_the_role_reference_is_read_or_refused_by_name() {
    let mut out = String::new();
    for (place, fields) in [
        ("options", OPTIONS),
        ("allow", CONDITIONS),
        ("deny", CONDITIONS),
    ] {
        writeln!(out, "[spec.{place}]\n").unwrap();
        for field in fields {
            let answers = VERSIONS.map(|version| one_field(version, place, field));
            let allowed = VERSIONS.map(|version| {
                let answer = one_field(version, "allow", field);
                answer.replace("spec.allow", "spec.deny")
            });
            if place == "deny" && answers == allowed {
                // Only what differs from `allow` is worth a line.
                continue;
            }
            writeln!(out, "{field}").unwrap();
            if answers.iter().all(|answer| *answer == answers[0]) {
                writeln!(out, "    {}", answers[0]).unwrap();
                continue;
            }
            for (version, answer) in VERSIONS.iter().zip(&answers) {
                writeln!(out, "    {version}: {answer}").unwrap();
            }
        }
        out.push('\n');
    }
    golden::compare("teleport_role_fields.txt", &out);
}

/// What every exported preset carries besides what it says itself.
fn exported(name: &str, version: &str, spec: &str) -> String {
    format!(
        "kind: role
metadata:
  name: {name}
  namespace: default
  description: A preset
  id: 1717171717171717171
  revision: 5e5b2e1c-6a8e-4cf0-8a1f-9f8f8f0f3c11
  labels: {{teleport.internal/resource-type: preset}}
spec:
  deny: {{}}
  options:
    cert_format: standard
    create_db_user: false
    create_desktop_user: false
    desktop_clipboard: true
    desktop_directory_sharing: true
    enhanced_recording: [command, network]
    forward_agent: true
    idp: {{saml: {{enabled: true}}}}
    max_session_ttl: 30h0m0s
    pin_source_ip: false
    port_forwarding: true
    record_session: {{default: best_effort, desktop: true}}
    ssh_file_copy: true
  allow:
    namespaces: [default]
{spec}
version: {version}
"
    )
}

fn rules(rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().map(|(resources, verbs)| {
        format!("      - {{resources: [{resources}], verbs: [{verbs}]}}\n")
    });
    format!("    rules:\n{}", rules.collect::<String>())
}

const RW: &str = "list, create, read, update, delete";
const RO: &str = "list, read";

const ACCESS: &str = "    logins: ['{{internal.logins}}']
    node_labels: {'*': '*'}
    app_labels: {'*': '*'}
    kubernetes_labels: {'*': '*'}
    kubernetes_resources: [{kind: '*', namespace: '*', name: '*', verbs: ['*']}]
    kubernetes_groups: ['{{internal.kubernetes_groups}}']
    kubernetes_users: ['{{internal.kubernetes_users}}']
    windows_desktop_labels: {'*': '*'}
    windows_desktop_logins: ['{{internal.windows_logins}}']
    db_labels: {'*': '*'}
    db_names: ['{{internal.db_names}}']
    db_users: ['{{internal.db_users}}']
    db_roles: ['{{internal.db_roles}}']
    rules:
      - {resources: [event], verbs: [list, read]}
      - {resources: [session], verbs: [read, list], where: 'contains(session.participants, user.metadata.name)'}
      - {resources: [instance, cluster_maintenance_config], verbs: [list, read]}";

/// Each of these is added to what `access` says, as Teleport has it.
const ACCESS_ELSEWHERE: [&str; 4] = [
    "    aws_role_arns: ['{{internal.aws_role_arns}}']",
    "    azure_identities: ['{{internal.azure_identities}}']",
    "    gcp_service_accounts: ['{{internal.gcp_service_accounts}}']",
    "    db_service_labels: {'*': '*'}",
];

#[test]
fn exported_presets_and_the_roles_of_the_guides_are_read_or_name_one_field() {
    let mut out = String::new();
    let mut add = |name: &str, text: &str| writeln!(out, "{name:<34} {}", read(text)).unwrap();
    add(
        "access, for what is served",
        &exported("access", "v7", ACCESS),
    );
    for field in ACCESS_ELSEWHERE {
        let named = field.trim().split(':').next().unwrap();
        let text = exported("access", "v7", &format!("{ACCESS}\n{field}"));
        add(&format!("access, with {named}"), &text);
    }
    let editor = rules(&[
        (
            "user, role, token, db, lock, node, access_monitoring_rule",
            RW,
        ),
        (
            "bot, oidc, saml, github, trusted_cluster, remote_cluster",
            RW,
        ),
        (
            "cluster_auth_preference, session_recording_config, ui_config",
            RW,
        ),
        ("device", "list, create, create_enroll_token, enroll"),
        ("integration, security_report, audit_query", "list, use"),
        (
            "access_list, discovery_config, workload_identity, user_task",
            RW,
        ),
        (
            "autoupdate_version, autoupdate_config, static_host_user",
            RW,
        ),
    ]);
    add("editor", &exported("editor", "v7", &editor));
    let auditor = rules(&[
        (
            "session, event, session_tracker, cluster_alert, instance",
            RO,
        ),
        ("security_report, audit_query", "list, read, use"),
        ("bot_instance, notification", RO),
    ]);
    add("auditor", &exported("auditor", "v7", &auditor));
    let requester = "    request: {search_as_roles: [access]}";
    add("requester", &exported("requester", "v6", requester));
    let reviewer = "    review_requests: {preview_as_roles: [access], roles: [access]}";
    add("reviewer", &exported("reviewer", "v6", reviewer));
    for (name, version, spec) in [
        (
            "guide: one environment, one hour",
            "v5",
            "allow: {node_labels: {env: staging}, logins: ['{{internal.logins}}']}, options: {max_session_ttl: 1h}",
        ),
        (
            "guide: clusters of an environment",
            "v8",
            "allow: {kubernetes_labels: {env: staging}, kubernetes_resources: [{kind: '*', namespace: '*', name: '*', api_group: '*'}]}, deny: {}",
        ),
        (
            "guide: some pods",
            "v8",
            "allow: {kubernetes_labels: {'*': '*'}, kubernetes_resources: [{kind: pods, namespace: '*', name: 'web*', api_group: ''}], kubernetes_groups: [viewers]}",
        ),
        (
            "guide: kinds that may be asked for",
            "v8",
            "allow: {request: {search_as_roles: [kube], kubernetes_resources: [{kind: deployments, api_group: apps}, {kind: pods, api_group: ''}]}}",
        ),
        (
            "guide: a namespace object",
            "v8",
            "allow: {kubernetes_resources: [{kind: namespaces, api_group: '', name: prod, verbs: ['*']}]}",
        ),
        (
            "guide: databases",
            "v5",
            "allow: {db_labels: {env: [dev, staging]}, db_users: [viewer, editor], db_names: ['*']}",
        ),
        (
            "guide: applications but some",
            "v5",
            "allow: {app_labels: {'*': '*'}}, deny: {app_labels: {env: prod}}",
        ),
        (
            "guide: desktops",
            "v4",
            "allow: {windows_desktop_labels: {env: [dev, staging]}, windows_desktop_logins: ['{{internal.windows_logins}}']}",
        ),
        (
            "guide: a contractor",
            "v5",
            "allow: {request: {roles: [dba]}}",
        ),
        (
            "guide: a role for an hour",
            "v5",
            "options: {max_session_ttl: 1h}, allow: {db_labels: {'*': '*'}, db_names: ['*'], db_users: [viewer]}",
        ),
        (
            "reference: own sessions only",
            "v5",
            "allow: {rules: [{resources: [session], verbs: [list, read], where: 'contains(session.participants, user.metadata.name)'}]}",
        ),
        (
            "reference: own live sessions only",
            "v5",
            "allow: {rules: [{resources: [session_tracker], verbs: ['*']}]}, deny: {rules: [{resources: [session_tracker], verbs: [list, read, update, delete], where: '!contains(session_tracker.participants, user.metadata.name)'}]}",
        ),
    ] {
        let text =
            format!("kind: role\nversion: {version}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n");
        add(name, &text);
    }
    golden::compare("teleport_roles.txt", &out);
}
