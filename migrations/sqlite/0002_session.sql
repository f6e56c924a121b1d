-- Sessions: what a browser's cookie names. Of the cookie only the SHA-256 digest is stored.
--
-- A session is void once the user's password is another one than at the login.

CREATE TABLE session (
    digest           BLOB    NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    user_id          INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    password_version INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_user ON session (user_id);
CREATE INDEX session_expiry ON session (expires_at);

-- The column of the table of changes is for the digest of any credential.
CREATE TRIGGER session_deleted AFTER DELETE ON session BEGIN
    INSERT INTO change (token_digest) VALUES (old.digest);
END;
CREATE TRIGGER session_updated AFTER UPDATE ON session BEGIN
    INSERT INTO change (token_digest) VALUES (old.digest);
END;
