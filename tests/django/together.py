#!/usr/bin/env python3
"""Django and doorward with one SQLite file, both running: what one side does, the other knows.

    together.py DOORWARD

Starts both on free ports, does one thing after the other, stops both by process id. One line for each claim; the exit
code is 1 if one does not hold. Runs in the virtual environment that `prepare` makes.
"""
import base64
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).parent
# What doorward promises: [cache] revocation_bound.
BOUND = 1.0
PASSWORD = "p\u00e4ssw\u00f6rd \u2713"


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.body = status, body
        self.location = next((value for name, value in fields if name.lower() == "location"), None)
        # Name to value; an empty one was deleted.
        self.cookies = {}
        for name, value in fields:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0].strip('"')

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.cookies} {self.body[:200]!r}"


class Side:
    """One of the two servers, with what a browser would send."""

    def __init__(self, port, is_tls):
        self.port, self.is_tls = port, is_tls
        self.context = ssl._create_unverified_context() if is_tls else None

    def ask(self, method, path, fields=None, body=None, cookies=None):
        if self.is_tls:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        fields = dict(fields or {})
        if cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if self.is_tls:
            fields.setdefault("Referer", f"https://127.0.0.1:{self.port}/")
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=fields)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())

    def form(self, path, values, cookies=None):
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, fields, urlencode(values).encode(), cookies)

    def log_in(self, username, password=PASSWORD):
        """By the login page; the cookies of the new session."""
        page = self.ask("GET", "/accounts/login/")
        assert page.status == 200, page
        token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]*)"', page.body)[1].decode()
        values = {"username": username, "password": password, "csrfmiddlewaretoken": token}
        answer = self.form("/accounts/login/", values, page.cookies)
        assert answer.status == 302 and answer.location == "/done/", answer
        assert {"sessionid", "csrftoken"} <= answer.cookies.keys(), answer
        return answer.cookies

    def log_out(self, cookies):
        answer = self.form("/accounts/logout/", {"csrfmiddlewaretoken": cookies["csrftoken"]}, cookies)
        assert answer.status == 302, answer
        assert answer.cookies.get("sessionid") == "", answer

    def obtain(self, username, password=PASSWORD):
        answer = self.form("/api-token-auth/", {"username": username, "password": password})
        assert answer.status == 200, answer
        return answer.json()["token"]


def token(key):
    return {"Authorization": f"Token {key}"}


def basic(username, password=PASSWORD):
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


class Together:
    """Both sides, and what is claimed of them."""

    def __init__(self, django, doorward):
        self.django, self.doorward = django, doorward

    def by_session(self, cookies):
        """Who doorward takes this browser for; None: nobody."""
        answer = self.doorward.ask("GET", "/app/session/", cookies=cookies)
        return self.user(answer, 403)

    def by_token(self, key, path="/app/token/", refused=401):
        return self.user(self.doorward.ask("GET", path, token(key)), refused)

    def by_password(self, username, password=PASSWORD):
        return self.user(self.doorward.ask("GET", "/app/basic/", basic(username, password)), 401)

    @staticmethod
    def user(answer, refused):
        assert answer.status in (200, refused), answer
        return answer.json()["user"] if answer.status == 200 else None

    def in_django(self, cookies):
        return self.user(self.django.ask("GET", "/me/", cookies=cookies), 403)

    @staticmethod
    def soon(what, expected):
        """What is asked from one bound after now on is as expected; before, it may be."""
        changed = time.monotonic()
        first = None
        while True:
            asked = time.monotonic() - changed
            found = what()
            if found == expected:
                first = asked if first is None else first
            else:
                assert asked < BOUND, f"{found!r} after {asked:.3f} s, not {expected!r}"
                first = None
            if asked >= BOUND + 0.2:
                return first

    # --- claims

    def a_session_of_django_is_one_of_doorward(self):
        cookies = self.django.log_in(add("zo\u00eb"))
        assert self.by_session(cookies) == "zo\u00eb"
        assert self.by_session({"sessionid": cookies["sessionid"][:-1] + "!"}) is None

    def a_session_of_doorward_is_one_of_django(self):
        username = add("ada")
        assert User.objects.get(username=username).last_login is None
        cookies = self.doorward.log_in(username)
        assert self.in_django(cookies) == username
        assert self.by_session(cookies) == username
        assert User.objects.get(username=username).last_login is not None

    def a_wrong_password_makes_no_session(self):
        username = add("mia")
        page = self.doorward.ask("GET", "/accounts/login/")
        mask = re.search(rb'name="csrfmiddlewaretoken" value="([^"]*)"', page.body)[1].decode()
        values = {"username": username, "password": "wrong", "csrfmiddlewaretoken": mask}
        answer = self.doorward.form("/accounts/login/", values, page.cookies)
        assert answer.status == 200 and "sessionid" not in answer.cookies, answer
        assert User.objects.get(username=username).last_login is None

    def a_logout_in_django_ends_the_session_in_doorward(self):
        cookies = self.django.log_in(add("bob"))
        assert self.by_session(cookies) == self.by_session(cookies) == "bob"
        self.django.log_out(cookies)
        return self.soon(lambda: self.by_session(cookies), None)

    def a_logout_in_doorward_ends_the_session_in_django(self):
        cookies = self.doorward.log_in(add("cyd"))
        assert self.in_django(cookies) == "cyd"
        self.doorward.log_out(cookies)
        assert self.in_django(cookies) is None
        assert self.by_session(cookies) is None
        assert not Session.objects.filter(session_key=cookies["sessionid"]).exists()

    def a_logout_in_doorward_ends_a_session_of_django(self):
        cookies = self.django.log_in(add("dan"))
        self.doorward.log_out(cookies)
        assert self.in_django(cookies) is None

    def the_csrf_cookie_of_either_side_is_good_for_the_other(self):
        for side in (self.django, self.doorward):
            cookies = side.log_in(add(f"csrf-{side.port}"))
            wrong = {"X-CSRFToken": "x" * 32}
            right = {"X-CSRFToken": cookies["csrftoken"]}
            for other, path in ((self.django, "/me/"), (self.doorward, "/app/session/")):
                assert other.ask("POST", path, wrong, cookies=cookies).status == 403
                answer = other.ask("POST", path, right, cookies=cookies)
                assert answer.status == 200, answer

    def a_token_of_django_is_one_of_doorward_until_it_is_deleted(self):
        key = Token.objects.create(user=User.objects.get(username=add("eve"))).key
        assert self.by_token(key) == self.by_token(key) == "eve"
        Token.objects.filter(key=key).delete()
        return self.soon(lambda: self.by_token(key), None)

    def a_token_that_doorward_did_not_know_is_known_when_django_makes_it(self):
        user = User.objects.get(username=add("fay"))
        key = "0123456789abcdef0123456789abcdef01234567"
        assert self.by_token(key) is None
        Token.objects.create(user=user, key=key)
        return self.soon(lambda: self.by_token(key), "fay")

    def obtain_token_gives_the_key_that_django_has(self):
        key = self.django.obtain(add("gil"))
        assert self.doorward.obtain("gil") == key
        assert self.by_token(key) == "gil"

    def obtain_token_makes_the_key_that_django_then_has(self):
        key = self.doorward.obtain(add("hal"))
        assert re.fullmatch("[0-9a-f]{40}", key), key
        assert Token.objects.get(user__username="hal").key == key
        assert self.django.obtain("hal") == self.doorward.obtain("hal") == key
        assert self.django.ask("GET", "/me/", token(key)).json()["user"] == "hal"

    def a_deactivated_user_is_refused_and_an_activated_one_passes(self):
        username = add("ivy")
        key, cookies = self.django.obtain(username), self.django.log_in(username)
        assert self.by_token(key) == self.by_session(cookies) == username
        User.objects.filter(username=username).update(is_active=False)
        first = self.soon(lambda: (self.by_token(key), self.by_session(cookies)), (None, None))
        answer = self.doorward.ask("GET", "/app/token/", token(key))
        assert answer.json() == {"detail": "User inactive or deleted."}, answer
        assert self.by_password(username) is None
        User.objects.filter(username=username).update(is_active=True)
        return max(first, self.soon(lambda: (self.by_token(key), self.by_session(cookies)), (username, username)))

    def a_deleted_user_is_refused(self):
        username = add("jon")
        key, cookies = self.django.obtain(username), self.django.log_in(username)
        assert self.by_token(key) == self.by_session(cookies) == username
        User.objects.get(username=username).delete()
        return self.soon(lambda: (self.by_token(key), self.by_session(cookies)), (None, None))

    def a_changed_password_ends_sessions_and_is_the_one_that_counts(self):
        username = add("kim")
        sessions = [self.django.log_in(username), self.doorward.log_in(username)]
        assert [self.by_session(cookies) for cookies in sessions] == [username] * 2
        assert self.by_password(username) == username
        user = User.objects.get(username=username)
        user.set_password("another")
        user.save()
        first = self.soon(lambda: [self.by_session(cookies) for cookies in sessions], [None] * 2)
        self.soon(lambda: self.by_password(username), None)
        assert self.by_password(username, "another") == username
        assert [self.in_django(cookies) for cookies in sessions] == [None] * 2
        return first

    def a_password_of_another_hasher_counts(self):
        user = User.objects.get(username=add("lea"))
        user.password = make_password(PASSWORD, hasher="scrypt")
        user.save()
        assert self.by_password("lea") == "lea"
        assert self.by_password("lea", "wrong") is None

    def who_becomes_staff_may_and_who_is_no_more_may_not(self):
        username = add("moe")
        key = self.django.obtain(username)
        ask = lambda: self.by_token(key, "/app/staff/", 403)
        assert ask() is None
        User.objects.filter(username=username).update(is_staff=True)
        first = self.soon(ask, username)
        User.objects.filter(username=username).update(is_staff=False)
        return max(first, self.soon(ask, None))

    def a_session_that_django_lets_expire_is_expired(self):
        cookies = self.django.log_in(add("nia"))
        assert self.by_session(cookies) == "nia"
        Session.objects.filter(session_key=cookies["sessionid"]).update(expire_date=timezone.now())
        return self.soon(lambda: self.by_session(cookies), None)

    def a_session_from_before_a_change_of_keys_is_renewed_with_all_that_is_in_it(self):
        user = User.objects.get(username=add("ole"))
        cart = {"caf\u00e9": [1.5, None, 12345678901234567890, "\U0001f600"]}
        with override_settings(SECRET_KEY=OLD_SECRET_KEY, SECRET_KEY_FALLBACKS=[]):
            store = SessionStore()
            store[SESSION_KEY], store[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[0]
            store[HASH_SESSION_KEY] = user.get_session_auth_hash()
            store["cart"] = cart
            store.create()
        answer = self.doorward.ask("GET", "/app/session/", cookies={"sessionid": store.session_key})
        assert self.user(answer, 403) == "ole"
        renewed = answer.cookies["sessionid"]
        assert renewed != store.session_key
        assert self.by_session({"sessionid": store.session_key}) is None
        assert self.by_session({"sessionid": renewed}) == "ole"
        assert not Session.objects.filter(session_key=store.session_key).exists()
        # With the new key alone.
        with override_settings(SECRET_KEY_FALLBACKS=[]):
            assert SessionStore(renewed)["cart"] == cart
            assert SessionStore(renewed)[HASH_SESSION_KEY] == user.get_session_auth_hash()
        assert self.in_django({"sessionid": renewed}) == "ole"

    def what_is_written_on_both_sides_at_once_is_all_there(self):
        import threading

        names = [add(f"many-{number}") for number in range(12)]
        faults = []

        def log_in(side, username):
            try:
                cookies = side.log_in(username)
                assert self.in_django(cookies) == self.by_session(cookies) == username
            except BaseException as fault:
                faults.append(fault)

        sides = [self.django, self.doorward]
        threads = [threading.Thread(target=log_in, args=(sides[n % 2], name)) for n, name in enumerate(names)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults, faults


def add(username):
    User.objects.create_user(username, password=PASSWORD)
    return username


def free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(process, port, log):
    """At most twenty seconds."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"does not start: {process.args}\n{log.read_text()}")


@contextlib.contextmanager
def server(command, port, directory, environment):
    log = directory / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_for(process, port, log)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(binary, directory):
    django_port, doorward_port = free_ports()
    environment = {
        **os.environ,
        "SHARED_DATABASE": os.environ["SHARED_DATABASE"],
        "DJANGO_SECRET_KEY": shared_site.SECRET_KEY,
        "DJANGO_OLD_SECRET_KEY": shared_site.OLD_SECRET_KEY,
        "DOORWARD_CONFIG": str(directory / "doorward.toml"),
        "PYTHONUNBUFFERED": "1",
    }
    call_command("migrate", verbosity=0)
    config = (HERE / "doorward.toml").read_text()
    config = config.replace("127.0.0.1:8443", f"127.0.0.1:{doorward_port}")
    config = config.replace("127.0.0.1:9000", f"127.0.0.1:{django_port}")
    (directory / "doorward.toml").write_text(config)
    run_django = [sys.executable, str(HERE / "shared_site.py"), "runserver", "--noreload", str(django_port)]
    with (
        server(run_django, django_port, directory, environment) as django_log,
        server([binary, "serve"], doorward_port, directory, environment) as doorward_log,
    ):
        together = Together(Side(django_port, False), Side(doorward_port, True))
        wanted = sys.argv[2:]
        claims = [name for name, value in vars(Together).items() if "_" in name and callable(value)
                  and not name.startswith(("_", "by_", "in_", "log_"))]
        claims = [name for name in claims if not wanted or name in wanted]
        failed = 0
        for name in claims:
            try:
                first = getattr(together, name)()
                took = "" if not isinstance(first, float) else f" (after {first * 1000:.0f} ms)"
                print(f"ok      {name}{took}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        if failed:
            for log in (django_log, doorward_log):
                lines = [line for line in log.read_text().splitlines() if '" 200 ' not in line]
                print(f"--- {log.name}, the last 40 lines", *lines[-40:], sep="\n")
        print(f"{len(claims) - failed} held, {failed} failed")
        return failed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        os.environ["SHARED_DATABASE"] = str(Path(name) / "db.sqlite3")
        import shared_site

        from django.conf import settings
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
        from django.contrib.auth.hashers import make_password
        from django.contrib.auth.models import User
        from django.contrib.sessions.backends.db import SessionStore
        from django.contrib.sessions.models import Session
        from django.core.management import call_command
        from django.test.utils import override_settings
        from django.utils import timezone
        from rest_framework.authtoken.models import Token
        from shared_site import OLD_SECRET_KEY

        sys.exit(1 if main(os.path.realpath(sys.argv[1]), Path(name)) else 0)
