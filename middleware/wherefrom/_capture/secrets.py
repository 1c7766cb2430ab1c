"""Redaction: finds secrets in recorded values by their name or by their form, and replaces them.

Most text has no secret, so the search is fast there: substrings that every secret has (a name, a long run of
letters and digits, 13 digits) are searched in C, and regular expressions read only the places found. A text
with too many such places is truncated after the last one that was read.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any, Final

REDACTED: Final = "[redacted]"
Hook = Callable[[str, Any], Any]
"""Given the name of a value (empty where it has none) and the value, returns what is recorded instead."""

_ELLIPSIS: Final = "..."
_MAX_PLACES: Final = 300
_MAX_BRACKETS: Final = 1_000
_MAX_NAMES: Final = 2_000
_MAX_NAME: Final = 80

# --- Names --------------------------------------------------------------------------------------------------

# Of one to three words. What comes last in a name may be one of _NEUTRAL.
_WORDS: Final = frozenset((
    "password", "passwd", "passwords", "pwd", "passphrase", "passcode", "secret", "secrets", "credential",
    "credentials", "authorization", "cookie", "cookies", "cvv", "cvv2", "cvc", "cvc2", "ssn", "jwt",
    "csrf", "xsrf", "apikey", "apikeys", "otp", "totp", "pin_code", "pin_number", "card_pin",
    "security_code", "verification_code", "recovery_code", "recovery_codes", "backup_codes",
    "social_security", "credit_card", "debit_card", "creditcard", "card_number", "cardnumber", "cc_number",
    "card_no", "mnemonic", "seed_phrase", "connection_string", "conn_str", "sas_url", "secret_id",
    *(
        f"{word}_key{plural}"
        for plural in ("", "s")
        for word in (
            "api", "access", "secret", "private", "signing", "signature", "encryption", "decryption",
            "auth", "master", "account", "shared", "ssh", "subscription", "license", "licence", "session",
            "service", "client", "consumer", "server", "application", "app", "hmac", "aes", "rsa", "gpg",
            "pgp", "deploy", "bot", "admin", "root", "storage", "webhook", "functions", "openai",
            "anthropic", "stripe", "aws", "azure", "github", "google", "hf",
        )
    ),
    *(
        f"{word}_tokens"
        for word in (
            "access", "refresh", "auth", "bearer", "session", "id", "api", "security", "identity", "oauth",
            "device", "push", "reset", "invite", "login", "user", "verification", "personal", "service",
            "csrf", "bot", "hf", "github", "gitlab", "slack",
        )
    ),
    *(
        f"{word}_pass"
        for word in (
            "user", "db", "database", "smtp", "mail", "ftp", "login", "http", "basic", "admin", "root",
            "proxy", "redis", "pg", "mysql", "my", "sudo",
        )
    ),
))  # fmt: skip
# Secret where they end a name: token, but neither max_tokens nor token_count.
_LAST: Final = frozenset({"token", "auth", "bearer"})
_NOT_BEFORE_TOKEN: Final = frozenset((
    "page", "eos", "bos", "pad", "unk", "mask", "sep", "cls", "stop", "end", "start", "special", "next",
    "prev", "previous", "first", "last", "max", "min", "per", "continuation", "cursor", "sync", "input",
    "output", "prompt", "completion", "cached", "reasoning", "total", "num", "image", "audio", "text",
    "current", "word", "sampled", "cancellation",
))  # fmt: skip
_NEUTRAL: Final = frozenset((
    "count", "counts", "length", "len", "min", "max", "limit", "limits", "type", "types", "usage",
    "budget", "expires", "expiry", "expiration", "expired", "at", "in", "ttl", "age", "policy", "rule",
    "rules", "strength", "size", "total", "index", "position", "name", "names", "url", "uri", "endpoint",
    "provider", "required", "enabled", "valid", "exists", "status", "format", "algorithm", "version",
    "chars", "id", "ids", "method", "scheme", "hint", "changed", "updated", "created", "days", "seconds",
    "ms", "mode", "error", "errors", "manager", "service", "prefix", "attempts", "brand", "network",
    "country", "santa", "field", "fields", "path", "file", "consent", "banner", "domain", "samesite",
    "reset", "rotation", "cost", "price",
))  # fmt: skip
# In a name written as one word: newpassword, myaccesstoken.
_GLUED: Final = (
    "password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "privatekey",
    "accesskey", "creditcard", "cardnumber", "credentials",
)  # fmt: skip
_IN_QUERIES: Final = frozenset(
    {"sig", "signature", "key", "x_amz_signature", "x_goog_signature", "code_verifier"}
)
_CREDENTIAL_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "cookie",
        "set_cookie",
        "www_authenticate",
        "x_amz_security_token",
    }
)
_PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")
# What every such name has in it. It is looked for first, as most names have none.
_HINTS: Final = (
    b"pass", b"pwd", b"secret", b"token", b"cred", b"auth", b"cookie", b"cvv", b"cvc", b"ssn", b"jwt",
    b"csrf", b"xsrf", b"key", b"otp", b"pin", b"code", b"social", b"card", b"cc_number", b"mnemonic",
    b"seed", b"bearer", b"connection", b"conn_str", b"sas_url",
)  # fmt: skip
_SCALARS: Final = frozenset({str, int, float})
_HINT: Final = re.compile("|".join(hint.decode() for hint in _HINTS) + "|cc.?number|conn.?str|sas.?url")


def words(name: str) -> str:
    """Return a name in lower case, its words (divided by ``_``, ``-``, ``.`` or capitals) joined by ``_``."""
    return "_".join(_PARTS.findall(name)).lower()


# --- Texts --------------------------------------------------------------------------------------------------

# Hints for texts: what stands before "=" or ":". Fewer, as each costs a search.
_IN_TEXT: Final = (
    b"pass", b"pwd", b"secret", b"token", b"cred", b"auth", b"cookie", b"cvv", b"cvc", b"ssn", b"key",
    b"jwt", b"csrf", b"card", b"sig",
)  # fmt: skip
_HINT_IN_TEXT: Final = re.compile("|".join(hint.decode() for hint in _IN_TEXT))
_SHORT: Final = 200
_RUN: Final = bytes(
    97 if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "_-+/=") else 32 for byte in range(256)
)
_RUN_LENGTH: Final = 16
_LONGEST_RUN: Final = 300
_DIGITS: Final = bytes(100 if 48 <= byte <= 57 else 45 if byte in b" -" else 120 for byte in range(256))
_DIGIT_RUN: Final = re.compile(b"d+")
_CARD_LENGTH, _LONGEST_CARD = 13, 19
_KEYS: Final = re.compile(
    r"""(?x)
    sk-(?=[\w-]{0,200}?\d)[\w-]{16,}                # OpenAI, Anthropic, OpenRouter, DeepSeek
    | [srp]k_(?:live|test)_\w{10,} | whsec_\w{16,}              # Stripe
    | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}                       # AWS
    | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,}           # GitHub
    | gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas|ffct)-[\w-]{16,}  # GitLab
    | xox[a-z]-[\w-]{10,} | xapp-\d-[\w-]{10,}                  # Slack
    | (?<=/)T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/\w{16,}
    | AIza[\w-]{30,} | GOCSPX-[\w-]{16,} | ya29\.[\w-]{16,}     # Google
    | hf_[A-Za-z0-9]{20,} | api_org_[A-Za-z0-9]{20,}            # Hugging Face
    | gsk_\w{20,} | xai-\w{20,} | pplx-\w{20,} | r8_\w{20,} | nvapi-[\w-]{20,} | fw_\w{20,}
    | npm_\w{30,} | pypi-\w[\w-]{20,} | dckr_pat_[\w-]{20,}
    | do[op]_v1_[a-f0-9]{30,} | shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{20,} | dapi[a-f0-9]{30,}
    | hv[sb]\.[\w-]{20,} | glsa_\w{20,} | lin_api_\w{20,} | ntn_\w{20,} | figd_[\w-]{20,}
    | sntrys_[\w=+/]{20,}
    | PMAK-[\w-]{20,} | NRAK-\w{20,} | tskey-[\w-]{16,} | SK[0-9a-f]{32}\b | SG\.[\w-]{16,}\.[\w-]{16,}
    | ATATT3[\w=-]{20,} | sq0[a-z]{3}-[\w-]{20,} | AGE-SECRET-KEY-1\w{20,} | key-[0-9a-f]{32}\b
    | eyJ[\w-]{8,}(?:\.[\w-]*){2,4}                             # JWT
    """
)
_KEY_START: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|[srp]k_|whsec_|A[KSBC][IC]A|gh[pousr]_|github_pat_|gl[a-z]{2,5}-|xox|xapp-|(?<=/)T[A-Z0-9]{6}"
    r"|AIza|GOCSPX-|ya29\.|hf_|api_org_|gsk_|xai-|pplx-|r8_|nvapi-|fw_|npm_|pypi-|dckr_|do[op]_v1_|shp|dapi|hv[sb]\."
    r"|glsa_|lin_api_|ntn_|figd_|sntrys_|PMAK-|NRAK-|tskey-|SK[0-9a-f]{32}|SG\.|ATATT3|sq0|AGE-SECRET|key-|eyJ)"
)
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic|token|apikey|digest) {1,3}\Z")
_CREDENTIAL: Final = re.compile(r"[\w.~+/=-]+")
_CARD: Final = re.compile(r"\d{4}([ -])(?:\d{4}\1\d{4}\1\d{1,7}|\d{6}\1\d{5})(?![-_0-9A-Za-z])")
# Visa, Mastercard, American Express, Diners Club, JCB, Discover, UnionPay, Maestro
_NETWORKS: Final = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?|62\d{14,17}|(?:5[06-9]|6[37])\d{14}"
)
_NAME_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$-"
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
_HEAD: Final = re.compile(
    r"""(?P<name>[\w.$-]{1,160})(?:\\{0,4}["'])?\]?[ \t]{0,3}(?P<sign>=>|:=|=(?!=)|:(?!:|//))[ \t]{0,3}"""
)
_QUOTE: Final = re.compile(r"""(?:[A-Za-z_.]{1,40}\(|[bruf]{0,2})(\\{0,4}["'])""")
_BARE: Final = re.compile(r"""[^\s,;&|)}\]"'<>\\]+""")
_LINE: Final = re.compile(r"""[^\r\n"'\\]+""")
_LAST_ON_LINE: Final = re.compile(r"[ \t]*(?:[\r\n,;&|)}\]\"']|\\n|\Z)")
_NOTHING: Final = frozenset({"none", "null", "true", "false", "undefined", "pass", REDACTED, "<redacted>"})
_BRACKET: Final = re.compile(r""""(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[\[{(]|[\]})]""", re.DOTALL)
_USERINFO: Final = re.compile(r"://[^/?#\s'\"<>]*\Z")


class _Places:
    """Spans of a text to be left out."""

    __slots__ = ("count", "end", "spans")

    def __init__(self, length: int) -> None:
        self.spans: list[tuple[int, int]] = []
        self.count = 0
        self.end = length

    def is_full(self, place: int) -> bool:
        """Whether no more places can be read; then the text ends at ``place``."""
        self.count += 1
        if self.count > _MAX_PLACES:
            self.end = min(self.end, place)
            return True
        return False

    def apply(self, text: str) -> str:
        """The text without them."""
        parts, done = [], 0
        for start, end in sorted(self.spans):
            if end <= done or start >= self.end:
                continue
            parts += [text[done : max(start, done)], REDACTED]
            done = end
        is_whole = self.end >= len(text)
        return "".join(parts) + text[done : self.end] + ("" if is_whole else _ELLIPSIS)


class Redactor:
    """Replaces secrets in recorded values. ``names`` are secret in addition to the built-in ones."""

    def __init__(self, names: Iterable[str] = (), hook: Hook | None = None) -> None:
        own = {found for name in names if (found := words(name))}
        self.names = frozenset(own)
        self.hook = hook
        self._words = _WORDS | (own - _LAST) | {name.replace("_", "") for name in own - _LAST}
        self._longest = max(name.count("_") for name in self._words) + 1
        hints = {re.escape(name.partition("_")[0]) for name in own}
        self._hint = re.compile("|".join([_HINT.pattern, *sorted(hints)]))
        self._known: dict[str, bool] = {}

    def hides(self, name: str) -> bool:
        """Whether values with this name are redacted."""
        known = self._known.get(name)
        if known is None:
            known = self._is_secret(name)
            if len(self._known) < _MAX_NAMES:
                self._known[name] = known
        return known

    def hides_some(self, names: Iterable[str]) -> bool:
        """Whether one of many names may be secret; faster than one call per name."""
        return self._hint.search("\n".join(names).lower()) is not None

    def _is_secret(self, name: str) -> bool:
        name = name[-_MAX_NAME:]
        if self._hint.search(name.lower()) is None:
            return False
        parts = [part.rstrip("0123456789") or part for part in words(name).split("_")]
        last = len(parts) - 1
        if parts[last] == "pin" and not last:
            return True
        if parts[last] in _LAST and not (
            last and parts[last] == "token" and parts[last - 1] in _NOT_BEFORE_TOKEN
        ):
            return True
        if parts[last].endswith(_GLUED) and parts[last] not in _LAST:
            return True
        is_neutral = parts[last] in _NEUTRAL
        for start in range(last + 1):
            found = ""
            for end in range(start, min(start + self._longest, last + 1)):
                found = f"{found}_{parts[end]}" if found else parts[end]
                if found in self._words and not (is_neutral and end < last):
                    return True
        return False

    def hooked(self, name: str, value: Any) -> Any:
        """What the app's hook makes of a text or number: again one of these, or ``None``."""
        if self.hook is None or type(value) not in _SCALARS:
            return value
        try:
            kept = self.hook(name, value)
        except Exception:  # noqa: BLE001 - the app's own: rather nothing than a secret
            return REDACTED
        return kept if kept is None or type(kept) in _SCALARS or type(kept) is bool else REDACTED

    def header(self, name: str, value: str, key: bytes = b"") -> str:
        """Return a header's value to record: credentials as a hash, so that equal ones stay groupable."""
        spelled = words(name)
        if spelled in _CREDENTIAL_HEADERS or self.hides(name):
            return f"sha256:{hmac.new(key, value.encode(), sha256).hexdigest()[:32]}"
        return self.text(value)

    def text(self, text: str) -> str:
        """Return the text with its secrets replaced."""
        length = len(text)
        has_pairs = "=" in text or ":" in text
        if has_pairs and length < _SHORT:
            has_pairs = _HINT_IN_TEXT.search(text.lower()) is not None or "@" in text
        if not has_pairs and length < _CARD_LENGTH:
            return text
        data = text.encode("latin-1", "replace")
        places = _Places(length)
        if has_pairs:
            self._find_pairs(text, data.lower(), places)
            if "@" in text and "://" in text:
                _find_userinfo(text, places)
        if length >= _RUN_LENGTH:
            _find_keys(text, data.translate(_RUN), places)
        if length >= _CARD_LENGTH:
            _find_cards(text, data.translate(_DIGITS), places)
        if "PRIVATE KEY-----" in text and (found := _PRIVATE_KEY.search(text)):
            end = text.rfind("-----END ", found.end())
            places.spans.append((found.start(), length if end < 0 else text.find("KEY-----", end) + 8))
        return places.apply(text) if places.spans or places.end < length else text

    def _find_pairs(self, text: str, lower: bytes, places: _Places) -> None:
        done = 0
        for at in _occurrences(lower, places):
            if at < done:
                continue
            before = max(at - _MAX_NAME, 0)
            head = _HEAD.match(text, before + len(text[before:at].rstrip(_NAME_CHARACTERS)))
            if head is None:
                continue
            name = head["name"]
            spelled = words(name)
            if not (
                self.hides(name)
                or (spelled in _IN_QUERIES and text[head.start() - 1 : head.start()] in {"?", "&"})
            ):
                continue
            if (span := _value(text, head, spelled)) is not None:
                places.spans.append(span)
                done = span[1]


def _occurrences(lower: bytes, places: _Places) -> Iterator[int]:
    """Where a hint stands, from the left."""
    following = {hint: lower.find(hint) for hint in _IN_TEXT if hint in lower}
    while following:
        hint, at = min(following.items(), key=lambda item: item[1])
        if places.is_full(at):
            return
        yield at
        following[hint] = lower.find(hint, at + 1)
        if following[hint] < 0:
            del following[hint]


def _value(text: str, head: re.Match[str], spelled: str) -> tuple[int, int] | None:
    """The span of the value after a name, unless it is none, or prose goes on."""
    start = head.end()
    if quote := _QUOTE.match(text, start):
        end = _end_of_quoted(text, quote.end(), quote[1])
        return None if _is_nothing(text[quote.end() : min(end, quote.end() + 40)]) else (quote.end(), end)
    if text[start : start + 1] in {"{", "["}:
        return start, _end_of_brackets(text, start)
    is_header = spelled in _CREDENTIAL_HEADERS
    found = (_LINE if is_header else _BARE).match(text, start)
    if found is None or _is_nothing(found[0]):
        return None
    is_prose = head["sign"] == ":" and found[0].isalpha() and not _LAST_ON_LINE.match(text, found.end())
    return None if is_prose and not is_header else found.span()


def _is_nothing(value: str) -> bool:
    plain = value.strip(" .*")
    return not plain or (len(plain) < 12 and plain.lower() in _NOTHING)


def _end_of_quoted(text: str, start: int, quote: str) -> int:
    end = text.find(quote, start)
    for _ in range(_MAX_BRACKETS):
        if end < 0:
            break
        before = text[max(end - 8, start) : end]
        if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
            return end
        end = text.find(quote, end + 1)
    return len(text)


def _end_of_brackets(text: str, start: int) -> int:
    depth = 0
    for found in islice(_BRACKET.finditer(text, start), _MAX_BRACKETS):
        depth += (found[0] in "[{(") - (found[0] in "]})")
        if depth == 0:
            return found.end()
    return len(text)


def _find_keys(text: str, runs: bytes, places: _Places) -> None:
    """Keys of providers, and what follows ``Bearer``: each in a long run, or beginning with one."""
    start = runs.find(b"a" * _RUN_LENGTH)
    while start >= 0:
        if places.is_full(start):
            return
        end = runs.find(b" ", start)
        end = len(runs) if end < 0 else end
        scheme = _SCHEME.search(text, max(start - 10, 0), start)
        if scheme and (scheme[1].lower() != "basic" or not text[start:end].isalpha()):
            found = _CREDENTIAL.match(text, start)
            places.spans.append(found.span() if found else (start, end))
        else:
            until = min(end, start + _LONGEST_RUN)
            if text[start:until].isalnum():  # in the midst of letters and digits none begins
                before = (start - 3, start - 4, start - 5) if text[max(start - 1, 0) : start] == "." else ()
                begins: Iterable[int] = [
                    at for at in (start, *before) if at >= 0 and _KEY_START.match(text, at)
                ]
            else:
                places.count += (until - start) // 64
                begins = (place.start() for place in _KEY_START.finditer(text, max(start - 6, 0), until))
            for at in begins:
                if found := _KEYS.match(text, at):
                    places.spans.append(found.span())
        start = runs.find(b"a" * _RUN_LENGTH, end)


def _find_userinfo(text: str, places: _Places) -> None:
    at = text.find("@")
    while at >= 0:
        if places.is_full(at):
            return
        found = _USERINFO.search(text, max(at - 200, 0), at)
        if found and found.end() > found.start() + 3:
            places.spans.append((found.start() + 3, at))
        at = text.find("@", at + 1)


def _find_cards(text: str, digits: bytes, places: _Places) -> None:
    """Numbers of 13 to 19 digits, in one piece or in groups."""
    if b"dddd" not in digits:
        return
    start = digits.find(b"d" * _CARD_LENGTH)
    while start >= 0:
        run = _DIGIT_RUN.match(digits, start)
        end = run.end() if run else start + _CARD_LENGTH
        is_of_more = _continues(text, start, end) or text[max(start - 1, 0) : start] == "."
        if text[start] in "23456" and end - start <= _LONGEST_CARD and not is_of_more:
            if places.is_full(start):
                return
            if _is_card(text[start:end]):
                places.spans.append((start, end))
        start = digits.find(b"d" * _CARD_LENGTH, end)
    start = digits.find(b"dddd-dddd") if b"-" in digits else -1
    while start >= 0:
        if text[start] in "23456" and not _continues(text, start, start):
            if places.is_full(start):
                return
            places.count += 1  # once more: they take longer
            if (found := _CARD.match(text, start)) and _is_card(found[0]):
                places.spans.append(found.span())
        start = digits.find(b"dddd-dddd", start + 5)


def _continues(text: str, start: int, end: int) -> bool:
    """Whether a number is a part of a longer name, such as an id in hex or a UUID."""
    before = text[start - 1] if start else " "
    after = text[end] if start < end < len(text) else " "
    return before.isalnum() or after.isalnum() or before in "-_" or after in "-_"


def _is_card(text: str) -> bool:
    plain = text.replace(" ", "").replace("-", "")
    if not _NETWORKS.fullmatch(plain):
        return False
    digits = [*map(int, plain)]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


class _InUse:
    redactor = Redactor()


_in_use = _InUse()


def redactor() -> Redactor:
    """The redactor of this process."""
    return _in_use.redactor


def configure(names: Iterable[str] = (), hook: Hook | None = None) -> None:
    """Add secret names for this process, and set the hook for its values; the last hook wins."""
    current = _in_use.redactor
    more = current.names | {words(name) for name in names}
    if more != current.names or hook is not current.hook:
        _in_use.redactor = Redactor(more, hook or current.hook)
