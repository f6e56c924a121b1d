#!/usr/bin/env python3
"""Writes django_sessions.jsonl: what Django itself stores, for the tests of src/django.

    pip install django==5.2.19
    python3 django_sessions.py > django_sessions.jsonl

With `--check` it reads lines `{"secret_key", "session_data", "data"}` from standard input and fails unless Django
reads each session_data as data: the other direction.
"""
import calendar
import json
import sys
import time
from datetime import datetime, timezone

import django
from django.conf import settings

KEY, OLD = "k\u00e9y-" + "x" * 60, "the-key-before"
settings.configure(SECRET_KEY=KEY, INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
django.setup()
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.backends.db import SessionStore
from django.core import signing
from django.db import models
from django.utils.dateparse import parse_datetime

SALT = "django.contrib.sessions.SessionStore"


class Member(AbstractBaseUser):
    username = models.TextField()
    USERNAME_FIELD = "username"

    class Meta:
        app_label = "vectors"


def check():
    count = 0
    for line in sys.stdin:
        case = json.loads(line)
        read = signing.loads(case["session_data"], key=case["secret_key"], salt=SALT)
        assert read == case["data"], (read, case["data"])
        count += 1
    assert count, "nothing to check"
    print(f"Django {django.__version__} reads all {count}")


def write():
    time.time = lambda: 1795334400.0

    def line(kind, **fields):
        print(json.dumps({"kind": kind, **fields}, ensure_ascii=False))

    logged_in = {
        "_auth_user_id": "1",
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": "ab" * 32,
    }
    contents = {
        "empty": {},
        "short": {"a": 1},
        "logged in": logged_in,
        "number for an id": {**logged_in, "_auth_user_id": 7},
        "uuid for an id": {**logged_in, "_auth_user_id": "6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b"},
        "nobody": {**logged_in, "_auth_user_id": None},
        "csrf": {**logged_in, "_csrftoken": "aZ09" * 8},
        "browser": {**logged_in, "_session_expiry": 0},
        "five minutes": {**logged_in, "_session_expiry": 300},
        "then": {**logged_in, "_session_expiry": "2027-01-02T03:04:05.000006+00:00"},
        "far away": {**logged_in, "_session_expiry": "2027-01-02T03:04:05+05:30"},
        "text": {"caf\u00e9": "\u5c71\u7530 \U0001f600 \"quoted\" \\ / \x00\x1f\x7f", "\U0001f600": "k"},
        "numbers": {"n": [0, -1, 1.5, 1e300, 123456789012345678901234567890, 0.1 + 0.2, True, None]},
        "surrogate": {"s": "\ud800"},
        "nested": {"a": [[[[{"b": [{}]}]]]], "cart": [f"item-{n}" for n in range(300)]},
    }
    for name, data in contents.items():
        for key, has_old in ((KEY, False), (OLD, True)):
            settings.SECRET_KEY = key
            stored = SessionStore().encode(data)
            line("session", name=name, is_fallback=has_old, session_data=stored,
                 data=json.dumps(data, separators=(",", ":")), is_compressed=stored.startswith("."))
    settings.SECRET_KEY = KEY
    # What Django takes for an empty session, although it is well signed.
    store = SessionStore()
    sign = signing.TimestampSigner(salt=SALT).sign
    b64 = lambda data: signing.b64_encode(data).decode()
    bad = {
        "no json": sign(b64(b"not json")),
        "no base64": sign("*"),
        "no zlib": sign("." + b64(b"not zlib")),
        "cut off": sign(store.encode(contents["nested"]).split(":")[0][:-40]),
        "no timestamp": signing.Signer(salt=SALT).sign(b64(b"{}")),
        "empty timestamp": signing.Signer(salt=SALT).sign(b64(b"{}") + ":"),
        "another salt": signing.dumps({}, salt="other"),
        "another key": signing.dumps({}, salt=SALT, key="other"),
        "nothing": "", "colons": "::", "no colon": "abc",
    }
    for name, stored in bad.items():
        assert store.decode(stored) == {}, name
        line("bad", name=name, session_data=stored)
    # Latin-1 within, which another serializer may have written.
    stored = sign(b64(b'{"caf\xe9": "\xff"}'))
    line("session", name="latin-1", is_fallback=False, session_data=stored,
         data=json.dumps(store.decode(stored), separators=(",", ":")), is_compressed=False)
    for password in ("", "pbkdf2_sha256$1000000$salt$hash=", "!unusable", "caf\u00e9 \U0001f600"):
        user = Member(username="u", password=password)
        settings.SECRET_KEY_FALLBACKS = [OLD]
        line("auth_hash", password=password, current=user.get_session_auth_hash(),
             fallback=next(user.get_session_auth_fallback_hash()))
    moments = [(1, 1, 1), (1969, 12, 31, 23, 59, 59), (1970, 1, 1), (2000, 2, 29, 12, 0, 0, 1),
               (2026, 11, 22, 9, 8, 7), (2026, 11, 22, 9, 8, 7, 120000), (2100, 3, 1), (9999, 12, 31, 23, 59, 59, 999999)]
    for parts in moments:
        moment = datetime(*parts, tzinfo=timezone.utc)
        # sqlite3 gets str() of the naive UTC value.
        text = str(moment.replace(tzinfo=None))
        assert parse_datetime(text) == moment.replace(tzinfo=None)
        line("datetime", text=text, seconds=calendar.timegm(moment.timetuple()), microseconds=moment.microsecond)
    for text in ("2026-11-22T09:08:07Z", "2026-11-22 09:08", "2026-11-22 09:08:07.5", "2026-11-22 09:08:07.1234567",
                 "2026-11-22T09:08:07+05:30", "2026-11-22T09:08:07-0100", "2026-11-22 09:08:07+02"):
        moment = parse_datetime(text)
        utc = moment.astimezone(timezone.utc) if moment.tzinfo else moment
        line("parse", text=text, seconds=calendar.timegm(utc.timetuple()), microseconds=utc.microsecond)
    line("keys", secret_key=KEY, fallback=OLD)


check() if sys.argv[1:] == ["--check"] else write()
