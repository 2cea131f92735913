//! `kind: access_monitoring_rule`.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::RuleName;
use crate::monitoring::{Clock, Decision, MOST_SCHEDULES, MonitoringRule, Schedule, Shift};

use super::at::{At, Fields, Map};
use super::tree::Yaml;
use super::{DocumentProblem, Mistake};

const METADATA: Fields = Fields {
    served: &["name", "description"],
    teleport: &["expires", "id", "labels", "namespace", "revision"],
    later: &[],
    only_allow: &[],
};

const SPEC: Fields = Fields {
    served: &[
        "subjects",
        "condition",
        "desired_state",
        "automatic_review",
        "schedules",
    ],
    teleport: &["notification", "states"],
    later: &[],
    only_allow: &[],
};

const REVIEW: Fields = Fields {
    served: &["integration", "decision"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const SCHEDULE: Fields = Fields {
    served: &["time"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const TIME: Fields = Fields {
    served: &["timezone", "shifts"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const SHIFT: Fields = Fields {
    served: &["weekday", "start", "end"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

/// Reads a rule; `top` is the checked top level of `tree`. Who wrote it is written where it is
/// stored.
pub(super) fn read(top: &Map<'_>, tree: &Yaml) -> Result<MonitoringRule, Mistake> {
    const NAME: &str = "write `metadata:` and below it `name:`";
    const HINT: &str = "a rule has `subjects`, `condition`, `desired_state` and `automatic_review`";
    let metadata = top.required("metadata", NAME)?.map(&METADATA)?;
    let name = metadata.required("name", NAME)?.parsed(RuleName::parse)?;
    let description = metadata.text("description")?;
    let spec = top.required("spec", HINT)?.map(&SPEC)?;
    read_subjects(&spec.required("subjects", "write `subjects: [access_request]`")?)?;
    let condition = spec.required(
        "condition",
        "write which requests the rule reviews; `\"true\"` is all of them",
    )?;
    let condition = condition.condition()?.into();
    let state = spec.required("desired_state", "write `desired_state: reviewed`")?;
    state.word(&["reviewed"])?;
    const REVIEW_HINT: &str = "write `{integration: builtin, decision: APPROVED}`, or DENIED";
    let review = spec.required("automatic_review", REVIEW_HINT)?;
    let review = review.map(&REVIEW)?;
    let integration = review.required("integration", REVIEW_HINT)?;
    integration.word(&["builtin"])?;
    let decision = review.required("decision", REVIEW_HINT)?;
    let decision = match decision.word(&["APPROVED", "DENIED"])? {
        "APPROVED" => Decision::Approved,
        _ => Decision::Denied,
    };
    Ok(MonitoringRule {
        name,
        description,
        condition,
        decision,
        schedules: match spec.get("schedules") {
            Some(at) => read_schedules(&at)?,
            None => BTreeMap::new(),
        },
        source: tree.to_json(),
        authors: BTreeSet::new(),
        unreadable: None,
    })
}

fn read_subjects(at: &At<'_>) -> Result<(), Mistake> {
    let subjects = at.list()?;
    if subjects.is_empty() {
        return Err(missing(at, "write `[access_request]`"));
    }
    for subject in subjects {
        subject.word(&["access_request"])?;
    }
    Ok(())
}

fn read_schedules(at: &At<'_>) -> Result<BTreeMap<String, Schedule>, Mistake> {
    let entries = at.entries()?;
    if entries.is_empty() {
        // Nothing may be taken for never, and would be for always.
        return Err(missing(at, "name a schedule, or leave `schedules` out"));
    }
    not_too_many(at, entries.len(), "schedules")?;
    let mut schedules = BTreeMap::new();
    for (name, schedule) in entries {
        schedules.insert(name.to_owned(), read_schedule(&schedule)?);
    }
    Ok(schedules)
}

fn read_schedule(at: &At<'_>) -> Result<Schedule, Mistake> {
    const HINT: &str = "write `time: {timezone: Europe/Berlin, shifts: [...]}`";
    const SHIFTS: &str = "write `- {weekday: Monday, start: \"09:00\", end: \"17:00\"}`";
    let time = at.map(&SCHEDULE)?.required("time", HINT)?.map(&TIME)?;
    let shifts_at = time.required("shifts", SHIFTS)?;
    let shifts = shifts_at.list()?;
    if shifts.is_empty() {
        return Err(missing(&shifts_at, SHIFTS));
    }
    not_too_many(&shifts_at, shifts.len(), "shifts")?;
    let shifts = shifts.iter().map(read_shift).collect::<Result<_, _>>()?;
    let Some(zone) = time.get("timezone") else {
        return Schedule::new("UTC", shifts).map_err(|_| missing(at, HINT));
    };
    let name = zone.text()?;
    Schedule::new(name, shifts).map_err(|_| {
        zone.mistake(DocumentProblem::Value {
            field: zone.path(),
            value: crate::id::printable(name),
            wanted: "the name of a time zone, like Europe/Berlin or UTC".to_owned(),
        })
    })
}

fn read_shift(at: &At<'_>) -> Result<Shift, Mistake> {
    const HINT: &str = "a shift has `weekday`, `start` and `end`";
    let shift = at.map(&SHIFT)?;
    let weekday = shift.required("weekday", HINT)?.word(&Shift::WEEKDAYS)?;
    let start = read_clock(&shift.required("start", HINT)?)?;
    let end_at = shift.required("end", HINT)?;
    let end = read_clock(&end_at)?;
    Shift::new(weekday, start, end).ok_or_else(|| {
        end_at.mistake(DocumentProblem::Value {
            field: end_at.path(),
            value: end_at.text().map(crate::id::printable).unwrap_or_default(),
            wanted: "a time after `start`; a night is two shifts, one to \"24:00\" and one of the \
                     next day from \"00:00\""
                .to_owned(),
        })
    })
}

fn read_clock(at: &At<'_>) -> Result<Clock, Mistake> {
    let text = at.text()?;
    Clock::parse(text).ok_or_else(|| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: "a time in quotes from \"00:00\" to \"24:00\"".to_owned(),
        })
    })
}

fn missing(at: &At<'_>, hint: &'static str) -> Mistake {
    at.mistake(DocumentProblem::Missing {
        field: at.path(),
        hint,
    })
}

fn not_too_many(at: &At<'_>, count: usize, what: &str) -> Result<(), Mistake> {
    if count <= MOST_SCHEDULES {
        return Ok(());
    }
    Err(at.mistake(DocumentProblem::TooMuch {
        field: at.path(),
        value: format!("{count} {what} long"),
        limit: MOST_SCHEDULES.to_string(),
    }))
}
