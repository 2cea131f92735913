//! `tokens`, and `kind: token` in documents: what machines become nodes by.

use std::collections::BTreeMap;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb};
use anteroom_core::documents::{Life, TokenDocument};
use anteroom_core::id::TokenId;
use anteroom_core::token::{Token, TokenKind};
use anteroom_core::view::View;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::args::Listing;
use super::args::nodes::{TokenType, TokensAdd, TokensRm};
use super::io::CommandIo;
use super::objects::no_such;
use super::run::{Ended, Run, Stop};
use crate::enrol::{Secret, random_word};
use crate::exit::Exit;
use crate::say::{self, Cells};
use crate::state::{Existing, Object, ObjectId};

/// Letters of an ID that nobody chose: enough that two of the tokens there are never share one.
const ID_LENGTH: usize = 10;

/// A token as listings show it.
#[derive(Debug, Serialize)]
struct TokenRow<'a> {
    id: &'a TokenId,
    #[serde(rename = "type")]
    kind: TokenKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    labels: Value,
    uses: u32,
    uses_left: u32,
    /// Whether its time is over: it is kept an hour longer, so that a machine that comes late is told why.
    ended: bool,
    /// The UUIDs of those who came in by it.
    nodes: Vec<String>,
    created: String,
    created_by: &'a str,
    expires: String,
}

impl<'a> TokenRow<'a> {
    fn of(token: &'a Token, now: OffsetDateTime) -> Self {
        Self {
            id: &token.id,
            kind: token.kind,
            node: token.node.as_ref().map(ToString::to_string),
            addr: token.addr.as_ref().map(ToString::to_string),
            labels: serde_json::json!(token.labels),
            uses: token.uses,
            uses_left: token.uses_left,
            ended: token.expires <= now,
            nodes: token.enrolled.iter().map(ToString::to_string).collect(),
            created: say::rfc3339(token.created),
            created_by: &token.created_by,
            expires: say::rfc3339(token.expires),
        }
    }
}

/// A token that was made a moment ago: the one time that its secret is shown.
#[derive(Debug, Serialize)]
struct NewTokenRow<'a> {
    #[serde(flatten)]
    token: TokenRow<'a>,
    /// The secret.
    token_secret: &'a str,
    /// What to give on the machine.
    command: String,
    /// The same for the node agent.
    agent_command: String,
}

pub(crate) const TOKEN_HEADER: [&str; 8] = [
    "ID",
    "Type",
    "Node",
    "Address",
    "Labels",
    "Uses Left",
    "Created By",
    "Expires",
];

pub(crate) fn token_cells(token: &Arc<Token>, now: OffsetDateTime, cells: &mut Cells) {
    cells.push(token.id.as_str());
    cells.push(token.kind.as_str());
    cells.push(token.node.as_ref().map_or("", |node| node.as_str()));
    cells.push(&token.addr.as_ref().map(say::address).unwrap_or_default());
    cells.push_with(|text| say::write_labels(text, &token.labels));
    if token.expires <= now {
        cells.push("none, ended");
    } else {
        cells.push(&format!("{} of {}", token.uses_left, token.uses));
    }
    cells.push(&token.created_by);
    cells.push(&say::stamp(token.expires));
}

/// The tokens of an ID (all without one), oldest first.
pub(crate) fn named(view: &View, id: Option<&str>) -> Vec<Arc<Token>> {
    let tokens = view.tokens().map(Arc::clone);
    let mut found: Vec<_> = tokens
        .filter(|token| id.is_none_or(|id| token.id.as_str() == id))
        .collect();
    // Those of one moment stay in the order of their IDs.
    found.sort_by_key(|token| token.created);
    found
}

/// The labels, of which none may be there twice.
fn distinct(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Stop> {
    let mut found = BTreeMap::new();
    for (key, value) in labels {
        if found.contains_key(&key) {
            return Err(Stop::usage(format!(
                "the label `{}` is there twice; give each once",
                say::clean(&key)
            )));
        }
        found.insert(key, value);
    }
    Ok(found)
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn tokens_add(&mut self, args: TokensAdd) -> Ended {
        self.require(AdminVerb::Create, AdminObject::Tokens)?;
        let TokenType::Node = args.kind;
        let dialled = args
            .addr
            .as_ref()
            .is_some_and(|addr| addr.dialled().is_some());
        if args.agent && dialled {
            return Err(Stop::usage(
                "the node agent connects by itself and is not dialled; leave out `--addr` or `--agent`",
            ));
        }
        let labels = distinct(args.labels)?;
        let (token, secret) = self.new_token(TokenDocument {
            id: new_id()?,
            kind: TokenKind::Node,
            node: args.name,
            addr: args.addr,
            labels,
            uses: args.uses,
            life: Life::For(args.ttl),
        });
        let objects = vec![Object::Token(token.clone())];
        let by = self.by();
        self.ctx.state.put(&by, objects, Existing::Refuse).await?;
        let view = self.ctx.state.view();
        let id = ObjectId::Token(token.id.clone());
        let token = view.token(&token.id).ok_or_else(|| no_such(&id))?;
        let place = &self.ctx.place;
        let command = say::enrol_line(place, token, &secret);
        let agent_command = say::join_line(place, token, &secret);
        let (first, second) = if args.agent {
            (&agent_command, None)
        } else {
            (&command, (!dialled).then_some(&agent_command))
        };
        let text = first.clone();
        let second = second.cloned();
        let row = NewTokenRow {
            token: TokenRow::of(token, self.ctx.state.now()),
            token_secret: secret.reveal(),
            command,
            agent_command,
        };
        self.listing(args.listing.format, &row, || text).await?;
        self.note(&format!(
            "Token {} is good for {} until {}; give the line on the machine, and keep it to yourself: it is shown once",
            token.id,
            if token.uses == 1 { "one node".to_owned() } else { format!("{} nodes", token.uses) },
            say::stamp(token.expires),
        ))
        .await?;
        if let Some(second) = second {
            self.note(&format!(
                "On a machine without sshd, the node agent:\n{second}"
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn tokens_ls(&mut self, listing: Listing) -> Ended {
        self.require(AdminVerb::List, AdminObject::Tokens)?;
        let view = self.ctx.state.view();
        let tokens = named(&view, None);
        let now = self.ctx.state.now();
        self.rows(
            listing.format,
            &tokens,
            |token| TokenRow::of(token, now),
            &TOKEN_HEADER,
            |token, cells| token_cells(token, now, cells),
        )
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn tokens_rm(&mut self, args: &TokensRm) -> Ended {
        self.require(AdminVerb::Delete, AdminObject::Tokens)?;
        let mut ids = args.ids.clone();
        ids.sort();
        ids.dedup();
        let lines: Vec<String> = ids
            .iter()
            .map(|id| format!("token `{id}` removed"))
            .collect();
        let ids = ids.into_iter().map(ObjectId::Token).collect();
        self.ctx.state.remove(&self.by(), ids).await?;
        self.print(&lines.join("\n")).await?;
        Ok(Exit::Done)
    }

    /// A token to store, and its secret, which is nowhere else.
    pub(crate) fn new_token(&self, document: TokenDocument) -> (Token, Secret) {
        let now = self.ctx.state.now();
        let secret = Secret::generate(&self.ctx.place.host_key, &mut rand::rng());
        let token = Token {
            id: document.id,
            kind: document.kind,
            node: document.node,
            addr: document.addr,
            labels: document.labels,
            uses: document.uses,
            created: now,
            // The state writes down who it was.
            created_by: String::new(),
            expires: match document.life {
                Life::For(life) => now + life,
                Life::Until(end) => end,
            },
            secret_sha256: secret.sha256(),
            uses_left: document.uses,
            enrolled: Vec::new(),
        };
        (token, secret)
    }

    /// The lines of tokens that `create` has made.
    pub(crate) async fn say_new_tokens(&mut self, made: &[(Token, Secret)]) -> Result<(), Stop> {
        for (token, secret) in made {
            let line = say::enrol_line(&self.ctx.place, token, secret);
            self.print(&line).await?;
        }
        Ok(())
    }
}

fn new_id() -> Result<TokenId, Stop> {
    TokenId::parse(&random_word(ID_LENGTH, &mut rand::rng()))
        .map_err(|error| Stop::new(Exit::Failed, error))
}
