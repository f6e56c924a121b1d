#!/usr/bin/env python3
"""Writes the vectors beside it with Django and DRF themselves:

    python3 -m venv venv && venv/bin/pip install django==5.2.19 djangorestframework==3.18.3
    venv/bin/python tests/vectors/make.py

Python 3.11. Bytes are characters of ISO 8859-1. The same seed gives the same files.
"""

import base64
import binascii
import io
import json
import pathlib
import random

import django
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="vectors", INSTALLED_APPS=["rest_framework"], USE_I18N=False)
django.setup()

from django.core.handlers.wsgi import WSGIRequest
from rest_framework import exceptions
from rest_framework.authentication import BasicAuthentication

HERE = pathlib.Path(__file__).parent


def write(name, cases):
    lines = dict.fromkeys(json.dumps(case, ensure_ascii=True) for case in cases)
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
            given = base64.b64decode(text).hex()
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


if __name__ == "__main__":
    write("cookie.jsonl", cookies(random.Random(1)))
    write("base64.jsonl", base64_texts(random.Random(2)))
    write("basic.jsonl", basic(random.Random(3)))
