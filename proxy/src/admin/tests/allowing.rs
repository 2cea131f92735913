//! Pre-approvals, as people see them.

use super::transcripts::Transcript;
use super::*;

#[tokio::test]
async fn what_is_approved_in_advance() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let given = "request allow --user alice --labels env=staging --for 8h";
    t.add("bob", &format!("{given} --reason 'on call tonight'"))
        .await;
    t.add("bob", "request allows ls").await;
    t.add("alice", "request allows ls --format json").await;
    t.add("carol", "request allows ls").await;
    t.add("alice", "request create --resource root@iot --dry-run")
        .await;
    t.add("alice", "request create --resource root@iot --nowait")
        .await;
    t.add("alice", "request create --resource root@iot --nowait")
        .await;
    t.add("alice", "request create --resource root@n2 --dry-run")
        .await;
    t.add("alice", "request ls").await;
    let id = world.allowance();
    t.add("alice", &format!("request allows rm {id}")).await;
    t.add("carol", &format!("request allows rm {id}")).await;
    t.add("bob", &format!("request allows rm {}", &id[..8]))
        .await;
    t.add("bob", &format!("request allows rm {id}")).await;
    t.add("alice", "request create --resource deploy@iot --nowait")
        .await;
    t.add("bob", &format!("{given} --logins deploy --format yaml"))
        .await;
    t.add("ctl", "request allows ls").await;
    t.add("erin", "audit ls --event pre_approval.create").await;
    t.compare("pre_approvals.txt");
}

#[tokio::test]
async fn what_cannot_be_approved_in_advance() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    for line in [
        "request allow",
        "request allow --user alice --for 8h",
        "request allow --user alice --labels env=staging",
        "request allow --user alice --labels env=staging --for 15d",
        "request allow --user alice --labels env=staging --for -1h",
        "request allow --user alice --labels env --for 8h",
        "request allow --user alice --labels 'env=*' --for 8h",
        "request allow --user alice --labels 'env=^st' --for 8h",
        "request allow --user alice --labels env=staging,env=prod --for 8h",
        "request allow --user alice --roles access --logins root --for 8h",
        "request allow --user bob --labels env=staging --for 8h",
        "request allow --user nosuch --labels env=staging --for 8h",
        "request allow --user carol --labels env=staging --for 8h",
        "request allow --user alice --roles editor --for 8h",
        "request allow --user alice --labels env=staging --roles nosuch --for 8h",
        "request allows",
        "request allows rm abc",
        "request allows rm abcd",
    ] {
        t.add("bob", line).await;
    }
    for who in ["alice", "carol", "ada", "ctl"] {
        t.add(
            who,
            "request allow --user erin --labels env=staging --for 8h",
        )
        .await;
    }
    t.compare("pre_approvals_refused.txt");
    assert!(world.ctx.state.view().allowances().next().is_none());
}

#[tokio::test]
async fn a_dry_run_foretells_a_rule() {
    let world = world().await;
    for (decision, said) in [("APPROVED", "approved"), ("DENIED", "denied")] {
        let rule = format!(
            "{{kind: access_monitoring_rule, version: v1, metadata: {{name: day}}, spec: {{subjects: \
             [access_request], condition: 'true', desired_state: reviewed, automatic_review: \
             {{integration: builtin, decision: {decision}}}}}}}"
        );
        world.says_to("erin", "create --force -f -", &rule).await;
        let said_of_it = world
            .says("alice", "request create --resource iot --dry-run")
            .await;
        assert_eq!(
            said_of_it.err,
            format!(
                "It would be {said} at once by access monitoring rule `day`.\nDry run: nothing was filed.\n"
            )
        );
        assert!(said_of_it.out.contains(&format!("Status:      {decision}")));
        assert_eq!(world.requests(), 0);
    }
}

impl World {
    fn allowance(&self) -> String {
        let view = self.ctx.state.view();
        view.allowances().next().unwrap().id.to_string()
    }
}
