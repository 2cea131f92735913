//! How long a request may stay pending, what it grants may last, and a session under it.

use time::{Duration, OffsetDateTime};

use crate::policy::asking::RequestTerms;
use crate::policy::subject::Subject;
use crate::role::{DurationFrom, Role};

use super::choice::Chosen;
use super::{FilingError, Wanted};

/// The arithmetic of REQUESTS section 4.
pub(super) struct Times {
    pub(super) session_ttl: Duration,
    pub(super) duration: Duration,
    pub(super) max_duration: Option<Duration>,
    pub(super) duration_from: DurationFrom,
    pub(super) request_expires: OffsetDateTime,
    pub(super) access_expires: OffsetDateTime,
}

impl Times {
    pub(super) fn new(
        subject: &Subject<'_>,
        choice: &Chosen,
        terms: &RequestTerms<'_>,
        wanted: &Wanted,
        now: OffsetDateTime,
    ) -> Result<Self, FilingError> {
        let settings = subject.view.settings();
        let requested = choice
            .roles
            .iter()
            .filter_map(|name| subject.view.role(name));
        let roles = subject.stored().chain(requested.map(AsRef::as_ref));
        let role_ttl = roles
            .filter_map(|role: &Role| role.options.max_session_ttl)
            .min();
        let rest = subject.certificate_rest();
        let session_ttl = [rest, wanted.session_ttl, role_ttl]
            .into_iter()
            .fold(settings.session_ttl, |ttl, limit| {
                limit.map_or(ttl, |limit| ttl.min(limit))
            });
        // They are stored in whole seconds, and memory is to hold what the disk holds. Nothing else than
        // the rest of a certificate has parts of one.
        let session_ttl = Duration::seconds(session_ttl.whole_seconds());
        if !session_ttl.is_positive() {
            return Err(FilingError::CertificateEnding);
        }
        let limit = terms.max_duration.unwrap_or(session_ttl);
        let duration = wanted
            .max_duration
            .map_or(limit, |wanted| wanted.min(limit));
        let duration_from = terms
            .sources
            .iter()
            .filter_map(|role| role.allow.request.duration_from)
            .min();
        let duration_from = duration_from.unwrap_or_default();
        let access_expires = now + duration;
        let ttl = wanted
            .request_ttl
            .map_or(settings.request_ttl, |w| w.min(settings.request_ttl));
        let request_expires = match duration_from {
            DurationFrom::Creation => (now + ttl).min(access_expires),
            // The access would end so much after whichever instant it is approved at.
            DurationFrom::Approval => now + ttl,
        };
        match (wanted.assume_start, duration_from) {
            (Some(start), DurationFrom::Creation) if start >= access_expires => {
                Err(FilingError::StartsAfterEnd {
                    start,
                    end: access_expires,
                })
            }
            (Some(_) | None, DurationFrom::Creation | DurationFrom::Approval) => Ok(Self {
                session_ttl,
                duration,
                // What is shown is what is given, whatever was wished for.
                max_duration: terms.max_duration.or(wanted.max_duration).map(|_| duration),
                duration_from,
                request_expires,
                access_expires,
            }),
        }
    }
}
