//! The tokens of a view.

use std::sync::Arc;

use imbl::OrdMap;
use time::OffsetDateTime;

use super::View;
use crate::id::TokenId;
use crate::token::{KEPT_AFTER, Token};

/// All of them, at most [`MOST_TOKENS`](crate::token::MOST_TOKENS).
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    by_id: OrdMap<TokenId, Arc<Token>>,
    by_secret: OrdMap<String, TokenId>,
}

impl View {
    /// The token of that ID.
    #[must_use]
    pub fn token(&self, id: &TokenId) -> Option<&Arc<Token>> {
        self.tokens.by_id.get(id)
    }

    /// The token whose secret has that SHA-256, in lower-case hexadecimal.
    #[must_use]
    pub fn token_by_secret(&self, sha256: &str) -> Option<&Arc<Token>> {
        self.token(self.tokens.by_secret.get(sha256)?)
    }

    /// All tokens, in the order of their IDs, also those that have ended and are not removed yet.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Arc<Token>> {
        self.tokens.by_id.values()
    }

    /// Whether there is any token: by which something could come in, or about which it could be told that
    /// it is over.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        !self.tokens.by_id.is_empty()
    }

    /// The tokens that have been over for [`KEPT_AFTER`].
    #[must_use]
    pub fn ended_tokens(&self, now: OffsetDateTime) -> Vec<TokenId> {
        let ended = self
            .tokens()
            .filter(|token| token.expires + KEPT_AFTER <= now);
        ended.map(|token| token.id.clone()).collect()
    }

    /// When the next token is to be forgotten.
    #[must_use]
    pub fn next_end_of_token(&self) -> Option<OffsetDateTime> {
        self.tokens().map(|token| token.expires + KEPT_AFTER).min()
    }

    /// Adds or replaces tokens.
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl IntoIterator<Item = Token>) -> Self {
        for token in tokens {
            self = self.without_token(&token.id);
            let secret = token.secret_sha256.clone();
            self.tokens.by_secret.insert(secret, token.id.clone());
            self.tokens.by_id.insert(token.id.clone(), Arc::new(token));
        }
        self
    }

    /// Removes a token, if it is there.
    #[must_use]
    pub fn without_token(mut self, id: &TokenId) -> Self {
        if let Some(old) = self.tokens.by_id.remove(id) {
            self.tokens.by_secret.remove(&old.secret_sha256);
        }
        self
    }
}
