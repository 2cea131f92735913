//! `request ls` and `request show`: who sees which requests, and how they are listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb};
use anteroom_core::id::{RequestId, ResourceId, UserName};
use anteroom_core::policy::{self, Preview};
use anteroom_core::request::{AccessRequest, State as RequestState, may_review};
use anteroom_core::view::View;
use time::OffsetDateTime;

use super::{RequestRow, strings};
use crate::admin::args::Format;
use crate::admin::args::requests::{OneRequest, RequestLs};
use crate::admin::io::{Caller, CommandIo};
use crate::admin::run::{self, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, RequestBlock, Table};
use crate::store::{Ended, Whose};

/// The columns that a list of resources may take in `request ls`.
const RESOURCES_WIDTH: usize = 27;

/// The width of the nodes' names behind them.
const NAMES_WIDTH: usize = 20;

/// The most requests that have ended of which a listing reads one part; older ones are found by their ID. What is live is in
/// memory, and is listed whatever its age.
const MOST_LISTED: usize = if cfg!(test) { 20 } else { 10_000 };

/// What a listing shows, newest first, and whether older requests were left out.
pub(in crate::admin) struct Listed {
    pub(in crate::admin) requests: Vec<Arc<AccessRequest>>,
    cut: bool,
}

impl<I: CommandIo> Run<'_, I> {
    /// Whether the caller may see the request: her own, those she may review, and all for administrators of requests.
    fn sees(&self, view: &View, request: &AccessRequest) -> bool {
        let Some(user) = self.user() else { return true };
        request.user == *user
            || may_review(view, user, request).is_ok()
            || self.may(AdminVerb::Read, AdminObject::AccessRequest(request))
    }

    pub(crate) async fn request_ls(&mut self, args: &RequestLs) -> run::Ended {
        let user = self.user();
        let whose = match user {
            None => vec![Whose::Everybodys],
            Some(user) if args.mine => vec![Whose::Of(user.clone())],
            // Her own are not crowded out by those that others filed.
            Some(user) => vec![Whose::Of(user.clone()), Whose::NotOf(user.clone())],
        };
        let ended = |whose| Ended {
            whose,
            how: args.state.clone(),
            suggested: user.filter(|_| args.suggested).cloned(),
        };
        // What can be reviewed is pending, and so in memory.
        let ended: Vec<Ended> = match args.reviewable {
            true => Vec::new(),
            false => whose.into_iter().map(ended).collect(),
        };
        let mut listed = self.requests_and(&ended).await?;
        let view = self.ctx.state.view();
        listed.requests.retain(|request| {
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
        self.list_requests(&listed, args.listing.format).await
    }

    /// What memory holds, and of those that have ended what each of `parts` asks for. Whoever lists them leaves out again
    /// what memory holds beside that.
    pub(in crate::admin) async fn requests_and(&self, parts: &[Ended]) -> Result<Listed, Stop> {
        let mut cut = false;
        let mut by_id: BTreeMap<RequestId, Arc<AccessRequest>> = BTreeMap::new();
        for part in parts.iter().filter(|part| part.states().next().is_some()) {
            let reader = self.ctx.state.reader();
            let mut found = reader.ended_requests(part, MOST_LISTED + 1).await?;
            cut |= found.len() > MOST_LISTED;
            found.truncate(MOST_LISTED);
            by_id.extend(found.into_iter().map(|one| (one.id, Arc::new(one))));
        }
        // Looked at after the database: what ended in between is in memory, and what is there is as new or newer.
        let view = self.ctx.state.view();
        by_id.extend(view.requests().map(|one| (one.id, Arc::clone(one))));
        let mut requests: Vec<Arc<AccessRequest>> = by_id.into_values().collect();
        requests.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(Listed { requests, cut })
    }

    pub(in crate::admin) async fn list_requests(
        &mut self,
        listed: &Listed,
        format: Format,
    ) -> run::Ended {
        let requests = &listed.requests;
        let rows: Vec<RequestRow> = requests
            .iter()
            .map(|request| RequestRow::new(request).waited_for(self.waiting_for(request)))
            .collect();
        let (channel, view) = (self.channel(), self.ctx.state.view());
        self.listing(format, &rows, || {
            request_table(&view, requests, channel.prefix())
        })
        .await?;
        if listed.cut {
            self.note(&say::requests_left_out(MOST_LISTED, channel.prefix()))
                .await?;
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn request_show(&mut self, args: &OneRequest) -> run::Ended {
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

    pub(crate) async fn show_request(
        &mut self,
        request: &AccessRequest,
        format: Format,
    ) -> run::Ended {
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
