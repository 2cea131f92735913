-- Times are microseconds since 1970-01-01 UTC, except in `audit`, whose `time` is the RFC 3339 text
-- that its entry carries. `body` is the whole object as JSON; the columns beside it are what the
-- database itself has to understand in order to refuse impossible states.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE roles (
    name     TEXT PRIMARY KEY NOT NULL,
    body     TEXT NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    name     TEXT PRIMARY KEY NOT NULL,
    body     TEXT NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL
) STRICT;

-- A role that somebody has cannot be removed. Deferred, because one file of documents may name
-- users before the roles they have.
CREATE TABLE user_roles (
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    role TEXT NOT NULL REFERENCES roles (name) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (user, role)
) STRICT;
CREATE INDEX user_roles_role ON user_roles (role);

-- A key belongs to one user.
CREATE TABLE user_keys (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    user        TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    openssh     TEXT NOT NULL
) STRICT;
CREATE INDEX user_keys_user ON user_keys (user);

-- Names are not unique: an ambiguous one lists its candidates.
CREATE TABLE nodes (
    id       TEXT PRIMARY KEY NOT NULL,
    name     TEXT NOT NULL,
    addr     TEXT NOT NULL,
    body     TEXT NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL
) STRICT;
CREATE INDEX nodes_name ON nodes (name);

-- Requests outlive their users and nodes, so that the history stays readable: no foreign keys.
CREATE TABLE requests (
    id              TEXT PRIMARY KEY NOT NULL,
    user            TEXT NOT NULL,
    state           TEXT NOT NULL
                    CHECK (state IN ('PENDING', 'APPROVED', 'DENIED', 'EXPIRED', 'CANCELED', 'REVOKED')),
    created         INTEGER NOT NULL,
    request_expires INTEGER NOT NULL,
    access_expires  INTEGER NOT NULL CHECK (access_expires > created),
    revision        INTEGER NOT NULL CHECK (revision >= 1),
    body            TEXT NOT NULL
) STRICT;
CREATE INDEX requests_created ON requests (created);
CREATE INDEX requests_live ON requests (state) WHERE state IN ('PENDING', 'APPROVED');

CREATE TRIGGER requests_begin_pending BEFORE INSERT ON requests
WHEN NEW.state <> 'PENDING' OR NEW.revision <> 1
BEGIN SELECT RAISE(ABORT, 'a request begins PENDING'); END;

CREATE TRIGGER requests_final BEFORE UPDATE ON requests
WHEN OLD.state IN ('DENIED', 'EXPIRED', 'CANCELED', 'REVOKED')
BEGIN SELECT RAISE(ABORT, 'a request that has ended does not change'); END;

CREATE TRIGGER requests_order_of_life BEFORE UPDATE ON requests
WHEN (OLD.state = 'APPROVED' AND NEW.state NOT IN ('APPROVED', 'EXPIRED', 'REVOKED'))
  OR (OLD.state = 'PENDING' AND NEW.state = 'REVOKED')
BEGIN SELECT RAISE(ABORT, 'a request does not go that way'); END;

CREATE TRIGGER requests_identity BEFORE UPDATE ON requests
WHEN NEW.id <> OLD.id OR NEW.user <> OLD.user OR NEW.created <> OLD.created
  OR NEW.revision <> OLD.revision + 1
BEGIN SELECT RAISE(ABORT, 'a request stays who it is'); END;

CREATE TRIGGER requests_never_longer BEFORE UPDATE ON requests
WHEN OLD.state = 'APPROVED' AND NEW.access_expires > OLD.access_expires
BEGIN SELECT RAISE(ABORT, 'what was granted never grows'); END;

CREATE TRIGGER requests_stay BEFORE DELETE ON requests
BEGIN SELECT RAISE(ABORT, 'requests are history'); END;

-- One review per person.
CREATE TABLE reviews (
    request_id TEXT NOT NULL REFERENCES requests (id),
    author     TEXT NOT NULL,
    created    INTEGER NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (request_id, author)
) STRICT;

CREATE TRIGGER reviews_by_others BEFORE INSERT ON reviews
WHEN NEW.author = (SELECT user FROM requests WHERE id = NEW.request_id)
BEGIN SELECT RAISE(ABORT, 'nobody reviews his own request'); END;
CREATE TRIGGER reviews_stay BEFORE DELETE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are history'); END;
CREATE TRIGGER reviews_final BEFORE UPDATE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews are history'); END;

-- The audit log: an append-only hash chain (see audit.rs). The triggers stop mistakes, not somebody
-- who owns the file; that is what the chain and its anchors are for.
CREATE TABLE audit (
    seq   INTEGER PRIMARY KEY NOT NULL,
    time  TEXT NOT NULL,
    event TEXT NOT NULL,
    prev  TEXT NOT NULL UNIQUE CHECK (length(prev) = 64),
    hash  TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    entry TEXT NOT NULL
) STRICT;
CREATE INDEX audit_event ON audit (event);

CREATE TABLE audit_head (
    one  INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_head (one, seq, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TRIGGER audit_follows BEFORE INSERT ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_head WHERE seq = NEW.seq - 1 AND hash = NEW.prev)
BEGIN SELECT RAISE(ABORT, 'an audit entry follows the head of the chain'); END;
CREATE TRIGGER audit_head_moves AFTER INSERT ON audit
BEGIN UPDATE audit_head SET seq = NEW.seq, hash = NEW.hash WHERE one = 1; END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_final BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head
WHEN NEW.seq <> OLD.seq + 1
  OR NOT EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq AND prev = OLD.hash AND hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Every certificate that ever left the process. `audit_seq` is its `cert.create` entry: an issuance
-- without one cannot be written. Serials are 64 bits unsigned, hence text.
CREATE TABLE issuances (
    serial       TEXT PRIMARY KEY NOT NULL CHECK (serial <> '0' AND length(serial) BETWEEN 1 AND 20),
    kind         TEXT NOT NULL CHECK (kind IN ('node', 'host', 'user')),
    user         TEXT,
    key_id       TEXT NOT NULL CHECK (key_id <> ''),
    principals   TEXT NOT NULL CHECK (principals NOT IN ('', '[]')),
    subject      TEXT NOT NULL,
    request_id   TEXT REFERENCES requests (id),
    session_id   TEXT,
    node_id      TEXT,
    login        TEXT,
    cert_sha256  TEXT NOT NULL UNIQUE CHECK (length(cert_sha256) = 64),
    valid_after  INTEGER NOT NULL,
    valid_before INTEGER NOT NULL CHECK (valid_before > valid_after),
    issued       INTEGER NOT NULL,
    audit_seq    INTEGER NOT NULL UNIQUE REFERENCES audit (seq),
    CHECK (kind <> 'node' OR (user IS NOT NULL AND session_id IS NOT NULL
                              AND node_id IS NOT NULL AND login IS NOT NULL))
) STRICT;
CREATE INDEX issuances_issued ON issuances (issued);
CREATE INDEX issuances_request ON issuances (request_id);

CREATE TRIGGER issuances_within_their_grant BEFORE INSERT ON issuances
WHEN NEW.request_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM requests
    WHERE id = NEW.request_id AND user = NEW.user AND state = 'APPROVED' AND access_expires >= NEW.valid_before)
BEGIN SELECT RAISE(ABORT, 'a certificate stays within what was granted'); END;
CREATE TRIGGER issuances_stay BEFORE DELETE ON issuances
BEGIN SELECT RAISE(ABORT, 'issuances are history'); END;
CREATE TRIGGER issuances_final BEFORE UPDATE ON issuances
BEGIN SELECT RAISE(ABORT, 'issuances are history'); END;

-- Every session to a node; `ended` is NULL while it lives.
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY NOT NULL,
    user       TEXT NOT NULL,
    node_id    TEXT NOT NULL,
    login      TEXT NOT NULL,
    request_id TEXT REFERENCES requests (id),
    started    INTEGER NOT NULL,
    ended      INTEGER,
    body       TEXT NOT NULL,
    start_seq  INTEGER NOT NULL UNIQUE REFERENCES audit (seq),
    end_seq    INTEGER UNIQUE REFERENCES audit (seq),
    CHECK ((ended IS NULL) = (end_seq IS NULL))
) STRICT;
CREATE INDEX sessions_live ON sessions (id) WHERE ended IS NULL;
CREATE INDEX sessions_started ON sessions (started);

CREATE TRIGGER sessions_begin_alive BEFORE INSERT ON sessions
WHEN NEW.ended IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a session begins before it ends'); END;
CREATE TRIGGER sessions_end_once BEFORE UPDATE ON sessions
WHEN OLD.ended IS NOT NULL OR NEW.id <> OLD.id OR NEW.user <> OLD.user OR NEW.started <> OLD.started
BEGIN SELECT RAISE(ABORT, 'a session ends once'); END;
CREATE TRIGGER sessions_stay BEFORE DELETE ON sessions
BEGIN SELECT RAISE(ABORT, 'sessions are history'); END;

PRAGMA application_id = 1095648082;
PRAGMA user_version = 1;
