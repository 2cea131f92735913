-- Listings of requests that have ended: of one user, and in some states, newest first.
CREATE INDEX requests_user ON requests (user, created);
CREATE INDEX requests_state ON requests (state, created);

PRAGMA user_version = 10;
