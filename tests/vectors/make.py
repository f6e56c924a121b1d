#!/usr/bin/env python3
"""Writes the vectors beside it with Django and DRF themselves:

    python3 -m venv venv && venv/bin/pip install django==5.2.19 djangorestframework==3.18.3
    venv/bin/python tests/vectors/make.py

Python 3.11 with the later fixes of `urllib.parse` (3.11.12, or a distribution's). Bytes are characters of ISO 8859-1. The same seed gives the same files.
"""

import base64
import binascii
import io
import json
import pathlib
import random
import urllib.parse

import django
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="vectors", INSTALLED_APPS=["rest_framework"], USE_I18N=False)
django.setup()

from django.core.handlers.wsgi import WSGIRequest
from rest_framework import exceptions, parsers
from django.test import override_settings
from rest_framework.authentication import BasicAuthentication, CSRFCheck
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request

# Hosts in brackets are looked at as a whole.
assert hasattr(urllib.parse, "_check_bracketed_netloc")

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    lines = dict.fromkeys(json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / name).write_text("".join(line + "\n" for line in lines))


def latin1(data):
    return data.decode("latin-1")


def environ(**meta):
    return {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(), "SERVER_NAME": "s", "SERVER_PORT": "443", **meta}


def cookies(rng):
    pieces = [b"sessionid", b"a", b"=", b"=", b"=", b";", b";", b";", b" ", b"\t", b'"', b'"', b"\\", b"\\101",
              b"\\377", b"\\400", b"\\08", b",", b"x", b"\xc2\xa0", b"\xc2\x85", b"\xc2", b"\xe3\x80\x80", b"\xe3\x80",
              b"\xf0\x9f\x98\x80", b"\xf0\x9f", b"\xed\xa0\x80", b"\xff", b"\xc0\x80", b"\xe9"]
    crafted = [b"", b"sessionid=x", b"sessionid=x; sessionid=y", b"a=1, sessionid=x", b'sessionid="x"', b'sessionid="',
               b'sessionid=""', b'sessionid="\\""', b'sessionid="a\\"', b'sessionid="\\', b"sessionid", b"=x", b"=", b";",
               b"sessionid=", b"sessionid==x=", b"SESSIONID=x", b" sessionid = x ; b", b'a="b;sessionid=x"',
               b'sessionid=" x "', b'sessionid=\\101', b'sessionid="\\101\\060"', b'sessionid="\\400"', b'sessionid=x"']
    drawn = (b"".join(rng.choices(pieces, k=rng.randint(1, 14))) for _ in range(400))
    drawn_more = (b"sessionid=" + b"".join(rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(200))
    for field in [*crafted, *drawn, *drawn_more]:
        request = WSGIRequest(environ(HTTP_COOKIE=latin1(field)))
        yield {"field": latin1(field), "cookies": request.COOKIES}


def base64_texts(rng):
    crafted = [b"", b"=", b"==", b"====", b"YQ", b"YQ=", b"YQ==", b"YQ===", b"YQ=a=", b"YQ=aa", b"YQ==YQ==", b"YWI=YWI=",
               b"Y=Q==", b"Y==Q", b"=YQ==", b"YR==", b"Y", b"Y===", b"YWJj", b"YWJjZ", b"-_", b"Y-W_J.j", b"YWJ=j", b"YWJ=jj",
               b"YWJ=jjj", b"YQ=\xff=", b"YQ =\t="]
    drawn = (bytes(rng.choice(b"AZaz09+/==-_\xe9.") for _ in range(rng.randint(0, 14))) for _ in range(300))
    for text in [*crafted, *drawn]:
        try:
            given = latin1(base64.b64decode(text))
        except binascii.Error:
            given = None
        yield {"text": latin1(text), "bytes": given}


class Told(BasicAuthentication):
    def authenticate_credentials(self, userid, password, request=None):
        return [userid, password]


def basic(rng):
    def pair():
        pieces = [b"alice", b":", b":", b"\xc3\xa9", b"\xe9", b"\x00", b" ", b"\n", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xff", b"p"]
        return b"".join(rng.choices(pieces, k=rng.randint(0, 8)))

    def spoilt(word):
        word = bytearray(word)
        for _ in range(rng.randint(0, 3)):
            word.insert(rng.randint(0, len(word)), rng.choice(b"=-_!A9\xff"))
        return bytes(word[:rng.choice([None, None, None, -1, -2])])

    crafted = [b"", b" ", b"Basic", b"basic ", b"BASIC a b", b"Basic: x", b"Token x", b"Basic Og==", b"Basic\tOg==",
               b"Basic  YTpi\x0b", b"Basic YTpi,Basic YTpi", b"Basic YTpi, Basic YTpi", b"B\xc3\xa4sic x", b"Basic ====", b"Basic /w=="]
    exact = (b"Basic " + base64.b64encode(pair()) for _ in range(200))
    lax = (b"Basic " + spoilt(base64.b64encode(pair())) for _ in range(200))
    for value in [*crafted, *exact, *lax]:
        request = WSGIRequest(environ(HTTP_AUTHORIZATION=latin1(value)))
        try:
            told = Told().authenticate(request)
        except exceptions.AuthenticationFailed as error:
            told = str(error.detail)
        yield {"value": latin1(value), "told": told}


SECRET = "Q7vK2mXbT9rLwZ4cYhN6sJ8dFgP3aU5e"
MASKED = "abcdefghijklmnopqrstuvwxyzABCDEFQ8xN6r3i1iBWIcirey5pM4uA3FfuCnzJ"
CSRF = [
    {},
    {"trusted": ["https://app.example.org", "https://*.Trusted.test", "http://plain.test:8080", "http://*.p.test:81"]},
    {"domain": ".Example.test"},
    {"domain": "example.test", "trusted": ["https://*.trusted.test:8443"], "header": "x-xsrf_token2a"},
    {"sessions": True},
]


def csrf(rng):
    hosts = [b"api.example.test", b"API.example.test", b"api.example.test:8443", b"[::1]:8443", b".example.test", b"bad_host",
             b"[::g]", b"[:1]", b"a:", b".", b"api.example.test.", b"\xe4.test", b"[1]", b"-:08"]
    names = [b"api.example.test", b"API.example.test", b"api.example.test:8443", b"example.test", b"www.example.test",
             b"evil.test", b"api.example.test.evil.test", b"u@api.example.test", b"u:p@api.example.test", b"api.example.test:443",
             b"[::1]", b"[::1]:8443", b"[::1", b"::1]", b"[1.2.3.4]", b"[::1.2.3.4]", b"[v1.x]", b"[v.x]", b"[::1%25e]", b"[::1%]",
             b"[fe80::1%a%b]", b"x[::1]", b"[::1]x", b"[a]@b", b"[a]@[::1]", b"[1:2:3:4:5:6:7::8]", b"[1:2:3:4:5:6:7::]", b"",
             b"app.example.org", b"x.trusted.test", b"trusted.test", b"X.trusted.test", b"xtrusted.test", b"x.trusted.test:8443",
             b"plain.test:8080", b"plain.test", b"a.p.test:81", b".example.test", b"bad_host", b"\xe4.test", b"a\xc2\xb5.test",
             b"example.test:8443", b"www.example.test:8443", b"api.example.test\\x", b"a.example.test", b"-:08", b"."]
    schemes = [b"https://"] * 8 + [b"http://", b"HTTPS://", b"https:", b"//", b"", b"ht+p.s-1://", b"1ht://", b"https:/", b" https://",
                                   b"\thttps://", b"h\ttps://", b"ftp://", b"\xe9://"]
    tails = [b""] * 3 + [b"/", b"/app/page", b"?", b"?a=1", b"#", b"#z", b"/x?y=1#z", b"/?#", b"/a\tb", b"//", b"/\xe9", b"?a?b#c#d", b" "]
    stored = [SECRET] * 6 + [MASKED] * 2 + [None, "", "abc", SECRET[:-1] + "-", SECRET[:-1] + "\xe9", MASKED + "a", MASKED[::-1], "-" * 64]
    tokens = [SECRET] * 3 + [MASKED] * 3 + [None, "", "abc", SECRET[::-1], MASKED[::-1], SECRET[:-1] + "-", "\xe9" * 32, "\xe9" * 16]
    fields = [None] * 6 + tokens

    def url():
        return rng.choice(schemes) + rng.choice(names) + rng.choice(tails)

    def source():
        host = rng.choice(hosts)
        good = b"https://" + (host if rng.random() < 0.5 else rng.choice(names))
        origin = rng.choice([None] * 5 + [b"", b"null", b"https://[", good.replace(b"s", b"", 1), good + b"/", good, good, url(), url(), url()])
        referer = rng.choice([None, b"", good, good + b"/x", url(), url(), url(), url()])
        return {"https": rng.random() < 0.8, "host": host, "port": rng.choice([443, 443, 80, 8443]), "origin": origin, "referer": referer}

    def token():
        given = {"https": False, "method": rng.choice(["POST", "POST", "PUT", "BREW"]), "host": b"api.test"}
        return {**given, "stored": rng.choice(stored), "field": rng.choice(fields), "header": rng.choice(tokens)}

    good = {"method": "PUT", "port": 443, "origin": None, "referer": None, "stored": SECRET, "field": None, "header": SECRET}
    for at in range(1000):
        drawn = source() if at < 600 else token()
        drawn = {name: latin1(value) if isinstance(value, bytes) else value for name, value in drawn.items()}
        given = {"settings": rng.randrange(len(CSRF)), **good, **drawn}
        config = CSRF[given["settings"]]
        header = config.get("header", "x-csrftoken")
        meta = environ(REQUEST_METHOD=given["method"], HTTP_HOST=given["host"], SERVER_PORT=str(given["port"]))
        meta["wsgi.url_scheme"] = "https" if given["https"] else "http"
        for name, value in [("ORIGIN", given["origin"]), ("REFERER", given["referer"]),
                            (header.upper().replace("-", "_"), given["header"])]:
            if value is not None:
                meta["HTTP_" + name] = value
        domain, sessions = config.get("domain"), config.get("sessions", False)
        with override_settings(CSRF_TRUSTED_ORIGINS=config.get("trusted", []), CSRF_USE_SESSIONS=sessions,
                               CSRF_COOKIE_DOMAIN=domain, CSRF_HEADER_NAME="HTTP_" + header.upper().replace("-", "_")):
            request = WSGIRequest(meta)
            request._post = {} if given["field"] is None else {"csrfmiddlewaretoken": given["field"]}
            request._files = {}
            request.session = {} if given["stored"] is None or not sessions else {"_csrftoken": given["stored"]}
            request.COOKIES = {} if given["stored"] is None or sessions else {"csrftoken": given["stored"]}
            check = CSRFCheck(lambda request: None)
            try:
                reason = check.process_view(request, None, (), {})
            except ValueError:  # 500: a session's secret of 64 characters with others than letters and digits
                continue
        yield {name: value for name, value in {**given, "reason": reason}.items() if value is not None}


def forms(rng):
    url = "application/x-www-form-urlencoded"
    parts = "multipart/form-data; boundary=BoUnD"
    name = b"csrfmiddlewaretoken"
    pairs = [name, name + b"=", name + b"=abc", name + b"=a%62c", name + b"=a+b", name + b"=%C3%A9", name + b"=%ff", name + b"=\xe9",
             b"csrf%6diddlewaretoken=esc", b"Csrfmiddlewaretoken=x", b" csrfmiddlewaretoken=x", b"+" + name + b"=x", b"a=1", b"", b"=", b"=x",
             name + b"=a=b", name + b";x=1", b"a=1;" + name + b"=x", name + b"[]=x", name + b"=%", name + b"=%4", b"b=\xff", name + b"=\x00"]

    def part(disposition, content, more=b""):
        return b"--BoUnD\r\nContent-Disposition: form-data; " + disposition + b"\r\n" + more + b"\r\n" + content + b"\r\n"

    pieces = [part(b'name="csrfmiddlewaretoken"', b"abc"), part(b"name=csrfmiddlewaretoken", b""), part(b'name="a"', b"1"),
              part(b'name="csrfmiddlewaretoken"; filename="f"', b"file"), part(b'name="csrfmiddlewaretoken"; filename=""', b"nofile"),
              part(b'name="csrfmiddlewaretoken"', b"YWJj", b"Content-Transfer-Encoding: base64\r\n"), part(b'name="csrfmiddlewaretoken"', b"\xff"),
              part(b"name*=utf-8''csrfmiddlewaretoken", b"star"), part(b'name=" csrfmiddlewaretoken "', b"blank"), b"--BoUnD--\r\n",
              b"--BoUnD\r\n", b"\r\n", b"junk", part(b'name="csrfmiddlewaretoken"', b"a\r\nb"), part(b'name="f"; filename="f"', b"x" * 30)]
    types = [url] * 12 + [url.upper(), url + "; charset=UTF-8", url + ";charset=latin-1", url + "; charset=utf-16", url + "; charset=nope", "*/*",
                          "application/*", "text/plain", "", "application/json", "multipart/form-data", "x" * 300]
    for at in range(500):
        if at % 2:
            kind = rng.choice(types)
            body = b"&".join(rng.choices(pairs, k=rng.randint(0, 5)))
            if kind == "application/json":
                body = rng.choice([b"{}", b'{"csrfmiddlewaretoken": "abc"}', b"{", b"[1]", b" "])
        else:
            kind = rng.choice([parts] * 9 + ["multipart/form-data; boundary=\"BoUnD\"", "Multipart/Form-Data; boundary=BoUnD", "multipart/form-data; boundary=",
                                             parts + "; charset=latin-1"])
            body = b"".join(rng.choices(pieces, k=rng.randint(1, 4))) + rng.choice([b"--BoUnD--\r\n", b"--BoUnD--\r\n", b"--BoUnD--", b""])
        meta = environ(CONTENT_TYPE=kind, CONTENT_LENGTH=str(len(body)))
        meta["wsgi.input"] = io.BytesIO(body)
        wsgi = WSGIRequest(meta)
        request = Request(wsgi, parsers=[parsers.FormParser(), parsers.MultiPartParser(), parsers.JSONParser()],
                          negotiator=DefaultContentNegotiation())
        try:
            told = {"token": request.POST.get("csrfmiddlewaretoken")}
        except exceptions.APIException as error:
            told = {"status": error.status_code, "detail": str(error.detail)}
        yield {"type": kind, "body": latin1(body), **told}


if __name__ == "__main__":
    write("cookie.jsonl", cookies(random.Random(1)))
    write("base64.jsonl", base64_texts(random.Random(2)))
    write("basic.jsonl", basic(random.Random(3)))
    write("csrf.jsonl", csrf(random.Random(4)))
    write("form.jsonl", forms(random.Random(5)))
