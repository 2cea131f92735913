-- A lock on a key also shuts what somebody gets who came with that key: an access certificate is made
-- for a key of one connection, and names the user's in `user_key`.
DROP TRIGGER issuances_not_under_a_lock;
CREATE TRIGGER issuances_not_under_a_lock BEFORE INSERT ON issuances
WHEN NEW.kind <> 'host' AND EXISTS (
    SELECT 1 FROM locks
    WHERE (expires IS NULL OR expires > NEW.issued)
      AND ((kind = 'user' AND target = NEW.user)
        OR (kind = 'role' AND target IN (SELECT role FROM user_roles WHERE user = NEW.user))
        OR (kind = 'request' AND target = NEW.request_id)
        OR (kind = 'login' AND target = NEW.login)
        OR (kind = 'node' AND target = NEW.node_id)
        OR (kind = 'key' AND target IN (NEW.subject, NEW.user_key))))
BEGIN SELECT RAISE(ABORT, 'nothing is issued under a lock'); END;

PRAGMA user_version = 12;
