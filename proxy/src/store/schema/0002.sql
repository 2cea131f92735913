-- Locks: what is shut, whoever it was granted to. `target` is a name, fingerprint, UUID or number as it is
-- printed; what it names may be gone, or not be there yet.
CREATE TABLE locks (
    id      TEXT PRIMARY KEY NOT NULL,
    kind    TEXT NOT NULL CHECK (kind IN ('user', 'key', 'role', 'request', 'login', 'node', 'serial')),
    target  TEXT NOT NULL CHECK (target <> ''),
    created INTEGER NOT NULL,
    expires INTEGER CHECK (expires > created),
    body    TEXT NOT NULL
) STRICT;
CREATE INDEX locks_target ON locks (kind, target);

-- The last word on what the decision has looked at before: nobody gets a certificate under a lock. Roles
-- are not known here, the roles of a user may be (`user_roles`).
CREATE TRIGGER issuances_not_under_a_lock BEFORE INSERT ON issuances
WHEN NEW.kind <> 'host' AND EXISTS (
    SELECT 1 FROM locks
    WHERE (expires IS NULL OR expires > NEW.issued)
      AND ((kind = 'user' AND target = NEW.user)
        OR (kind = 'role' AND target IN (SELECT role FROM user_roles WHERE user = NEW.user))
        OR (kind = 'request' AND target = NEW.request_id)
        OR (kind = 'login' AND target = NEW.login)
        OR (kind = 'node' AND target = NEW.node_id)
        OR (kind = 'key' AND target = NEW.subject)
        OR (kind = 'serial' AND target = NEW.serial)))
BEGIN SELECT RAISE(ABORT, 'nothing is issued under a lock'); END;

-- Certificates that may still be valid, for the revocation list.
CREATE INDEX issuances_valid ON issuances (valid_before);

PRAGMA user_version = 2;
