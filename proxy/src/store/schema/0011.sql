-- What lets a node in without an operator at its side. The secret itself is never here.
CREATE TABLE tokens (
    id            TEXT PRIMARY KEY NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('node')),
    secret_sha256 TEXT NOT NULL UNIQUE CHECK (length(secret_sha256) = 64),
    uses_left     INTEGER NOT NULL CHECK (uses_left >= 0),
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL CHECK (expires > created),
    body          TEXT NOT NULL
) STRICT;

CREATE TRIGGER tokens_are_used_up BEFORE UPDATE ON tokens
WHEN NEW.id <> OLD.id OR NEW.kind <> OLD.kind OR NEW.secret_sha256 <> OLD.secret_sha256
  OR NEW.created <> OLD.created OR NEW.expires <> OLD.expires OR NEW.body <> OLD.body
  OR NEW.uses_left <> OLD.uses_left - 1
BEGIN SELECT RAISE(ABORT, 'a token is used up, and nothing else of it changes'); END;

-- Which node came in by which token. Tokens and nodes are forgotten; this is not.
CREATE TABLE enrolments (
    token   TEXT NOT NULL,
    node_id TEXT NOT NULL,
    at      INTEGER NOT NULL,
    addr    TEXT NOT NULL,
    PRIMARY KEY (token, node_id, at)
) STRICT;

-- When a node was last there. Written now and then: it decides nothing.
CREATE TABLE presence (
    node_id        TEXT PRIMARY KEY NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    last_heartbeat INTEGER,
    last_dial      INTEGER
) STRICT;

PRAGMA user_version = 11;
