//! What a wish is held to before anything is looked up: lengths, numbers, the one command and the start.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::request::{Annotations, Reach, Scope};
use crate::view::Settings;

use super::{FilingError, Wanted};

/// The most reviewers a request may suggest: each is told, so this bounds what one person sets off.
const REVIEWERS_LIMIT: usize = 20;

pub(super) fn check_limits(wanted: &Wanted, settings: &Settings) -> Result<(), FilingError> {
    if wanted.reason.len() > settings.reason_bytes {
        return Err(FilingError::ReasonTooLong {
            bytes: wanted.reason.len(),
            limit: settings.reason_bytes,
        });
    }
    if wanted.reviewers.len() > REVIEWERS_LIMIT {
        return Err(FilingError::TooManyReviewers {
            count: wanted.reviewers.len(),
            limit: REVIEWERS_LIMIT,
        });
    }
    let count = wanted.reach.resources().count();
    if count > settings.resources_per_request {
        return Err(FilingError::TooManyResources {
            count,
            limit: settings.resources_per_request,
        });
    }
    let bytes = wanted
        .reach
        .resources()
        .map(|id| id.to_string().len())
        .sum();
    if bytes > settings.resource_bytes {
        return Err(FilingError::ResourcesTooLong {
            bytes,
            limit: settings.resource_bytes,
        });
    }
    Ok(())
}

/// The most that roles may write on one request, names and values together, in bytes: traits with
/// very many values would make every listing of requests carry them.
const ANNOTATION_BYTES: usize = 32 * 1024;

pub(super) fn check_annotations(annotations: &Annotations) -> Result<(), FilingError> {
    let values = |values: &BTreeSet<String>| values.iter().map(String::len).sum::<usize>();
    let entry = |(key, of): (&String, &BTreeSet<String>)| key.len() + values(of);
    let bytes: usize = annotations.iter().map(entry).sum();
    if bytes > ANNOTATION_BYTES {
        return Err(FilingError::AnnotationsTooLong {
            bytes,
            limit: ANNOTATION_BYTES,
        });
    }
    Ok(())
}

pub(super) fn check_scope(wanted: &Wanted) -> Result<(), FilingError> {
    let Some(command) = wanted.scope.command() else {
        return Ok(());
    };
    let (bytes, limit) = (command.len(), Scope::COMMAND_LIMIT);
    if bytes > limit || command.trim().is_empty() || command.contains('\0') {
        return Err(FilingError::ScopeCommand { bytes, limit });
    }
    match wanted.reach {
        Reach::Roles => Err(FilingError::ScopeWithoutResource),
        Reach::Resources(_) => Ok(()),
    }
}

pub(super) fn check_start(
    wanted: &Wanted,
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<(), FilingError> {
    let Some(start) = wanted.assume_start else {
        return Ok(());
    };
    if start < now {
        return Err(FilingError::StartInPast { start, now });
    }
    if start - now > settings.assume_start_ahead {
        return Err(FilingError::StartTooFar {
            start,
            limit: settings.assume_start_ahead,
        });
    }
    Ok(())
}
