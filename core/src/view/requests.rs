//! The access requests of a view, by ID, and of each user the live ones.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use crate::id::{RequestId, UserName};
use crate::request::AccessRequest;

use super::View;

#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    pub(super) by_id: OrdMap<RequestId, Arc<AccessRequest>>,
    // Pending and approved ones only: a decision looks at each of them, and a person's past grows.
    pub(super) live_of: OrdSet<(UserName, RequestId)>,
}

impl Requests {
    fn remove(&mut self, id: &RequestId) {
        if let Some(old) = self.by_id.remove(id) {
            self.live_of.remove(&(old.user.clone(), *id));
        }
    }
}

/// Why a short request ID did not find one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindRequestError {
    /// Shorter than four characters, or not the start of a UUID.
    #[error("`{0}` is not a request ID; write the ID or at least its first 4 characters")]
    Malformed(String),
    /// No request starts like this.
    #[error("there is no request `{0}`; `request ls` shows those you may see")]
    Unknown(String),
    /// Several do.
    #[error("`{prefix}` is the start of {count} request IDs; write more of it")]
    Ambiguous {
        /// As it was written.
        prefix: String,
        /// How many.
        count: usize,
    },
}

impl View {
    /// The request of that ID.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<&Arc<AccessRequest>> {
        self.requests.by_id.get(id)
    }

    /// The one request whose ID starts with `prefix`, of those that `visible` lets the asker see:
    /// what one may not see makes nothing ambiguous.
    ///
    /// # Errors
    /// [`FindRequestError`] if there is none, or several, or the prefix is too short.
    pub fn find_request(
        &self,
        prefix: &str,
        visible: impl Fn(&AccessRequest) -> bool,
    ) -> Result<&Arc<AccessRequest>, FindRequestError> {
        let shown = || crate::id::printable(prefix);
        let plausible = prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if prefix.len() < 4 || !plausible {
            return Err(FindRequestError::Malformed(shown()));
        }
        let least = least_with_prefix(prefix);
        let mut found = least
            .into_iter()
            .flat_map(|least| self.requests.by_id.range(least..))
            .map(|(_, request)| request)
            .take_while(|request| request.id.to_string().starts_with(prefix))
            .filter(|request| visible(request));
        let first = found
            .next()
            .ok_or_else(|| FindRequestError::Unknown(shown()))?;
        match found.count() {
            0 => Ok(first),
            more => Err(FindRequestError::Ambiguous {
                prefix: shown(),
                count: more + 1,
            }),
        }
    }

    /// All requests in whatever state, in the order of their IDs.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<AccessRequest>> {
        self.requests.by_id.values()
    }

    /// The pending and approved requests of a user, in the order of their IDs.
    pub fn live_requests_of(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = &Arc<AccessRequest>> + use<'_> {
        let first = (user.clone(), RequestId::from_uuid(Uuid::nil()));
        let last = (user.clone(), RequestId::from_uuid(Uuid::max()));
        self.requests
            .live_of
            .range(first..=last)
            .filter_map(|(_, id)| self.request(id))
    }

    /// Adds or replaces a request.
    #[must_use]
    pub fn with_request(self, request: AccessRequest) -> Self {
        self.with_requests([request])
    }

    /// Adds or replaces requests.
    #[must_use]
    pub fn with_requests(mut self, requests: impl IntoIterator<Item = AccessRequest>) -> Self {
        let map = &mut self.requests;
        for request in requests {
            map.remove(&request.id);
            if request.state.is_live() {
                map.live_of.insert((request.user.clone(), request.id));
            }
            map.by_id.insert(request.id, Arc::new(request));
        }
        self
    }

    /// Removes a request, if it is there.
    #[must_use]
    pub fn without_request(mut self, id: &RequestId) -> Self {
        self.requests.remove(id);
        self
    }
}

/// The least request ID that starts with `prefix`; `None` if no ID can.
fn least_with_prefix(prefix: &str) -> Option<RequestId> {
    let rest = NIL_ID.get(prefix.len()..)?;
    RequestId::parse(&format!("{prefix}{rest}")).ok()
}

const NIL_ID: &str = "00000000-0000-0000-0000-000000000000";
