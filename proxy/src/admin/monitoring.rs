//! Access monitoring rules as listings show them.

use std::sync::Arc;

use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::view::View;
use time::OffsetDateTime;

use crate::say::{self, Table};

/// The rule of that name, or all.
pub(crate) fn named(view: &View, name: Option<&str>) -> Vec<Arc<MonitoringRule>> {
    let rules = view.monitoring_rules();
    rules
        .filter(|rule| name.is_none_or(|name| rule.name.as_str() == name))
        .map(Arc::clone)
        .collect()
}

/// What they say, whether they say it now, and for whom they never do.
pub(crate) fn rules_text(rules: &[Arc<MonitoringRule>], now: OffsetDateTime) -> String {
    let mut table = Table::new(["Rule", "Decision", "Now", "Written By", "Condition"]);
    for rule in rules {
        let in_effect = match (&rule.unreadable, rule.is_in_effect(now)) {
            (Some(_), _) => "unreadable",
            (None, true) => "in effect",
            (None, false) => "off hours",
        };
        let authors: Vec<&str> = rule.authors.iter().map(|name| name.as_str()).collect();
        table.row([
            rule.name.as_str(),
            rule.decision.as_str(),
            in_effect,
            &authors.join(","),
            &say::cut(rule.condition.as_str(), 60),
        ]);
    }
    table.to_string()
}
