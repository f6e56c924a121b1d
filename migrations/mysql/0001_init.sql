-- Users, groups, tokens, sessions, and the table of changes that keeps caches true.
--
-- Times are seconds since 1970. Names are kept as bytes (UTF-8): collations find other spellings, and pad with blanks.
-- MySQL commits each of these statements by itself, so that each of them can be run again.
-- A migration that was once released is never edited: the next one changes what it made.

CREATE TABLE IF NOT EXISTS "user" (
    id               BIGINT          NOT NULL AUTO_INCREMENT PRIMARY KEY,
    username         VARBINARY(1024) NOT NULL UNIQUE,
    password         VARBINARY(2048) NOT NULL,              -- PHC string
    email            VARBINARY(1024) NOT NULL,
    is_active        BOOLEAN         NOT NULL DEFAULT TRUE,
    is_staff         BOOLEAN         NOT NULL DEFAULT FALSE,
    password_version BIGINT          NOT NULL DEFAULT 0,
    not_before       BIGINT          NOT NULL DEFAULT 0,    -- credentials made earlier are void
    created_at       BIGINT          NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS user_group (
    id   BIGINT          NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARBINARY(1024) NOT NULL UNIQUE
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS membership (
    user_id  BIGINT NOT NULL,
    group_id BIGINT NOT NULL,
    PRIMARY KEY (user_id, group_id),
    CONSTRAINT membership_user FOREIGN KEY (user_id) REFERENCES "user" (id) ON DELETE CASCADE,
    CONSTRAINT membership_group FOREIGN KEY (group_id) REFERENCES user_group (id) ON DELETE CASCADE
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS token (
    id           BIGINT          NOT NULL AUTO_INCREMENT PRIMARY KEY,
    public_id    BIGINT          NOT NULL UNIQUE,           -- the 64 bits of an unsigned number
    digest       BINARY(32)      NOT NULL UNIQUE,
    user_id      BIGINT          NOT NULL,
    name         VARBINARY(1024) NOT NULL,
    origin       VARBINARY(32)   NOT NULL,
    created_at   BIGINT          NOT NULL,
    expires_at   BIGINT,                                    -- NULL: never
    last_used_at BIGINT,                                    -- NULL: never
    KEY token_expiry (expires_at),
    CONSTRAINT token_user FOREIGN KEY (user_id) REFERENCES "user" (id) ON DELETE CASCADE
) ENGINE = InnoDB;

-- What a browser's cookie names. Of the cookie only the SHA-256 digest is stored.
-- A session is void once the user's password is another one than at the login.
CREATE TABLE IF NOT EXISTS session (
    digest           BINARY(32) NOT NULL PRIMARY KEY,
    user_id          BIGINT     NOT NULL,
    password_version BIGINT     NOT NULL,
    created_at       BIGINT     NOT NULL,
    expires_at       BIGINT     NOT NULL,
    KEY session_expiry (expires_at),
    CONSTRAINT session_user FOREIGN KEY (user_id) REFERENCES "user" (id) ON DELETE CASCADE
) ENGINE = InnoDB;

-- One row for each cached answer that a commit made void. Numbers have no gaps and are in the order of the commits,
-- which AUTO_INCREMENT would not give: whoever changes something first takes the one row of the counter.
CREATE TABLE IF NOT EXISTS change_counter (
    is_only TINYINT NOT NULL DEFAULT 1 PRIMARY KEY,
    newest  BIGINT  NOT NULL
) ENGINE = InnoDB;
INSERT IGNORE INTO change_counter (is_only, newest) VALUES (1, 0);

CREATE TABLE IF NOT EXISTS "change" (
    sequence     BIGINT NOT NULL PRIMARY KEY,
    token_digest BINARY(32),
    user_id      BIGINT,
    at           BIGINT NOT NULL
) ENGINE = InnoDB;

DROP PROCEDURE IF EXISTS record_change;
CREATE PROCEDURE record_change(IN voided_digest BINARY(32), IN voided_user BIGINT) MODIFIES SQL DATA
BEGIN
    UPDATE change_counter SET newest = newest + 1;
    INSERT INTO "change" (sequence, token_digest, user_id, at)
        SELECT newest, voided_digest, voided_user, unix_timestamp() FROM change_counter;
END;

DROP TRIGGER IF EXISTS token_inserted;
CREATE TRIGGER token_inserted AFTER INSERT ON token FOR EACH ROW
BEGIN
    CALL record_change(NEW.digest, NULL);
END;

DROP TRIGGER IF EXISTS token_deleted;
CREATE TRIGGER token_deleted AFTER DELETE ON token FOR EACH ROW
BEGIN
    CALL record_change(OLD.digest, NULL);
END;

DROP TRIGGER IF EXISTS token_updated;
CREATE TRIGGER token_updated AFTER UPDATE ON token FOR EACH ROW
BEGIN
    IF NOT (OLD.public_id <=> NEW.public_id AND OLD.digest <=> NEW.digest AND OLD.user_id <=> NEW.user_id
        AND OLD.created_at <=> NEW.created_at AND OLD.expires_at <=> NEW.expires_at) THEN
        CALL record_change(OLD.digest, NULL);
        IF OLD.digest <> NEW.digest THEN
            CALL record_change(NEW.digest, NULL);
        END IF;
    END IF;
END;

DROP TRIGGER IF EXISTS session_deleted;
CREATE TRIGGER session_deleted AFTER DELETE ON session FOR EACH ROW
BEGIN
    CALL record_change(OLD.digest, NULL);
END;

DROP TRIGGER IF EXISTS session_updated;
CREATE TRIGGER session_updated AFTER UPDATE ON session FOR EACH ROW
BEGIN
    CALL record_change(OLD.digest, NULL);
    IF OLD.digest <> NEW.digest THEN
        CALL record_change(NEW.digest, NULL);
    END IF;
END;

DROP TRIGGER IF EXISTS user_updated;
CREATE TRIGGER user_updated AFTER UPDATE ON "user" FOR EACH ROW
BEGIN
    IF NOT (OLD.id <=> NEW.id AND OLD.username <=> NEW.username AND OLD.password <=> NEW.password
        AND OLD.email <=> NEW.email AND OLD.is_active <=> NEW.is_active AND OLD.is_staff <=> NEW.is_staff
        AND OLD.password_version <=> NEW.password_version AND OLD.not_before <=> NEW.not_before) THEN
        CALL record_change(NULL, OLD.id);
        IF OLD.id <> NEW.id THEN
            CALL record_change(NULL, NEW.id);
        END IF;
    END IF;
END;

-- What a foreign key deletes fires no triggers here, so the rows are deleted before it can.
DROP TRIGGER IF EXISTS user_deleted;
CREATE TRIGGER user_deleted BEFORE DELETE ON "user" FOR EACH ROW
BEGIN
    DELETE FROM token WHERE user_id = OLD.id;
    DELETE FROM session WHERE user_id = OLD.id;
    DELETE FROM membership WHERE user_id = OLD.id;
    CALL record_change(NULL, OLD.id);
END;

DROP TRIGGER IF EXISTS membership_inserted;
CREATE TRIGGER membership_inserted AFTER INSERT ON membership FOR EACH ROW
BEGIN
    CALL record_change(NULL, NEW.user_id);
END;

DROP TRIGGER IF EXISTS membership_deleted;
CREATE TRIGGER membership_deleted AFTER DELETE ON membership FOR EACH ROW
BEGIN
    CALL record_change(NULL, OLD.user_id);
END;

DROP TRIGGER IF EXISTS membership_updated;
CREATE TRIGGER membership_updated AFTER UPDATE ON membership FOR EACH ROW
BEGIN
    CALL record_change(NULL, OLD.user_id);
    IF OLD.user_id <> NEW.user_id THEN
        CALL record_change(NULL, NEW.user_id);
    END IF;
END;

DROP TRIGGER IF EXISTS group_renamed;
CREATE TRIGGER group_renamed AFTER UPDATE ON user_group FOR EACH ROW
BEGIN
    DECLARE is_done BOOLEAN DEFAULT FALSE;
    DECLARE member BIGINT;
    DECLARE members CURSOR FOR SELECT user_id FROM membership WHERE group_id = OLD.id;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET is_done = TRUE;
    IF NOT (OLD.name <=> NEW.name) THEN
        OPEN members;
        telling: LOOP
            FETCH members INTO member;
            IF is_done THEN
                LEAVE telling;
            END IF;
            CALL record_change(NULL, member);
        END LOOP;
        CLOSE members;
    END IF;
END;

-- As for users.
DROP TRIGGER IF EXISTS group_deleted;
CREATE TRIGGER group_deleted BEFORE DELETE ON user_group FOR EACH ROW
BEGIN
    DELETE FROM membership WHERE group_id = OLD.id;
END;
