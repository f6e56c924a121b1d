#!/usr/bin/env python3
"""Which cases a gateway follows: THE ONE PLACE where a case is left out, each for a reason.

    followed.py CASES.jsonl FOLLOWED.jsonl

Writes those that are followed, prints the others with their reasons, and last how many there are. Decides by tags and
by what a case does, never by its name, so any file of this form can be given.
"""
import json
import sys
from collections import Counter
from pathlib import Path

VIEWS = json.loads((Path(__file__).parent / "views.json").read_text())
PROTECTED = VIEWS["protected"]

# Tags of cases that are not followed.
TAGS = {
    "negotiation": "the upstream chooses the form of its answers; doorward's own are JSON",
    "wsgi": "gunicorn joins two Authorization fields; doorward refuses the request",
    "xff": "X-Forwarded-For is believed of trusted proxies alone, never of clients",
    "knox": "no knox yet",
    "jwt": "no JWT yet",
}


def is_later(view):
    """Whether the view wants schemes that are not there yet."""
    if view in PROTECTED:
        return bool({"Knox", "JWT"} & set(PROTECTED[view]["authenticators"]))
    return view.startswith(("knox", "jwt"))


def why_not(case):
    """Why a case is not followed; None: it is."""
    tags, steps = set(case["tags"]), case["steps"]
    views = {step["request"]["view"] for step in steps}
    for tag, reason in TAGS.items():
        if tag in tags:
            return reason
    if any(is_later(view) for view in views):
        return "a view of knox or JWT"
    unknown = views - PROTECTED.keys() - VIEWS["endpoints"].keys()
    if unknown:
        return f"no such view: {sorted(unknown)}"
    # obtain-token follows those, too.
    if "optional" in tags and not all(view.startswith("obtain") for view in views):
        return "a quirk or a failure of Django that is better not copied"
    for step in steps:
        request, status = step["request"], step["expect"]["status"]
        is_protected = request["view"] in PROTECTED
        if request.get("secure") is False:
            return "plain HTTP, which doorward sends to HTTPS or refuses"
        if is_protected and request["method"] == "OPTIONS" and status == 200 and "backend" in tags:
            return "a view's description of itself: the upstream's"
        # Contract, section 4, rule 5: nothing else on a view that says who you are answers so.
        if is_protected and request["method"] == "POST" and status in (400, 415):
            return "the CSRF check reads no body but a form: a bad one is for the upstream to refuse"
    return None


def main():
    source, target = sys.argv[1:]
    reasons = Counter()
    with open(source, encoding="utf-8") as cases, open(target, "w", encoding="utf-8") as followed:
        for line in filter(str.strip, cases):
            case = json.loads(line)
            reason = why_not(case)
            if reason is None:
                followed.write(line if line.endswith("\n") else line + "\n")
            else:
                reasons[reason] += 1
                print(f"not followed: {case['id']}: {reason}")
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}")
    print(f"{reasons.total()} skipped")


if __name__ == "__main__":
    main()
