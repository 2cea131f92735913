//! The second step of a login: a code, after a signature that was verified.
//!
//! It belongs to one user name, one key and one connection, and nothing of it outlives a change of either. Nobody
//! is asked who has no device: she is let in as far as the key goes, and told how to set one up.

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::id::KeyFingerprint;
use anteroom_core::policy::{self, Identity};

use super::Purpose;
use crate::proxy::Proxy;
use crate::say;
use crate::state::CodeRefused;
use anteroom_ssh::Challenge;

/// What is asked.
const PROMPT: &str = "Second factor code: ";

/// Whether a code is wanted from somebody who has proven a key.
pub(super) enum Second {
    /// No, and who she is.
    No(Identity),
    /// Yes.
    Yes(Identity),
}

/// A login that a key has begun. Empty where none has.
#[derive(Default)]
pub(super) struct SecondStep {
    begun: Option<Begun>,
}

struct Begun {
    user: String,
    identity: Identity,
    purpose: Purpose,
    from: SocketAddr,
    /// Why the last code was not taken.
    refused: Option<CodeRefused>,
}

/// The key that she proved to hold: that of her certificate, if she came with one.
pub(super) fn proven_key(identity: &Identity) -> &KeyFingerprint {
    identity
        .credential()
        .map_or(identity.key(), |held| &held.key)
}

pub(super) fn wanted(proxy: &Proxy, identity: Identity, from: SocketAddr) -> Second {
    let (view, now) = (proxy.state.view(), proxy.state.now());
    let Some(known) = view.second_factors(identity.user()) else {
        return Second::No(identity);
    };
    if known.devices.is_empty() || !policy::asks_second_factor(&view, &identity, now) {
        return Second::No(identity);
    }
    let lasts = time::Duration::try_from(proxy.config().second_factor_lasts);
    let lasts = lasts.unwrap_or(time::Duration::ZERO);
    let given = proxy
        .recent
        .given(proven_key(&identity), from.ip(), known, lasts, now);
    match given {
        Some(at) => Second::No(identity.with_second_factor(at)),
        None => Second::Yes(identity),
    }
}

impl SecondStep {
    pub(super) fn of(user: &str, identity: Identity, purpose: Purpose, from: SocketAddr) -> Self {
        Self {
            begun: Some(Begun {
                user: user.to_owned(),
                identity,
                purpose,
                from,
                refused: None,
            }),
        }
    }

    /// What to ask of `user`, if a key was proven under that name.
    pub(super) fn challenge(&self, user: &str) -> Option<Challenge> {
        let begun = self.begun.as_ref().filter(|begun| begun.user == user)?;
        let refused = begun.refused.as_ref().map(ToString::to_string);
        Some(Challenge {
            instructions: say::clean(&refused.unwrap_or_default()).into_owned(),
            prompt: PROMPT,
        })
    }

    /// Looks at the code.
    pub(super) async fn answered(
        &mut self,
        proxy: &Arc<Proxy>,
        user: &str,
        code: Option<&str>,
    ) -> Looked {
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.user == user) else {
            return Looked::Refused;
        };
        // A client that has nobody to ask answers with nothing, which is no guess.
        let Some(code) = code.filter(|code| !code.trim().is_empty()) else {
            return Looked::NothingGiven;
        };
        let sealer = &proxy.commands.second_factors.sealer;
        let taken = proxy
            .state
            .take_code(&begun.identity, code, begun.from, sealer)
            .await;
        let confirmed = match taken {
            Ok(Ok(confirmed)) => confirmed,
            Ok(Err(refused @ (CodeRefused::Wrong | CodeRefused::Spent))) => {
                begun.refused = Some(refused);
                return Looked::Refused;
            }
            Ok(Err(refused @ (CodeRefused::NoDevice | CodeRefused::Paused(_)))) => {
                return Looked::Over(say::clean(&refused.to_string()).into_owned());
            }
            Err(error) => {
                tracing::error!("a second factor could not be looked at: {error}");
                return Looked::Over(say::NO_SECOND_FACTOR_NOW.to_owned());
            }
        };
        let Some(begun) = self.begun.take() else {
            return Looked::Refused;
        };
        let key = proven_key(&begun.identity).clone();
        let recent = &proxy.recent;
        recent.note(key, begun.from.ip(), &confirmed.device, confirmed.at);
        let identity = begun.identity.with_second_factor(confirmed.at);
        Looked::Taken(Box::new((identity, begun.purpose)))
    }
}

/// What became of a code.
pub(super) enum Looked {
    /// It was taken: who she is, and what she came for.
    Taken(Box<(Identity, Purpose)>),
    /// It was not.
    Refused,
    /// There was none.
    NothingGiven,
    /// None will be taken on this connection, and why.
    Over(String),
}
