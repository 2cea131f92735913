-- Second factors. `secret` is sealed with a key outside the database. `last_step` is the time step of the
-- last code that was taken: it only grows, so that no code is taken twice.
CREATE TABLE mfa_devices (
    user      TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    name      TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    secret    BLOB NOT NULL CHECK (length(secret) > 28),
    created   INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    PRIMARY KEY (user, name)
) STRICT;

CREATE TRIGGER mfa_devices_one_time BEFORE UPDATE ON mfa_devices
WHEN NEW.last_step <= OLD.last_step OR NEW.user <> OLD.user OR NEW.name <> OLD.name
  OR NEW.secret <> OLD.secret OR NEW.created <> OLD.created
BEGIN SELECT RAISE(ABORT, 'a code is taken once, and nothing else of a device changes'); END;

-- Wrong codes since the last right one, which bound how often may be guessed, restarts included.
CREATE TABLE mfa_failures (
    user  TEXT PRIMARY KEY NOT NULL REFERENCES users (name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    count INTEGER NOT NULL CHECK (count >= 1),
    last  INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 9;
