-- Identity certificates, beside their rows in `issuances`: the registered key that the login was made
-- with, the certificate that was presented for this one, and whether it counts no more.
CREATE TABLE identities (
    serial       TEXT PRIMARY KEY NOT NULL REFERENCES issuances (serial),
    login_key    TEXT NOT NULL,
    presented    TEXT REFERENCES identities (serial),
    valid_before INTEGER NOT NULL,
    revoked      INTEGER,
    why          TEXT,
    CHECK ((revoked IS NULL) = (why IS NULL))
) STRICT;
CREATE INDEX identities_valid ON identities (valid_before);

CREATE TRIGGER identities_are_issued BEFORE INSERT ON identities
WHEN NEW.revoked IS NOT NULL OR NOT EXISTS (
    SELECT 1 FROM issuances
    WHERE serial = NEW.serial AND kind = 'user' AND user IS NOT NULL AND valid_before = NEW.valid_before)
BEGIN SELECT RAISE(ABORT, 'an identity certificate is issued first'); END;
CREATE TRIGGER identities_never_longer BEFORE INSERT ON identities
WHEN NEW.presented IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM identities JOIN issuances USING (serial)
    WHERE identities.serial = NEW.presented AND identities.valid_before >= NEW.valid_before
      AND identities.revoked IS NULL AND login_key = NEW.login_key
      AND user = (SELECT user FROM issuances WHERE serial = NEW.serial))
BEGIN SELECT RAISE(ABORT, 'a certificate got with another one is the same person''s and never ends later'); END;
CREATE TRIGGER identities_revoked_once BEFORE UPDATE ON identities
WHEN OLD.revoked IS NOT NULL OR NEW.revoked IS NULL OR NEW.serial <> OLD.serial
  OR NEW.login_key <> OLD.login_key OR NEW.presented IS NOT OLD.presented
  OR NEW.valid_before <> OLD.valid_before
BEGIN SELECT RAISE(ABORT, 'an identity certificate is revoked once, and nothing else of it changes'); END;
CREATE TRIGGER identities_stay BEFORE DELETE ON identities
BEGIN SELECT RAISE(ABORT, 'identity certificates are history'); END;

PRAGMA user_version = 3;
