-- Pre-approvals: whose, for whom, and until when; which requests they cover is in the body. Nobody
-- approves what they ask for themselves, and who is removed leaves none behind.
CREATE TABLE allowances (
    id      TEXT PRIMARY KEY NOT NULL,
    author  TEXT NOT NULL REFERENCES users (name) DEFERRABLE INITIALLY DEFERRED,
    user    TEXT NOT NULL REFERENCES users (name) DEFERRABLE INITIALLY DEFERRED,
    created INTEGER NOT NULL,
    ends    INTEGER NOT NULL CHECK (ends > created),
    body    TEXT NOT NULL CHECK (json_valid(body) AND body ->> '$.id' IS id
                                 AND body ->> '$.author' IS author AND body ->> '$.user' IS user),
    CHECK (author <> user)
) STRICT;
CREATE INDEX allowances_author ON allowances (author);
CREATE INDEX allowances_user ON allowances (user);

CREATE TRIGGER allowances_final BEFORE UPDATE ON allowances
BEGIN SELECT RAISE(ABORT, 'a pre-approval does not change'); END;

PRAGMA user_version = 6;
