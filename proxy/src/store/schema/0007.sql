-- The host certificates of nodes, beside their rows in `issuances`: the type of the key, and whether
-- they count no more. The type is '' where it was issued before types were written down.
CREATE TABLE host_certificates (
    serial       TEXT PRIMARY KEY NOT NULL REFERENCES issuances (serial),
    node_id      TEXT NOT NULL,
    key_type     TEXT NOT NULL,
    valid_before INTEGER NOT NULL,
    revoked      INTEGER,
    why          TEXT,
    CHECK ((revoked IS NULL) = (why IS NULL))
) STRICT;
CREATE INDEX host_certificates_node ON host_certificates (node_id, valid_before);
INSERT INTO host_certificates (serial, node_id, key_type, valid_before)
SELECT serial, node_id, '', valid_before FROM issuances WHERE kind = 'host' AND node_id IS NOT NULL;

CREATE TRIGGER host_certificates_are_issued BEFORE INSERT ON host_certificates
WHEN NEW.revoked IS NOT NULL OR NOT EXISTS (
    SELECT 1 FROM issuances
    WHERE serial = NEW.serial AND kind = 'host' AND node_id = NEW.node_id AND valid_before = NEW.valid_before)
BEGIN SELECT RAISE(ABORT, 'a host certificate is issued first'); END;
CREATE TRIGGER host_certificates_revoked_once BEFORE UPDATE ON host_certificates
WHEN OLD.revoked IS NOT NULL OR NEW.revoked IS NULL OR NEW.serial <> OLD.serial OR NEW.node_id <> OLD.node_id
  OR NEW.key_type <> OLD.key_type OR NEW.valid_before <> OLD.valid_before
BEGIN SELECT RAISE(ABORT, 'a host certificate is revoked once, and nothing else of it changes'); END;
CREATE TRIGGER host_certificates_stay BEFORE DELETE ON host_certificates
BEGIN SELECT RAISE(ABORT, 'host certificates are history'); END;

-- A node's host key that is locked gets no certificate. A lock on the node is one on its use.
CREATE TRIGGER host_certificates_not_under_a_lock BEFORE INSERT ON issuances
WHEN NEW.kind = 'host' AND NEW.node_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM locks
    WHERE (expires IS NULL OR expires > NEW.issued)
      AND ((kind = 'key' AND target = NEW.subject) OR (kind = 'serial' AND target = NEW.serial)))
BEGIN SELECT RAISE(ABORT, 'nothing is issued under a lock'); END;

-- The key with which a user came for a certificate of the node CA, whatever key it certifies. NULL in
-- rows of before, and where it is in `identities`.
ALTER TABLE issuances ADD COLUMN user_key TEXT;

PRAGMA user_version = 7;
