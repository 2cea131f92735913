-- Access monitoring rules: the document as it was written, and who has written it since the rule was
-- made, as a JSON list of user names.
CREATE TABLE monitoring_rules (
    name    TEXT PRIMARY KEY NOT NULL,
    body    TEXT NOT NULL CHECK (json_valid(body)),
    authors TEXT NOT NULL CHECK (json_valid(authors)),
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 5;
