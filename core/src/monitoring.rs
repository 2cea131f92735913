//! Access monitoring rules: what reviews requests by itself, and when.
//!
//! A rule is a condition on a request, a verdict, and the hours in which it speaks. Everything here
//! is a pure function of a rule and an instant; giving the review is for
//! [`crate::request::review_automatically`], which counts it as one person's.

use std::collections::BTreeSet;

use crate::id::{RuleName, UserName};

/// An access monitoring rule, parsed and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitoringRule {
    /// Unique in the cluster.
    pub name: RuleName,
    /// Everybody who wrote it since it was made. It never reviews what was filed for one of them:
    /// nobody reviews a request of their own, by a rule neither.
    pub authors: BTreeSet<UserName>,
}
