//! Access monitoring rules, as people see them.

use super::transcripts::Transcript;
use super::*;

const RULE: &str = "kind: access_monitoring_rule
version: v1
metadata: {name: staging, description: staging is open}
spec:
  subjects: [access_request]
  condition: 'access_request.spec.resource_labels_intersection[\"env\"].contains(\"staging\")'
  desired_state: reviewed
  automatic_review: {integration: builtin, decision: APPROVED}
";

#[tokio::test]
async fn access_monitoring_rules() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    t.add("erin", "get access_monitoring_rules --format text")
        .await;
    t.add_to("alice", "create -f -", RULE).await;
    t.add_to("erin", "create -f -", RULE).await;
    t.add_to("erin", "create -f -", RULE).await;
    t.add("erin", "get access_monitoring_rules --format text")
        .await;
    t.add("erin", "get access_monitoring_rule/staging").await;
    t.add("alice", "get access_monitoring_rule/staging").await;
    t.add("alice", "request create --resource iot --nowait")
        .await;
    t.add("alice", "request ls").await;
    t.add("alice", "rm access_monitoring_rule/staging").await;
    t.add("erin", "rm access_monitoring_rule/staging").await;
    t.add("erin", "rm access_monitoring_rule/staging").await;
    t.compare("access_monitoring_rules.txt");
}
