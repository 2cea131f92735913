-- From where nodes were connected by themselves within a day: reviews from there are refused, after a restart as well.
-- Written now and then. A network is an IPv4 address or the first address of an IPv6 /64.
CREATE TABLE node_sources (
    node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    network TEXT NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (node_id, network)
) STRICT;

PRAGMA user_version = 13;
