#!/usr/bin/env python3
"""The application behind the gateway: answers what the recorded views answered, believing what the gateway says.

    echo_backend.py PORT

`Remote-User` is the user, encoded as doorward encodes names: `%XX` for what could end or split a value. The recorded
views tell the class of DRF's `request.auth`, which is None but for tokens; `X-Auth-Kind` tells the kind of every
scheme. A kind that is not known is told as it came, so that it is noticed.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote_to_bytes

AUTH = {"": None, "Token": "Token", "Basic": None, "Session": None, "RemoteUser": None}


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, document, allow):
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Allow", allow)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def any(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        methods = ["GET"] if "get_only" in self.path else ["GET", "POST", "PUT", "PATCH", "DELETE"]
        allow = ", ".join([*methods, "HEAD", "OPTIONS"])
        if self.command not in [*methods, "HEAD", "OPTIONS"]:
            return self.reply(405, {"detail": f'Method "{self.command}" not allowed.'}, allow)
        user = unquote_to_bytes((self.headers.get("Remote-User") or "").encode("latin-1")).decode("utf-8", "replace")
        kind = self.headers.get("X-Auth-Kind") or ""
        self.reply(200, {"user": user, "auth": AUTH.get(kind, kind)}, allow)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_TRACE = do_PROPFIND = any

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
