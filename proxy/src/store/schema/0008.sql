-- The certificate authorities: which key signs, and how far a rotation is. Keys are lines of OpenSSH's
-- public format; the private halves are never here.
CREATE TABLE authorities (
    kind    TEXT PRIMARY KEY NOT NULL CHECK (kind IN ('user', 'node', 'host')),
    stage   TEXT NOT NULL CHECK (stage IN ('stable', 'announce', 'sign')),
    signing TEXT NOT NULL CHECK (signing <> ''),
    other   TEXT CHECK (other <> '' AND other <> signing),
    since   INTEGER NOT NULL,
    CHECK ((stage = 'stable') = (other IS NULL))
) STRICT;

-- What was trusted once: it stands in the revocation list, and signs nothing any more.
CREATE TABLE retired_authorities (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('user', 'node', 'host')),
    key         TEXT NOT NULL UNIQUE,
    retired     INTEGER NOT NULL
) STRICT;
CREATE TRIGGER retired_authorities_stay BEFORE DELETE ON retired_authorities
BEGIN SELECT RAISE(ABORT, 'a retired authority stays retired'); END;
CREATE TRIGGER retired_authorities_final BEFORE UPDATE ON retired_authorities
BEGIN SELECT RAISE(ABORT, 'a retired authority stays retired'); END;

CREATE TRIGGER authorities_are_not_retired BEFORE INSERT ON authorities
WHEN EXISTS (SELECT 1 FROM retired_authorities WHERE key IN (NEW.signing, NEW.other))
BEGIN SELECT RAISE(ABORT, 'a retired key is no authority again'); END;
CREATE TRIGGER authorities_stay_unretired BEFORE UPDATE ON authorities
WHEN EXISTS (SELECT 1 FROM retired_authorities WHERE key IN (NEW.signing, NEW.other))
BEGIN SELECT RAISE(ABORT, 'a retired key is no authority again'); END;

-- Announced, then signing, then alone; or back.
CREATE TRIGGER authorities_order_of_life BEFORE UPDATE ON authorities
WHEN NEW.kind <> OLD.kind
  OR (NEW.stage = 'announce' AND NOT (OLD.stage = 'stable' AND NEW.signing = OLD.signing))
  OR (NEW.stage = 'sign' AND NOT (OLD.stage = 'announce' AND NEW.signing = OLD.other AND NEW.other = OLD.signing))
  OR (NEW.stage = 'stable' AND OLD.stage = 'announce' AND NEW.signing <> OLD.signing)
  OR (NEW.stage = 'stable' AND OLD.stage = 'sign' AND NEW.signing NOT IN (OLD.signing, OLD.other))
BEGIN SELECT RAISE(ABORT, 'an authority does not turn that way'); END;

-- Which nodes are known to go by which key: they took a certificate that it signed (`node`), or showed one
-- (`host`).
CREATE TABLE authorities_learnt (
    kind        TEXT NOT NULL CHECK (kind IN ('node', 'host')),
    node_id     TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    seen        INTEGER NOT NULL,
    PRIMARY KEY (kind, node_id, fingerprint)
) STRICT;

-- By which authority, as a fingerprint; empty for what was issued before there was this column.
ALTER TABLE issuances ADD COLUMN authority TEXT;
CREATE TRIGGER issuances_by_who_is_trusted BEFORE INSERT ON issuances
WHEN EXISTS (SELECT 1 FROM retired_authorities WHERE fingerprint = NEW.authority)
BEGIN SELECT RAISE(ABORT, 'a retired authority issues nothing'); END;

PRAGMA user_version = 8;
