//! What time alone changes: requests and accesses that are over, locks, pre-approvals and tokens that end.
//! It is written down with the next transaction; a decision looks at the time itself.

use anteroom_core::id::RequestId;
use anteroom_core::request::{self, AccessRequest, Action, Actor, State as RequestState};
use time::OffsetDateTime;

use super::{Draft, News};
use crate::audit::{Entry, Event, PROXY};
use crate::state::about_request;
use crate::state::allowances::let_allowances_end;
use crate::state::locks::about_lock;
use crate::state::tokens::let_tokens_end;

impl Draft {
    /// Writes down what time alone has changed.
    pub(in crate::state) fn let_time_pass(&mut self, due: impl IntoIterator<Item = RequestId>) {
        self.let_locks_end();
        let_allowances_end(self);
        let_tokens_end(self);
        for id in due {
            // Touched in any case, so that its next deadline is worked out.
            self.touched.push(id);
            self.news = News::Look;
            let Some(request) = self.view.request(&id).cloned() else {
                continue;
            };
            if is_over(&request, self.now) {
                self.expire(&request);
            }
        }
    }

    /// Removes locks that have ended. Nothing hangs on it: a decision looks at the time itself.
    fn let_locks_end(&mut self) {
        for id in self.view.locks().ended(self.now) {
            let Some(lock) = self.view.locks().get(&id).cloned() else {
                continue;
            };
            let entry = about_lock(Entry::new(Event::LockDelete), &lock);
            self.log(entry.user(PROXY).reason("its time is over"));
            self.remove_lock(id);
        }
    }

    fn expire(&mut self, request: &AccessRequest) {
        match request::apply(request, &Action::Expire, &Actor::Clock, self.now) {
            Ok(expired) => {
                let was = match request.state {
                    RequestState::Pending => "nobody decided in time",
                    RequestState::Approved => "the access has ended",
                    RequestState::Denied
                    | RequestState::Expired
                    | RequestState::Canceled
                    | RequestState::Revoked => "it was over",
                };
                self.log(about_request(Event::AccessRequestExpire, &expired).reason(was));
                self.update_request(expired, request.state);
            }
            Err(error) => tracing::error!(request = %request.id, %error, "request does not expire"),
        }
    }
}

/// Whether its time has run out: as `deadline` says, but for the beginning of an access.
fn is_over(request: &AccessRequest, now: OffsetDateTime) -> bool {
    match request.state {
        RequestState::Pending => request.request_expires <= now,
        RequestState::Approved => request.access_expires <= now,
        RequestState::Denied
        | RequestState::Expired
        | RequestState::Canceled
        | RequestState::Revoked => false,
    }
}
