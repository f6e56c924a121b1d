"""Writes passwords.jsonl beside this file: what Django itself says about encodings, good and odd.

    python3 -m venv VENV
    VENV/bin/pip install django==5.2.19 argon2-cffi==25.1.0 bcrypt==5.0.0
    VENV/bin/python tests/vectors/passwords.py

Salts are fixed, so that the same file comes out each time. Each line: password, encoded, whether Django lets it pass
(an exception, which would be a 500, counts as no), whether Django would then hash it again (null where it does not
pass), and what the case is about.
"""

import hashlib
import json
import pathlib
import warnings

import argon2
from django.conf import settings

HASHERS = "PBKDF2 PBKDF2SHA1 Argon2 BCryptSHA256 BCrypt Scrypt MD5".split()
settings.configure(
    PASSWORD_HASHERS=[f"django.contrib.auth.hashers.{name}PasswordHasher" for name in HASHERS]
)

from django.contrib.auth import hashers  # noqa: E402

warnings.simplefilter("ignore")
SALT = "x1PPe65bm6orUYFXw17k5f"
PASSWORDS = ["pw", "", " päss wörd\t", "山田太郎🔑", "nul\0inside", "a" * 64, "a" * 65, "a" * 71, "a" * 72, "a" * 73, "ä" * 400]
lines = []


def case(about, password, encoded):
    try:
        matches, update = hashers.verify_password(password, encoded)
    except Exception:
        matches, update = False, None
    rehash = update if matches else None
    lines.append(dict(password=password, encoded=encoded, matches=matches, rehash=rehash, about=about))


def pbkdf2(password, salt=SALT, iterations=3, name="pbkdf2_sha256"):
    return hashers.get_hasher(name).encode(password, salt, iterations)


def bcrypt(password, rounds="04", name="bcrypt_sha256", salt="obKwugKem3.U.va9lqT94.", version="2b"):
    # Its library takes no more than 72 bytes, so neither does the hasher.
    return hashers.get_hasher(name).encode(password, f"${version}${rounds}${salt}".encode())


def scrypt(password, salt=SALT, n=16, r=8, p=1):
    return hashers.get_hasher("scrypt").encode(password, salt, n, r, p)


def argon(password, salt=SALT, kind="ID", version=19, t=1, m=64, p=1, length=32):
    kind = argon2.low_level.Type[kind]
    made = argon2.low_level.hash_secret(password.encode(), salt.encode(), t, m, p, length, kind, version)
    return "argon2" + made.decode()


def md5(password, salt=SALT):
    return hashers.get_hasher("md5").encode(password, salt)


def plain():
    """What Django makes, of all kinds of passwords."""
    makers = [pbkdf2, lambda word: pbkdf2(word, name="pbkdf2_sha1"), argon, bcrypt, scrypt, md5]
    for make in makers:
        for password in PASSWORDS:
            encoded = make(password)
            case("its own", password, encoded)
            case("another's", password + "x", encoded)
    for password in PASSWORDS:
        if len(password.encode()) <= 72:
            encoded = bcrypt(password, name="bcrypt")
            case("its own", password, encoded)
            case("another's", password + "x", encoded)
    case("72 bytes of a longer one", "a" * 73, bcrypt("a" * 72, name="bcrypt"))


def costs():
    """Costs that Django takes or took, and others."""
    for iterations in [1, 2, 10000]:
        case("iterations", "pw", pbkdf2("pw", iterations=iterations))
    case("Django 5.2", "pw", pbkdf2("pw", iterations=1_000_000))
    case("Django 5.2, a shorter salt", "pw", pbkdf2("pw", SALT[:21], iterations=1_000_000))
    case("Django 5.2", "pw", argon("pw", t=2, m=102400, p=8))
    case("Django 5.2", "pw", bcrypt("pw", "12"))
    case("Django 5.2", "pw", scrypt("pw", n=2**14, r=8, p=5))
    for version in ["2a", "2b", "2x", "2y"]:
        case(f"bcrypt {version}", "pä", bcrypt("pä", version=version))
    for kind in ["ID", "I", "D"]:
        for version in [16, 19]:
            case(f"argon2 {kind} {version}", "pw", argon("pw", kind=kind, version=version, t=3, m=67, p=2))
    for length in [10, 16, 20, 33, 64]:
        case(f"argon2 of {length} bytes", "pw", argon("pw", length=length))
    for n, r, p in [(2, 1, 1), (1024, 1, 3), (2, 8, 100), (32768, 1, 1), (16384, 15, 1)]:
        case("scrypt", "pw", scrypt("pw", n=n, r=r, p=p))


def salts():
    """Odd salts, of which Django checks what it would take."""
    for salt in ["a", " ", "ä山🔑", "a b", "\0", "a" * 100, "%s{0}", "!", "a\n", "\ta", "=", "+1"]:
        for make in [pbkdf2, scrypt, md5]:
            case("odd salt", "pw", make("pw", salt))
    for make in [pbkdf2, scrypt, md5]:
        encoded = make("pw")
        case("no salt", "pw", encoded.replace(SALT, ""))
        case("a $ in the salt", "pw", encoded.replace(SALT, SALT[:5] + "$" + SALT[5:]))
        case("another salt", "pw", encoded.replace(SALT, SALT + " "))
    case("short salt", "pw", argon("pw", salt="12345678"))
    case("padded base64", "pw", argon("pw").replace("Zg$", "Zg==$"))


def numbers():
    """What Python's int() takes and `%d` does not write."""
    for odd in ["+3", "03", " 3", "3 ", "3_0", "٣", "３", "-3", "0", "", "3.0", "0x3", "3e0", "99999999999999999999", "-0"]:
        case("odd iterations", "pw", pbkdf2("pw").replace("$3$", f"${odd}$"))
        case("odd memory", "pw", argon("pw").replace("m=64", f"m={odd}"))
        case("odd passes", "pw", argon("pw").replace("t=1", f"t={odd}"))
        case("odd block size", "pw", scrypt("pw").replace("$8$", f"${odd}$"))
    case("default iterations by 0", "pw", pbkdf2("pw", iterations=1_000_000).replace("$1000000$", "$0$"))
    case("underscores", "pw", pbkdf2("pw", iterations=1_000_000).replace("$1000000$", "$1_000_000$"))
    for odd in ["4", "004", "+4", " 4", "03", "00", "32", "99", "", "0x4"]:
        case("odd rounds", "pw", bcrypt("pw").replace("$04$", f"${odd}$"))
    for odd in ["15", "17", "016", "+16", "1", "0", "-16"]:
        case("odd N", "pw", scrypt("pw").replace("$16$", f"${odd}$"))


def texts():
    """The hash itself: bent in ways that lax readers forgive."""
    for make in [pbkdf2, lambda word: pbkdf2(word, name="pbkdf2_sha1"), argon, bcrypt, scrypt, md5]:
        good = make("pw")
        head, hashed = good.rsplit("$", 1)
        last = good.rstrip("=")[-1]
        bent = "".join(chr(ord(last) + 1) if c == last else c for c in last)
        for about, odd in [
            ("no hash", head + "$"),
            ("no field for the hash", head),
            ("padding gone", good.rstrip("=")),
            ("padding more", good + "="),
            ("a $ behind", good + "$"),
            ("a field behind", good + "$x"),
            ("a $ before", "$" + good),
            ("a line end", good + "\n"),
            ("a space behind", good + " "),
            ("a space before", " " + good),
            ("a NUL behind", good + "\0"),
            ("other case", head + "$" + hashed.swapcase()),
            ("name in upper case", good.replace(good.split("$")[0], good.split("$")[0].upper())),
            ("url alphabet", head + "$" + hashed.replace("+", "-").replace("/", "_") + "-"),
            ("half", head + "$" + hashed[: len(hashed) // 2]),
            ("last bits", good.rstrip("=")[:-1] + bent + "=" * (len(good) - len(good.rstrip("=")))),
            ("name of another", good.replace(good.split("$")[0], "pbkdf2_sha512")),
            ("unusable", "!" + good),
        ]:
            case(about, "pw", odd)
    good = argon("pw")
    for about, old, new in [
        ("order", "m=64,t=1", "t=1,m=64"),
        ("keyid", "p=1", "p=1,keyid=AAAA"),
        ("data", "p=1", "p=1,data=AAAA"),
        ("more", "p=1", "p=1,"),
        ("version", "v=19", "v=18"),
        ("version", "v=19", "v=0"),
        ("version", "v=19", "v=019"),
        ("no version", "$v=19", ""),
        ("variant", "argon2id$", "argon2$"),
        ("variant", "argon2id$", "argon2ix$"),
        ("name missing", "argon2$", "$"),
    ]:
        case(f"argon2 {about}", "pw", good.replace(old, new, 1))
    case("argon2 without its version", "pw", argon("pw", version=16).replace("$v=16", ""))
    good = bcrypt("pw")
    case("bcrypt one $", "pw", good.replace("$$", "$"))
    case("bcrypt three $", "pw", good.replace("$$", "$$$"))
    case("bcrypt version", "pw", good.replace("2b", "2"))
    case("bcrypt version", "pw", good.replace("2b", "2c"))
    for last in "./O=ä":
        case("bcrypt salt's last bits", "pw", good.replace("94.", "94" + last, 1))


def legacy():
    """Forms that Django has no longer, and what was never one."""
    digest = hashlib.md5(b"pw").hexdigest()
    sha1 = hashlib.sha1(b"pw").hexdigest()
    salted = hashlib.sha1(b"abcdepw").hexdigest()
    for encoded in [
        digest,
        "md5$$" + digest,
        "sha1$$" + sha1,
        "sha1$abcde$" + salted,
        "unsalted_md5$$" + digest,
        "unsalted_md5$" + digest,
        "crypt$$pw",
        "crypt$",
        "",
        "!",
        "!" + "A" * 40,
        "$",
        "$$$$",
        "pw",
        "pw$pw",
        "not-a-hash",
        "md5",
        "md5$",
        "pbkdf2_sha256",
        "pbkdf2_sha256$",
        "pbkdf2_sha256$$$",
        "argon2$",
        "argon2$argon2id",
        "bcrypt$",
        "bcrypt$$2b$",
        "bcrypt_sha256$$2b$04$",
        "scrypt$$$$$",
        "{SHA}pw",
    ]:
        case("legacy or nothing", "pw", encoded)


for part in [plain, costs, salts, numbers, texts, legacy]:
    part()
path = pathlib.Path(__file__).with_suffix(".jsonl")
path.write_text("".join(json.dumps(line) + "\n" for line in lines))
print(f"{len(lines)} cases, {sum(line['matches'] for line in lines)} of them pass")
