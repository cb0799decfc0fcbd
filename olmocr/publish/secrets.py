"""Text -> the lines of it that look like secrets, and the kind of each, judged by content, not by name.

The patterns are those of the programs that issue or store such secrets. Vocabularies, merges and chat templates also
mention tokens and passwords, so only a name with a value beside it counts, never the word alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEY = "an access token or a key"

# Prefixes that issuers add so that secrets can be found.
_TOKENS = (
    r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",  # Hugging Face
    r"\bsk-[A-Za-z0-9_-]{20,}|\bgsk_\w{20,}|\bxai-\w{20,}|\br8_\w{20,}",  # OpenAI, Anthropic, Groq, xAI, Replicate
    r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{22,}",
    r"\bgl(?:pat|dt|rt|oas|cbt|ptt|ft|imt|agent|soat)-[\w-]{20,}",  # GitLab
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}|\b1//0[\w-]{40,}",  # Google
    r"\bxox[abeoprs]-[\w-]{10,}|\bxapp-[\w-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+",
    r"\bnpm_[A-Za-z0-9]{30,}|\bpypi-Ag[A-Za-z0-9_-]{20,}|\bdckr_[po]at_[\w-]{20,}|\brubygems_[0-9a-f]{40,}",
    r"\b[srp]k_(?:live|test)_\w{16,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bdapi[0-9a-f]{32}\b|\bdop_v1_[0-9a-f]{40,}",
    r"\bhv[sbr]\.[\w-]{24,}|\bdp\.(?:pt|st|ct)\.\w{30,}|\bnfp_\w{30,}|\blin_api_\w{30,}|\bshp(?:at|ss|ca)_[0-9a-f]{32}",
    r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # signed tokens in JSON
    r"(?<=\d{8}):AA[\w-]{33}\b",  # Telegram
    r"(?i:\bauthorization['\"]?\s*[:=]\s*['\"]?(?:basic|token|bearer)\s+[\w.~+/=-]{16,})|\bBearer [\w.-]{20,}",
)

_PRIVATE_KEYS = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",  # PEM, OpenSSH, PGP
    r"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----|PuTTY-User-Key-File-\d|\bAGE-SECRET-KEY-1[0-9A-Z]{20,}",
    r"^[ \t]*PrivateKey[ \t]*=[ \t]*[A-Za-z0-9+/]{43}=",  # WireGuard
)

_NAMES = (
    r"(?:[A-Za-z0-9]+[_.-])*(?:password|passwd|passphrase|secret|secret[_.-]?(?:access[_.-]?)?key|client[_.-]?secret|api[_.-]?key"
    r"|access[_.-]?token|auth[_.-]?token|refresh[_.-]?token|session[_.-]?token|identity[_.-]?token|private[_.-]?key|account[_.-]?key)"
)
_UPPER_NAMES = (
    r"[A-Z0-9_]{0,60}(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY(?:_ID)?|PRIVATE_KEY|SECRET_KEY|ACCOUNT_KEY"
    r"|CREDENTIALS?|DATABASE_URL)(?:_[A-Z0-9]{1,20})?"
)

_PATTERNS = (
    (_KEY, _TOKENS),
    (_KEY, _PRIVATE_KEYS),
    (
        "credentials of a cloud",
        (
            r"(?i:\baws_(?:secret_access_key|session_token)\b)['\"]?\s*[:=]\s*\S",
            r"['\"]type['\"]\s*:\s*['\"](?:service_account|authorized_user|external_account)['\"]",  # GCP
            r"['\"]private_key(?:_id)?['\"]\s*:\s*['\"][^'\"]{16,}",
            # Azure
            r"\bAccountKey=[A-Za-z0-9+/]{40,}|\bSharedAccessKey=[A-Za-z0-9+/]{20,}|[?&]sig=[A-Za-z0-9%+/]{30,}",
            r"\buserPWD=\S{8,}|['\"]secret['\"]\s*:\s*['\"][^'\"\s]{20,}",
        ),
    ),
    (
        "a login with its password",
        (
            # .netrc, on one line or several
            r"^[ \t]*(?:machine\s{1,8}\S{1,200}|default)\s{1,8}login\s{1,8}\S{1,200}\s{1,8}"
            r"(?:account\s{1,8}\S{1,200}\s{1,8})?password\s{1,8}\S",
            r"(?<=\w)://[^/\s:@'\"<>{}]{1,100}:[^/\s@'\"<>{}]{1,200}@[\w.-]{1,200}",  # .git-credentials
            r"^[\w.*-]{1,200}:(?:\d{1,5}|\*):[^:\s]{1,100}:[^:\s]{1,100}:\S{1,200}$",  # .pgpass
            r"^[\w.@-]{1,100}:(?:\$(?:[156y]|2[abxy]|gy|apr1|argon2\w*)\$|\{SHA\})\S{8,}",  # shadow, htpasswd
        ),
    ),
    (
        "credentials of a registry or a cluster",
        (
            r"['\"](?:auth|identitytoken|registrytoken)['\"]\s*:\s*['\"][A-Za-z0-9+/=._-]{12,}['\"]",  # docker
            r"(?::|^[ \t]*)_(?:authToken|auth|password)[ \t]{0,8}=[ \t]{0,8}\S{8,}",  # npm
            r"\b(?:client-key-data|client-certificate-data|id-token|refresh-token)['\"]?\s*:\s*['\"]?[\w+/=.-]{20,}",
            r"^[ \t]*(?:-[ \t]*)?token:[ \t]*['\"]?[\w.~+/=-]{16,}['\"]?[ \t\r]*$",  # a cluster's, in YAML
        ),
    ),
    (
        "a setting with a secret",
        (
            rf"^[ \t]*(?:export[ \t]+|setx?[ \t]+)?{_UPPER_NAMES}[ \t]*=[ \t]*['\"]?[^\s'\"]{{6}}",  # .env
            rf"(?i:^[ \t]*(?:export[ \t]+)?{_NAMES}[ \t]*[=:][ \t]*['\"]?(?!['\"]|null|none|true|false)"
            r"[^\s'\"{}]{6,}['\"]?,?[ \t\r]*$)",
            rf"(?i:['\"]{_NAMES}['\"]\s*:\s*['\"][^'\"\s]{{8,}}['\"])",
        ),
    ),
    (
        "a shell's history",
        (r"^: \d{9,11}:\d+;\S", r"^#\d{10}$\n\S", r"^- cmd: .*\n\s+when: \d{9,11}$"),  # zsh, bash, fish
    ),
)
_COMPILED = tuple(
    (what, tuple(re.compile(pattern, re.MULTILINE) for pattern in patterns)) for what, patterns in _PATTERNS
)

# bash keeps commands without a time: only their first words distinguish them from text.
_COMMAND = re.compile(
    r"(?:sudo|cd|ls|ll|git|ssh|scp|rsync|export|curl|wget|pip3?|docker|kubectl|vim?|nano|cat|rm|cp|mv|mkdir|chmod|chown"
    r"|python3?|brew|apt(?:-get)?|yum|npm|make|source|grep|tail|less|tar|exit|clear|htop|tmux|conda|uv)(?:\s[-./~\w$\"'].*)?"
)
_FEWEST_COMMANDS, _MOST_OTHERS = 8, 0.5


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line (from 1) where something that looks like a secret begins, and its kind."""
    found = {
        (text.count("\n", 0, match.start() + _leading(match[0])) + 1, what)
        for what, patterns in _COMPILED
        for pattern in patterns
        for match in pattern.finditer(text)
    }
    yield from sorted(found)
    if _is_history(text):
        yield 1, "a shell's history"


def _leading(match: str) -> int:
    """Return how much white space a match begins with, to report its own line, not an empty one before it."""
    return len(match) - len(match.lstrip())


def _is_history(text: str) -> bool:
    lines = [line.strip() for line in text[:100_000].splitlines() if line.strip()]
    commands = sum(_COMMAND.fullmatch(line) is not None for line in lines)
    return commands >= _FEWEST_COMMANDS and commands > _MOST_OTHERS * len(lines)
