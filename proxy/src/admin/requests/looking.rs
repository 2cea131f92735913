//! `request ls` and `request show`: who sees which requests, and how they are listed.

use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb, allowed};
use anteroom_core::id::{ResourceId, UserName};
use anteroom_core::policy::{self, Preview};
use anteroom_core::request::{AccessRequest, State as RequestState, may_review};
use anteroom_core::view::View;
use time::OffsetDateTime;

use super::{RequestRow, strings};
use crate::admin::args::{Format, OneRequest, RequestLs};
use crate::admin::io::{Caller, CommandIo};
use crate::admin::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, RequestBlock, Table};

/// The columns that a list of resources may take in `request ls`.
const RESOURCES_WIDTH: usize = 27;

/// The width of the nodes' names behind them.
const NAMES_WIDTH: usize = 20;

/// The most requests a listing reads from the database; older ones are found by their ID.
const MOST_LISTED: i64 = 10_000;

impl<I: CommandIo> Run<'_, I> {
    /// Whether the caller may see the request: her own, those she may review, and all for administrators of requests.
    fn sees(&self, view: &View, request: &AccessRequest) -> bool {
        let Some(user) = self.user() else { return true };
        request.user == *user
            || may_review(view, user, request).is_ok()
            || allowed(
                view,
                user,
                AdminVerb::Read,
                AdminObject::AccessRequest(request),
            )
    }

    pub(crate) async fn request_ls(&mut self, args: &RequestLs) -> Ended {
        let view = self.ctx.state.view();
        let all = self.all_requests().await?;
        let user = self.user();
        let shown = all.into_iter().filter(|request| {
            let reviewable = || {
                request.state == RequestState::Pending
                    && user.is_none_or(|user| {
                        may_review(&view, user, request).is_ok() && !reviewed_by(request, user)
                    })
            };
            self.sees(&view, request)
                && (!args.mine || user.is_some_and(|user| request.user == *user))
                && (!args.reviewable || reviewable())
                && (!args.suggested
                    || user.is_some_and(|user| request.suggested_reviewers.contains(user)))
                && (args.state.is_empty() || args.state.contains(&request.state))
        });
        let shown: Vec<_> = shown.collect();
        self.list_requests(&shown, args.listing.format).await
    }

    /// Newest first, then by ID.
    pub(crate) async fn all_requests(&self) -> Result<Vec<Arc<AccessRequest>>, Stop> {
        let view = self.ctx.state.view();
        let mut all: Vec<Arc<AccessRequest>> = Vec::new();
        for stored in self.ctx.state.reader().requests(MOST_LISTED).await? {
            // What memory holds was committed later or at the same time.
            all.push(
                view.request(&stored.id)
                    .map_or_else(|| Arc::new(stored), Arc::clone),
            );
        }
        all.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(all)
    }

    pub(crate) async fn list_requests(
        &mut self,
        requests: &[Arc<AccessRequest>],
        format: Format,
    ) -> Ended {
        let rows: Vec<RequestRow> = requests
            .iter()
            .map(|request| RequestRow::new(request).waited_for(self.waiting_for(request)))
            .collect();
        let (channel, view) = (self.channel(), self.ctx.state.view());
        self.listing(format, &rows, || {
            request_table(&view, requests, channel.prefix())
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn request_show(&mut self, args: &OneRequest) -> Ended {
        let request = self.find_request(&args.id).await?;
        if self.user() == Some(&request.user) && !request.state.is_live() {
            self.ctx.waiting.heard(request.id);
        }
        self.show_request(&request, args.listing.format).await
    }

    /// How many connections wait for it; said of what may still be answered only.
    fn waiting_for(&self, request: &AccessRequest) -> Option<u32> {
        let pending = request.state == RequestState::Pending;
        pending.then(|| self.ctx.waiting.count(request.id))
    }

    pub(crate) async fn show_request(&mut self, request: &AccessRequest, format: Format) -> Ended {
        let view = self.ctx.state.view();
        let waiting = self.waiting_for(request);
        let previews = self.previews(&view, request);
        let row = RequestRow::new(request)
            .waited_for(waiting)
            .previewed(&previews);
        let block = RequestBlock {
            waiting,
            labels: previews.iter().map(say::labels_of).collect(),
            ..RequestBlock::of(&view, request)
        };
        self.listing(format, &row, || block.render()).await?;
        Ok(Exit::Done)
    }

    /// The resources whose labels the caller may see; she who asks knows what she asks for.
    fn previews(&self, view: &View, request: &AccessRequest) -> Vec<Preview> {
        match self.caller {
            Caller::Ssh { identity, .. } if *identity.user() == request.user => Vec::new(),
            Caller::Ssh { identity, .. } => {
                policy::previews(view, identity, request, self.ctx.state.now())
            }
            Caller::Local => Vec::new(),
        }
    }

    /// The request that an argument means, among those the caller may see.
    pub(crate) async fn find_request(&self, prefix: &str) -> Result<Arc<AccessRequest>, Stop> {
        let view = self.ctx.state.view();
        let prefix = prefix.to_ascii_lowercase();
        Ok(self
            .ctx
            .state
            .find_request(&prefix, |request| self.sees(&view, request))
            .await??)
    }
}

fn reviewed_by(request: &AccessRequest, user: &UserName) -> bool {
    request
        .reviews
        .iter()
        .any(|review| review.author.is_user(user))
}

fn request_table(view: &View, requests: &[Arc<AccessRequest>], prefix: &str) -> String {
    let mut table = Table::new([
        "ID",
        "User",
        "Roles",
        "Resources",
        "Created At (UTC)",
        "Expires",
        "Status",
    ]);
    let mut cut_off = false;
    for request in requests {
        let quoted: Vec<String> = request
            .reach
            .resources()
            .map(|id| say::quote(&id.clone().without_logins().to_string()))
            .collect();
        let whole = if quoted.is_empty() {
            String::new()
        } else {
            format!("[{}]", quoted.join(","))
        };
        let mut shown = say::cut_with(&whole, RESOURCES_WIDTH, "... [+]");
        cut_off |= shown != whole;
        // UUIDs cut short tell a reviewer nothing; names do.
        let others = request
            .reach
            .resources()
            .filter(|id| id.node_id().is_none());
        let names = RequestBlock::of(view, request).names;
        let names: Vec<String> = names
            .into_iter()
            .chain(others.map(ResourceId::short))
            .collect();
        let names = names.join(",");
        if !names.is_empty() {
            shown = format!("{shown} {}", say::cut(&names, NAMES_WIDTH));
        }
        table.row([
            request.id.to_string(),
            request.user.to_string(),
            strings(&request.roles).join(","),
            shown,
            say::stamp(request.created),
            say::stamp(expires(request)),
            request.state.to_string(),
        ]);
    }
    if !cut_off {
        return table.to_string();
    }
    format!("{table}\n\n[+] Resource lists are cut; `{prefix} request show ID` shows one whole")
}

/// What ends next or has ended: of a grant its access, of anything else the time for an answer.
fn expires(request: &AccessRequest) -> OffsetDateTime {
    match request.granted {
        Some(_) => request.access_expires,
        None => request.request_expires,
    }
}
