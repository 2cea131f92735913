-- Applications, databases, Kubernetes clusters and desktops. A name is unique among those of a kind,
-- and what the columns say is what the body says.

CREATE TABLE resources (
    kind    TEXT NOT NULL CHECK (kind IN ('app', 'db', 'kube_cluster', 'windows_desktop')),
    name    TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64
                                 AND name GLOB '[a-z0-9]*' AND name NOT GLOB '*[^a-z0-9._-]*'),
    body    TEXT NOT NULL CHECK (json_valid(body)
                                 AND body ->> '$.name' IS name AND body ->> '$.spec.kind' IS kind),
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

PRAGMA user_version = 4;
