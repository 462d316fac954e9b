-- The whole database of acme-ca. PostgreSQL 15 or later; encoding UTF-8.
--
-- Applied to an empty database in one transaction; later versions add numbered files under acme_ca/storage/upgrades/.
-- Times are timestamptz. Identifiers are text 'dns:example.org', 'ip:192.0.2.1'. Ids are 32 hexadecimal digits that
-- begin with their time of creation. Statuses are the words of RFC 8555 §7.1.6, as in acme_ca/core/states.py.

-- ------------------------------------------------------------------ the database itself

CREATE TABLE schema_version (
    version     integer     NOT NULL PRIMARY KEY,
    applied     timestamptz NOT NULL DEFAULT now()
);
INSERT INTO schema_version (version) VALUES (1);

-- Secrets that all replicas share: the key that authenticates nonces.
CREATE TABLE secret (
    name        text  NOT NULL PRIMARY KEY,
    value       bytea NOT NULL
);

-- Background work that one process at a time does.
CREATE TABLE lease (
    name        text        NOT NULL PRIMARY KEY,
    holder      text        NOT NULL,
    expires     timestamptz NOT NULL
);

-- ------------------------------------------------------------------ nonces

-- Spent nonces until they would have expired. Both tables are unlogged: no fsync. A crash or a failover empties both, and
-- since a nonce is good only for the epoch it was made in, emptying refuses every older nonce instead of forgetting it.
CREATE UNLOGGED TABLE nonce_epoch (
    only_row    boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch       bigint  NOT NULL
);
CREATE UNLOGGED TABLE nonce (
    value       bigint  NOT NULL PRIMARY KEY,
    expires     bigint  NOT NULL            -- seconds since 1970
) WITH (autovacuum_vacuum_scale_factor = 0.5);
CREATE INDEX nonce_expires ON nonce USING brin (expires);

-- ------------------------------------------------------------------ who may use the admin API

-- A bearer token or a client certificate, and what its holder may do (acme_ca/admin/access.py). Of a token only the
-- SHA-256 of its secret is kept; a certificate is one of profile `operator` that holds the name.
CREATE TABLE api_token (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    name         text        NOT NULL,                   -- who: the audit says operator:NAME
    secret_sha256 bytea      CHECK (octet_length(secret_sha256) = 32),
    certificate_name text    COLLATE "C",                -- 'dns:alice.operators.example'
    role         text        NOT NULL CHECK (role IN ('viewer', 'operator', 'security_officer', 'administrator')),
    services     text[]      NOT NULL DEFAULT '{}',      -- what it is for; empty: everything
    created      timestamptz NOT NULL,
    made_by      text        COLLATE "C" NOT NULL,       -- as the audit names them: they have seen the secret
    expires      timestamptz,
    revoked      timestamptz,
    last_used    timestamptz,                            -- to the minute
    CONSTRAINT api_token_is_one_of_both CHECK ((secret_sha256 IS NULL) <> (certificate_name IS NULL))
);
-- A name says who it was: no two living ones share it.
CREATE UNIQUE INDEX api_token_name ON api_token (name) WHERE revoked IS NULL;
CREATE UNIQUE INDEX api_token_certificate ON api_token (certificate_name) WHERE revoked IS NULL AND certificate_name IS NOT NULL;

-- Wrong credentials, and until when their source has to wait. Unlogged: a crash forgives.
CREATE UNLOGGED TABLE login_failure (
    source       text        COLLATE "C" NOT NULL,       -- address
    token_id     text        COLLATE "C" NOT NULL,       -- '': none that there is
    failures     integer     NOT NULL,
    until        timestamptz NOT NULL,
    PRIMARY KEY (source, token_id)
);

-- Dangerous acts that wait for a second person (two-person approval).
CREATE TABLE approval (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    action       text        NOT NULL,                   -- the route's name
    request      json        NOT NULL,                   -- as it was sent: path parameters, query, body; services
    reason       text,
    requested_by text        NOT NULL,
    created      timestamptz NOT NULL,
    expires      timestamptz NOT NULL,
    decided      timestamptz,
    decided_by   text,
    decision     text        CHECK (decision IN ('approved', 'rejected')),
    outcome      json,                                   -- what the act answered: status and body
    CONSTRAINT approval_decided_whole CHECK ((decided IS NULL) = (decided_by IS NULL) AND (decided IS NULL) = (decision IS NULL)),
    CONSTRAINT approval_by_another CHECK (decided_by <> requested_by OR decision = 'rejected')
);

-- ------------------------------------------------------------------ services

CREATE TABLE service (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    body         jsonb       NOT NULL,                   -- acme_ca.core.services.Service but for id and state
    state        text        NOT NULL CHECK (state IN ('pending', 'approved', 'retired')),
    created      timestamptz NOT NULL,
    changed      timestamptz NOT NULL,
    approved     timestamptz,
    retired      timestamptz,
    CONSTRAINT service_retired_has_date CHECK ((state = 'retired') = (retired IS NOT NULL)),
    CONSTRAINT service_approved_has_date CHECK (state <> 'approved' OR approved IS NOT NULL)
);

-- ------------------------------------------------------------------ name policies

-- Beside the settings, the profiles and the EAB keys: rules of the whole server, and of services.
CREATE TABLE policy (
    scope        text        COLLATE "C" NOT NULL PRIMARY KEY,  -- 'server', 'service:ID'
    body         jsonb       NOT NULL,                   -- acme_ca.core.policy.NameRules
    changed      timestamptz NOT NULL
);

-- ------------------------------------------------------------------ accounts

-- A key ends its accounts' rights with it: `revoked` freezes them in the same statement.
CREATE TABLE eab_key (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    hmac_key     bytea       NOT NULL CHECK (octet_length(hmac_key) >= 32),
    owner        text        NOT NULL,
    service      text        COLLATE "C",                -- its accounts share profiles and may replace each other's certificates
    contact      text[]      NOT NULL DEFAULT '{}',
    max_accounts integer     CHECK (max_accounts > 0),   -- NULL: any number
    accounts     integer     NOT NULL DEFAULT 0 CHECK (accounts >= 0),
    restrictions jsonb       NOT NULL DEFAULT '{}',      -- acme_ca.core.eab.Restrictions, of all accounts made with it
    created      timestamptz NOT NULL,
    changed      timestamptz NOT NULL DEFAULT now(),
    approved     timestamptz,                            -- NULL: it waits for approval, and makes no accounts
    expires      timestamptz,                            -- no further accounts after this
    revoked      timestamptz,
    CONSTRAINT eab_key_not_overused CHECK (accounts <= max_accounts)
);
CREATE INDEX eab_key_changed ON eab_key (changed);
CREATE INDEX eab_key_service ON eab_key (service) WHERE service IS NOT NULL;

CREATE TABLE account (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    status       text        NOT NULL CHECK (status IN ('valid', 'deactivated', 'revoked')),
    jwk          json        NOT NULL,                   -- required members of the public key (RFC 7638 §3.2)
    thumbprint   text        COLLATE "C" NOT NULL UNIQUE, -- of the current key; a deactivated account keeps its key
    spki_sha256  bytea       NOT NULL UNIQUE,
    contact      text[]      NOT NULL DEFAULT '{}',
    terms_agreed timestamptz,
    eab_key_id   text        COLLATE "C" REFERENCES eab_key (id),
    eab_binding  json,                                   -- as the client sent it (RFC 8555 §7.1.2)
    created      timestamptz NOT NULL,
    created_from text        NOT NULL,                   -- address of the client
    frozen       timestamptz,                            -- by an operator, who may lift it: it can do nothing meanwhile
    CONSTRAINT account_binding_has_key CHECK ((eab_key_id IS NULL) = (eab_binding IS NULL))
);
CREATE INDEX account_eab_key ON account (eab_key_id) WHERE eab_key_id IS NOT NULL;
CREATE INDEX account_frozen ON account (id) WHERE frozen IS NOT NULL;

-- Names that an administrator approved: authorizations for them are born valid, without a challenge.
CREATE TABLE approved_scope (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    account_id   text        COLLATE "C" REFERENCES account (id),
    eab_key_id   text        COLLATE "C" REFERENCES eab_key (id),
    rule         text        NOT NULL,                   -- acme_ca.core.names.NameRule: exact, suffix or wildcard
    reason       text        NOT NULL,
    approved_by  text        NOT NULL,                   -- as the audit names them
    created      timestamptz NOT NULL,
    expires      timestamptz NOT NULL,
    revoked      timestamptz,
    CONSTRAINT approved_scope_for_one CHECK ((account_id IS NULL) <> (eab_key_id IS NULL))
);

-- ------------------------------------------------------------------ rate limits

-- How far each bucket is from full: it is full again at `full_at` (acme_ca/core/limits.py). Unlogged: after a crash all
-- are full. Those that are full are deleted.
CREATE UNLOGGED TABLE bucket (
    key          text        COLLATE "C" NOT NULL PRIMARY KEY,  -- 'orders-per-account:ID'
    full_at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Take a token from each bucket, or from none of them. `refused` is the place of the first that has none, and `free_at`
-- when it has one again; both are NULL when all had. A token comes back every `intervals`; `slacks` is how far from full
-- a bucket may be for one more to be taken. From those that are not to be spent nothing is taken: one must be there.
-- Keys come sorted, so that two callers never wait for each other. All or none without an exception: the statement goes
-- on, and PostgreSQL writes no error into its log each time that a client asks too often.
CREATE FUNCTION spend(keys text[], intervals interval[], slacks interval[], spends boolean[], moment timestamptz,
                      OUT refused integer, OUT free_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    deepest timestamptz;
BEGIN
    FOR i IN 1 .. cardinality(keys) LOOP
        IF spends[i] THEN
            INSERT INTO bucket AS b (key, full_at) VALUES (keys[i], moment + intervals[i])
            ON CONFLICT (key) DO UPDATE SET full_at = greatest(moment, b.full_at) + intervals[i]
            WHERE b.full_at <= moment + slacks[i];
            CONTINUE WHEN FOUND;
        END IF;
        SELECT b.full_at INTO free_at FROM bucket b WHERE b.key = keys[i];
        CONTINUE WHEN NOT spends[i] AND coalesce(free_at <= moment + slacks[i], true);
        refused := i;
        -- of a clock that was wrong, or of a limit that was larger: it is empty from now on, and no more than that
        deepest := moment + slacks[i] + intervals[i];
        IF free_at > deepest + interval '5 minutes' THEN
            UPDATE bucket b SET full_at = deepest WHERE b.key = keys[i];
            free_at := deepest;
        END IF;
        free_at := free_at - slacks[i];
        FOR j IN 1 .. i - 1 LOOP
            UPDATE bucket b SET full_at = b.full_at - intervals[j] WHERE b.key = keys[j] AND spends[j];
        END LOOP;
        RETURN;
    END LOOP;
    free_at := NULL;
END $$;

-- Refusals since the database was started anew after a crash, for the metrics.
CREATE UNLOGGED TABLE limit_refusal (
    kind         text        COLLATE "C" NOT NULL PRIMARY KEY,  -- acme_ca.core.limits.LimitKind, or 'paused'
    refusals     bigint      NOT NULL
);

CREATE TABLE limit_override (
    bucket       text        COLLATE "C" NOT NULL PRIMARY KEY,  -- its key: of bounded length, as `subject` is not
    kind         text        COLLATE "C" NOT NULL,       -- acme_ca.core.limits.LimitKind
    subject      text        COLLATE "C" NOT NULL,       -- the account, EAB key, network, names, … that it is for
    amount       integer     NOT NULL CHECK (amount > 0),
    period       integer     NOT NULL CHECK (period > 0),      -- seconds
    reason       text        NOT NULL,
    created      timestamptz NOT NULL,
    expires      timestamptz
);

-- Validations of an account that failed for a name again and again, none a day after the one before, since the last that
-- succeeded. A row goes with the next success, a day after the last failure, or when the pause is lifted.
CREATE TABLE pause (
    account_id   text        COLLATE "C" NOT NULL REFERENCES account (id),
    identifier   text        COLLATE "C" NOT NULL,
    failures     integer     NOT NULL CHECK (failures > 0),
    failed       timestamptz NOT NULL,                   -- the last time
    paused       timestamptz,                            -- since when the account cannot order the name; NULL: it can
    PRIMARY KEY (account_id, identifier)
);

-- ------------------------------------------------------------------ blocked keys

-- The operator's block list: keys that are neither certified nor an account's.
CREATE TABLE blocked_key (
    spki_sha256  bytea       NOT NULL PRIMARY KEY CHECK (octet_length(spki_sha256) = 32),
    comment      text        NOT NULL,
    actor        text        NOT NULL,
    created      timestamptz NOT NULL
);
CREATE INDEX blocked_key_created ON blocked_key (created, spki_sha256);

-- ------------------------------------------------------------------ issuers and profiles

-- Every CA certificate that this server knows. `active` intermediates sign what new orders ask for, the one activated
-- last; `retired` ones sign status only. Roots and cross-signed certificates sign no leaves and are `active` till retired.
CREATE TABLE issuer (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,  -- first half of the SHA-256 of the certificate
    der          bytea       NOT NULL UNIQUE,
    kind         text        NOT NULL CHECK (kind IN ('root', 'intermediate', 'cross')),
    parent_id    text        COLLATE "C" REFERENCES issuer (id),     -- NULL: signed by itself, or by one not known here
    spki_sha256  bytea       NOT NULL,
    key_uri      text,                                   -- where its key is; NULL: not within reach
    state        text        NOT NULL CHECK (state IN ('staged', 'active', 'retired')),
    open_shard   integer     NOT NULL DEFAULT 0 CHECK (open_shard >= 0),  -- the CRL shard of new certificates
    not_before   timestamptz NOT NULL,
    not_after    timestamptz NOT NULL,
    created      timestamptz NOT NULL,
    activated    timestamptz,
    retired      timestamptz,
    revoked      timestamptz,                            -- as a certificate of its parent
    reason       smallint    CHECK (reason BETWEEN 0 AND 10 AND reason NOT IN (6, 7, 8)),
    CONSTRAINT issuer_root_has_no_parent CHECK (kind <> 'root' OR parent_id IS NULL),
    CONSTRAINT issuer_active_has_date CHECK (state <> 'active' OR activated IS NOT NULL),
    CONSTRAINT issuer_retired_has_date CHECK ((state = 'retired') = (retired IS NOT NULL)),
    CONSTRAINT issuer_reason_with_date CHECK ((revoked IS NULL) = (reason IS NULL))
);

-- Keys made for issuers whose certificate another CA signs, until it is installed.
CREATE TABLE issuer_request (
    spki_sha256  bytea       NOT NULL PRIMARY KEY,
    csr          bytea       NOT NULL,
    key_uri      text        NOT NULL,
    created      timestamptz NOT NULL
);

CREATE TABLE profile (
    name         text        COLLATE "C" NOT NULL,
    version      integer     NOT NULL CHECK (version > 0),
    body         jsonb       NOT NULL,                   -- acme_ca.core.profiles.Profile
    built_in     boolean     NOT NULL,                   -- saved by the server at its start; an operator's is never replaced
    created      timestamptz NOT NULL,
    withdrawn    timestamptz,                            -- of the newest version: new orders cannot ask for the profile
    PRIMARY KEY (name, version)
);

-- ------------------------------------------------------------------ authorizations and orders

-- An authorization with its challenges: they share the token, and `challenge` is the one that the client answered.
CREATE TABLE authz (
    id           text        COLLATE "C" NOT NULL PRIMARY KEY,
    account_id   text        COLLATE "C" NOT NULL REFERENCES account (id),
    identifier   text        COLLATE "C" NOT NULL,
    status       text        NOT NULL CHECK (status IN ('pending', 'valid', 'invalid', 'deactivated', 'revoked')),
    expires      timestamptz NOT NULL,
    token        text        NOT NULL,
    offered      text[]      NOT NULL,
    challenge    text        CHECK (challenge IN ('http-01', 'dns-01', 'tls-alpn-01')),
    attempt_due  timestamptz,                            -- set while the challenge is processing: when the sweep may take it over
    validated    timestamptz,
    scope_id     text        COLLATE "C" REFERENCES approved_scope (id),  -- valid without a challenge because of this
    error        json,
    created      timestamptz NOT NULL,
    CONSTRAINT authz_offered CHECK (challenge IS NULL OR challenge = ANY (offered)),
    CONSTRAINT authz_wildcard_by_dns CHECK (identifier NOT LIKE 'dns:*.%' OR offered <@ ARRAY['dns-01']),
    CONSTRAINT authz_valid_has_date CHECK (status <> 'valid' OR (validated IS NOT NULL AND (challenge IS NOT NULL OR scope_id IS NOT NULL))),
    CONSTRAINT authz_invalid_has_error CHECK ((status = 'invalid') = (error IS NOT NULL)),
    CONSTRAINT authz_attempt_is_pending CHECK (attempt_due IS NULL OR (status = 'pending' AND challenge IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX authz_reusable ON authz (account_id, identifier) WHERE status = 'valid';
CREATE INDEX authz_scope ON authz (scope_id) WHERE scope_id IS NOT NULL;
CREATE INDEX authz_attempt ON authz (attempt_due) WHERE attempt_due IS NOT NULL;
-- What `retention` takes away, and what `evidence_retention` does: whichever row is due is found without the kept ones.
CREATE INDEX authz_dead ON authz (expires) WHERE validated IS NULL;
CREATE INDEX authz_evidence ON authz (expires) WHERE validated IS NOT NULL;

-- What validators asked, of which address, and what came back. Deleted with the authorization.
CREATE TABLE validation (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    authz_id     text        COLLATE "C" NOT NULL,
    account_id   text        COLLATE "C" NOT NULL,
    identifier   text        COLLATE "C" NOT NULL,
    challenge    text        NOT NULL,
    at           timestamptz NOT NULL,
    error        json,                                   -- NULL: it succeeded
    record       json        NOT NULL
);
CREATE INDEX validation_authz ON validation (authz_id);

-- `ready` is not stored: a pending order is ready when all its authorizations are valid (core/states.py).
CREATE TABLE orders (
    id           text        COLLATE "C" NOT NULL,
    account_id   text        COLLATE "C" NOT NULL REFERENCES account (id),
    status       text        NOT NULL CHECK (status IN ('pending', 'processing', 'valid', 'invalid')),
    identifiers  text[]      COLLATE "C" NOT NULL CHECK (cardinality(identifiers) BETWEEN 1 AND 100),
    authzs       text[]      COLLATE "C" NOT NULL,
    expires      timestamptz NOT NULL,
    not_before   timestamptz,                            -- as the client asked
    not_after    timestamptz,
    profile      text        COLLATE "C" NOT NULL,
    profile_version integer  NOT NULL,
    issuer_id    text        COLLATE "C" NOT NULL REFERENCES issuer (id),
    serial       text        COLLATE "C",
    replaces     text        COLLATE "C",                -- certificate identifier (RFC 9773 §4.1)
    renews       text[]      NOT NULL DEFAULT '{}',      -- names of the certificate that it replaces, which was due: limits do not count them
    error        json,
    created      timestamptz NOT NULL,
    PRIMARY KEY (id) INCLUDE (profile),                  -- for lists of one profile
    FOREIGN KEY (profile, profile_version) REFERENCES profile (name, version),
    CONSTRAINT orders_one_authz_each CHECK (cardinality(authzs) = cardinality(identifiers)),
    CONSTRAINT orders_serial_from_processing CHECK (serial IS NOT NULL OR status IN ('pending', 'invalid')),
    CONSTRAINT orders_invalid_has_error CHECK (error IS NULL OR status = 'invalid')
) WITH (fillfactor = 70);
CREATE INDEX orders_account ON orders (account_id, id) INCLUDE (profile);
-- Those that did not come to a certificate, among which operators look for what failed.
CREATE INDEX orders_open ON orders (id) INCLUDE (profile) WHERE status IN ('pending', 'invalid');
-- One living order replaces a certificate; when it dies the claim is released (RFC 9773 §5).
CREATE UNIQUE INDEX orders_replaces ON orders (replaces) WHERE replaces IS NOT NULL AND status <> 'invalid';
CREATE INDEX orders_processing ON orders (created) WHERE status = 'processing';
CREATE INDEX orders_dead ON orders (expires) WHERE status IN ('pending', 'invalid');
CREATE INDEX orders_evidence ON orders (expires) WHERE status = 'valid';

-- ------------------------------------------------------------------ certificates

-- A row is written before the signature is made (`tbs`), and completed after it (`der`): every signature is accounted
-- for, and what a crash left unsigned can still be revoked. Rows are never deleted.
CREATE TABLE certificate (
    serial       text        COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(serial) = 32),
    issuer_id    text        COLLATE "C" NOT NULL REFERENCES issuer (id),
    account_id   text        COLLATE "C" REFERENCES account (id),   -- NULL: the server's own, or an operator's
    order_id     text        COLLATE "C" UNIQUE,                     -- one certificate for one order
    profile      text        COLLATE "C" NOT NULL,
    profile_version integer  NOT NULL,
    identifiers  text[]      COLLATE "C" NOT NULL,
    spki_sha256  bytea       NOT NULL,
    not_before   timestamptz NOT NULL,
    not_after    timestamptz NOT NULL,
    shard        integer     NOT NULL CHECK (shard >= 0),            -- of its issuer's CRL, for ever
    recorded     timestamptz NOT NULL,
    tbs          bytea,
    der          bytea,
    revoked      timestamptz,
    reason       smallint    CHECK (reason BETWEEN 0 AND 10 AND reason NOT IN (7, 8)),  -- RFC 5280 §5.3.1; 6: on hold
    invalid_since timestamptz,                           -- invalidityDate (§5.3.2), where somebody knows it
    comment      text,                                   -- of who revoked it
    status_changed timestamptz,                          -- when last revoked, held, released, or given another reason
    window_start timestamptz,                            -- renewal window that an operator set (RFC 9773 §4.2)
    window_end   timestamptz,
    explanation_url text,                                -- why (§4.2)
    service      text        COLLATE "C",                -- of the account's EAB key, or whom an operator issued it for
    requested_by text        COLLATE "C",                -- 'operator:…' who had it issued, where no order asked for it
    words        tsvector    NOT NULL,                   -- what it is searched by (core.identifiers.search_words)
    FOREIGN KEY (profile, profile_version) REFERENCES profile (name, version),
    CONSTRAINT certificate_of_one_way CHECK (requested_by IS NULL OR (account_id IS NULL AND order_id IS NULL)),
    CONSTRAINT certificate_tbs_or_der CHECK ((tbs IS NULL) <> (der IS NULL)),
    CONSTRAINT certificate_reason_with_date CHECK ((revoked IS NULL) = (reason IS NULL)),
    CONSTRAINT certificate_revoked_is_changed CHECK (revoked IS NULL OR status_changed IS NOT NULL),
    CONSTRAINT certificate_window_whole CHECK ((window_start IS NULL) = (window_end IS NULL) AND window_start < window_end)
) WITH (fillfactor = 60, autovacuum_vacuum_insert_scale_factor = 0.02);
CREATE INDEX certificate_account ON certificate (account_id, recorded, serial) INCLUDE (not_after, revoked, issuer_id, profile, service);
-- What CRLs are made of.
CREATE INDEX certificate_status ON certificate (issuer_id, shard, not_after) WHERE status_changed IS NOT NULL;
-- The orders of lists, and of the audit. Most filters are answered from these alone (acme_ca/storage/certificate_list.py).
CREATE INDEX certificate_recorded ON certificate (recorded, serial) INCLUDE (not_after, revoked, issuer_id, profile, service);
CREATE INDEX certificate_end ON certificate (not_after, serial) INCLUDE (recorded, revoked, issuer_id, profile, service, account_id);
CREATE INDEX certificate_issuer ON certificate (issuer_id, recorded, serial) INCLUDE (not_after, revoked, profile, service);
CREATE INDEX certificate_issuer_end ON certificate (issuer_id, not_after, serial) INCLUDE (recorded, revoked, profile, service, account_id);
CREATE INDEX certificate_profile ON certificate (profile, recorded, serial) INCLUDE (not_after, revoked, issuer_id, service);
CREATE INDEX certificate_service ON certificate (service, recorded, serial) INCLUDE (not_after, revoked, issuer_id, profile) WHERE service IS NOT NULL;
CREATE INDEX certificate_revoked ON certificate (recorded, serial)
    INCLUDE (not_after, revoked, reason, issuer_id, profile, service, account_id) WHERE revoked IS NOT NULL;
CREATE INDEX certificate_revoked_end ON certificate (not_after, serial)
    INCLUDE (recorded, revoked, reason, issuer_id, profile, service, account_id) WHERE revoked IS NOT NULL;
CREATE INDEX certificate_held ON certificate (serial) WHERE reason = 6;
-- Without the list of pending entries: it would be put into the tree by some unlucky issuance.
CREATE INDEX certificate_words ON certificate USING gin (words) WITH (fastupdate = off);
-- Which certificates hold a key. A hash index: half the size of a tree over random digests.
CREATE INDEX certificate_key ON certificate USING hash (spki_sha256);
-- Keys that were revoked as compromised are never certified again.
CREATE INDEX certificate_compromised ON certificate (spki_sha256) WHERE reason = 1;

-- In whose hands an operator's credentials may be: whoever made one has seen its secret, and may have the key of a
-- certificate that they had issued; so may those who made theirs, and so on. '': of a certificate that an account ordered,
-- nobody can tell. Tokens of before that had the name count as well: a name may be freed and given again.
CREATE FUNCTION hands(operator text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH RECURSIVE hand (name) AS (
        SELECT ('operator:' || operator) COLLATE "C"
        UNION
        SELECT made.by FROM hand CROSS JOIN LATERAL (
            SELECT t.made_by FROM api_token t WHERE 'operator:' || t.name = hand.name
            UNION ALL
            SELECT coalesce(c.requested_by, '') FROM api_token t
            JOIN certificate c ON c.words @@ ('''=' || substr(t.certificate_name, 5) || '''')::tsquery
            WHERE 'operator:' || t.name = hand.name AND c.profile = 'operator' AND t.certificate_name = ANY (c.identifiers)
        ) AS made (by)
    )
    SELECT name FROM hand
$$;

-- ------------------------------------------------------------------ CRLs

-- Shards whose CRL has to be made anew: written by the statement that revokes, deleted by the one that stores the CRL.
CREATE TABLE crl_due (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer_id    text        COLLATE "C" NOT NULL REFERENCES issuer (id),
    shard        integer     NOT NULL CHECK (shard >= 0),
    at           timestamptz NOT NULL
);

-- The newest CRL of every shard, full and delta, and what the next is made from. Every issuer that is not cross-signed
-- has shard 0 from its beginning, and each further one from its opening on.
CREATE TABLE crl (
    issuer_id    text        COLLATE "C" NOT NULL REFERENCES issuer (id),
    shard        integer     NOT NULL CHECK (shard >= 0),
    number       bigint      NOT NULL CHECK (number > 0),            -- of both; only goes up (RFC 5280 §5.2.3)
    this_update  timestamptz NOT NULL,
    next_update  timestamptz NOT NULL,                               -- of the full CRL
    entries      integer     NOT NULL CHECK (entries >= 0),
    der          bytea       NOT NULL,
    delta        bytea,                                              -- NULL: a root has none
    urls         text[]      NOT NULL,                               -- by which certificates know it
    base_number  bigint      NOT NULL,                               -- the full CRL that deltas refer to,
    base_at      timestamptz NOT NULL,                               -- its thisUpdate,
    base         bytea       NOT NULL,                               -- and its entries (acme_ca/core/crl.py)
    lists_after  timestamptz NOT NULL,                               -- what ended later is listed
    opened       timestamptz NOT NULL,                               -- when certificates began to be issued for it
    closed       timestamptz,                                        -- when the next shard took its place
    taken        bigint      NOT NULL DEFAULT 0,                     -- certificates recorded until `counted`
    counted      timestamptz NOT NULL,
    ends         timestamptz,                                        -- when the last certificate of a closed shard ends
    PRIMARY KEY (issuer_id, shard),
    CONSTRAINT crl_base_is_older CHECK (base_number <= number AND lists_after <= base_at)
);
ALTER TABLE crl ALTER der SET STORAGE EXTERNAL, ALTER delta SET STORAGE EXTERNAL, ALTER base SET STORAGE EXTERNAL;

-- ------------------------------------------------------------------ audit

-- Who did what to which object, written in the transaction of the act. Nothing here is ever changed or deleted.
CREATE TABLE audit_event (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    event        text        NOT NULL,
    actor        text        NOT NULL,                   -- 'account:…', 'key:…', 'operator:…', 'server'
    source       text        NOT NULL DEFAULT '',        -- address, 'socket'; '': this machine
    object       text        NOT NULL,                   -- 'account:…', 'order:…', 'certificate:…', 'eab_key:…', 'key:…'
    detail       json        NOT NULL DEFAULT '{}'       -- what was changed: before and after
);
CREATE INDEX audit_event_object ON audit_event (object);
-- The order of lists, with what most filters ask about.
CREATE INDEX audit_event_at ON audit_event (at, id) INCLUDE (actor, event);
CREATE INDEX audit_event_actor ON audit_event (actor, at, id) INCLUDE (event);
CREATE INDEX audit_event_source ON audit_event (source, at, id) INCLUDE (event);
-- Issuing does not write to this one: what it adds is found by the actor, the object, or the time.
CREATE INDEX audit_event_rare ON audit_event (event, at, id) INCLUDE (actor) WHERE event <> 'certificate.issued';

-- Certificates of the keys that sign seals.
CREATE TABLE audit_signer (
    sha256       bytea       NOT NULL PRIMARY KEY CHECK (octet_length(sha256) = 32),  -- of `der`
    der          bytea       NOT NULL
);

-- Batches of events in a hash chain (acme_ca/audit/chain.py): each seal covers the events behind the last one's, and is
-- signed by a key that is not in the database.
CREATE TABLE audit_seal (
    id           bigint      NOT NULL PRIMARY KEY,       -- 1, 2, 3, …
    at           timestamptz NOT NULL,
    origin       text        NOT NULL,                   -- `public_url` of the CA
    first_event  bigint      NOT NULL,                   -- ids; what is between them and not listed never was
    last_event   bigint      NOT NULL UNIQUE,
    entries      bytea       NOT NULL CHECK (octet_length(entries) % 40 = 0),  -- of each event: id (8 bytes), SHA-256
    previous     bytea       NOT NULL CHECK (octet_length(previous) = 32),  -- hash of the seal before; zeros for the first
    hash         bytea       NOT NULL CHECK (octet_length(hash) = 32),
    signature    bytea       NOT NULL,
    signer       bytea       NOT NULL REFERENCES audit_signer (sha256)
);
ALTER TABLE audit_seal ALTER entries SET STORAGE EXTERNAL;  -- hashes do not shrink

-- How far events were handed on to syslog and the webhook.
CREATE TABLE audit_forward (
    target       text        COLLATE "C" NOT NULL PRIMARY KEY,  -- 'syslog', 'webhook'
    last_event   bigint      NOT NULL,
    changed      timestamptz NOT NULL
);

-- Nobody changes or deletes events, signers and seals. The owner of the tables can take the triggers away: then `audit verify` tells.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_signer FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_seal FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_event FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_signer FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_seal FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- The last event that no other can still come before. Who writes an event holds ROW EXCLUSIVE from before its id is drawn
-- until the end of its transaction: with SHARE, all drawn ids are committed or will never be. An id above the last that was
-- drawn is one that somebody chose: all others still come before it. With the owner's rights, since SHARE needs more than
-- those to insert and read.
CREATE FUNCTION audit_settled() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
BEGIN
    LOCK TABLE audit_event IN SHARE MODE;
    RETURN (SELECT max(id) FROM audit_event WHERE id <= (SELECT last_value FROM audit_event_id_seq));
END $$;

-- Certificates recorded since then have their orders, authorizations and successful validation records here. Those of
-- earlier ones may be gone (`evidence_retention`). No row: nothing was ever deleted.
CREATE TABLE evidence (
    only_row    boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    complete_since timestamptz NOT NULL
);
