-- Users, groups, tokens, and the table of changes that keeps caches true.
--
-- Times are seconds since 1970. Text compares bytewise (SQLite's BINARY), so names are exact.
-- A migration that was once released is never edited: the next one changes what it made.

CREATE TABLE user (
    id               INTEGER PRIMARY KEY AUTOINCREMENT, -- a key is never given out twice
    username         TEXT    NOT NULL UNIQUE,
    password         TEXT    NOT NULL,                  -- PHC string
    email            TEXT    NOT NULL,
    is_active        INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    is_staff         INTEGER NOT NULL DEFAULT 0 CHECK (is_staff IN (0, 1)),
    password_version INTEGER NOT NULL DEFAULT 0,
    not_before       INTEGER NOT NULL DEFAULT 0,        -- credentials made earlier are void
    created_at       INTEGER NOT NULL
) STRICT;

CREATE TABLE user_group (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE membership (
    user_id  INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    group_id INTEGER NOT NULL REFERENCES user_group (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_group ON membership (group_id);

CREATE TABLE token (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id    INTEGER NOT NULL UNIQUE,               -- the 64 bits of an unsigned number
    digest       BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32),
    user_id      INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    name         TEXT    NOT NULL,
    origin       TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,                               -- NULL: never
    last_used_at INTEGER                                -- NULL: never
) STRICT;
CREATE INDEX token_user ON token (user_id);
CREATE INDEX token_expiry ON token (expires_at) WHERE expires_at IS NOT NULL;

-- One row for each cached answer that a commit made void. Numbers have no gaps (a transaction that is rolled back
-- gives its numbers back), so that a reader can tell that rows were pruned which it had not read.
CREATE TABLE change (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    token_digest BLOB,
    user_id      INTEGER,
    at           INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

CREATE TRIGGER token_inserted AFTER INSERT ON token BEGIN
    INSERT INTO change (token_digest) VALUES (new.digest);
END;
CREATE TRIGGER token_deleted AFTER DELETE ON token BEGIN
    INSERT INTO change (token_digest) VALUES (old.digest);
END;
CREATE TRIGGER token_updated AFTER UPDATE OF public_id, digest, user_id, created_at, expires_at ON token BEGIN
    INSERT INTO change (token_digest) VALUES (old.digest);
    INSERT INTO change (token_digest) SELECT new.digest WHERE new.digest <> old.digest;
END;

CREATE TRIGGER user_updated
AFTER UPDATE OF id, username, password, email, is_active, is_staff, password_version, not_before ON user BEGIN
    INSERT INTO change (user_id) VALUES (old.id);
END;
CREATE TRIGGER user_deleted AFTER DELETE ON user BEGIN
    INSERT INTO change (user_id) VALUES (old.id);
END;

CREATE TRIGGER membership_inserted AFTER INSERT ON membership BEGIN
    INSERT INTO change (user_id) VALUES (new.user_id);
END;
CREATE TRIGGER membership_deleted AFTER DELETE ON membership BEGIN
    INSERT INTO change (user_id) VALUES (old.user_id);
END;
CREATE TRIGGER membership_updated AFTER UPDATE ON membership BEGIN
    INSERT INTO change (user_id) VALUES (old.user_id);
    INSERT INTO change (user_id) SELECT new.user_id WHERE new.user_id <> old.user_id;
END;

CREATE TRIGGER group_renamed AFTER UPDATE OF name ON user_group BEGIN
    INSERT INTO change (user_id) SELECT user_id FROM membership WHERE group_id = old.id;
END;
-- Before, not by the cascade alone: a foreign tool may have foreign keys switched off.
CREATE TRIGGER group_deleted BEFORE DELETE ON user_group BEGIN
    INSERT INTO change (user_id) SELECT user_id FROM membership WHERE group_id = old.id;
END;
