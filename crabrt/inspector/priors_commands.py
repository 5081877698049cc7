"""What one command will probably do, by its name, its subcommand and its options. Pure.

A rule sees words as the command will get them; a word that is known only when the command runs is
None. Rules say what is usual: a prior is a guess. What has no rule, and stands nowhere in
`priors_table`, is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from crabrt.core.verdicts import Guess, Likely
from crabrt.inspector import priors_table as table
from crabrt.inspector.priors_git import git
from crabrt.inspector.priors_words import (
    DEVICES,
    Place,
    has,
    leaves,
    operands,
    reads,
    runs_code,
    starts,
    unknown,
    writes,
)
from crabrt.inspector.shell import Word


def judge(name: str, args: Sequence[Word], place: Place) -> Guess:
    """What the command `name` (no path, no wrapper, no shell) will probably do."""
    name = table.ALIASES.get(name, name)
    rule = _RULES.get(name)
    if rule is not None:
        return rule(name, args, place)
    if name in table.TARGETS:
        return _targets(name, args, place)
    if name in table.SUBCOMMANDS:
        return _subcommand(name, args)
    if set(args) and set(args) <= {"--version", "--help", "-V"}:
        return reads(name)
    for names, verdict in _TABLE:
        if name in names:
            return verdict(name)
    return unknown(name)


_TABLE = (
    (table.READS, reads),
    (table.WRITES, writes),
    (table.SENDS, leaves),
    (table.STARTS, starts),
    (table.RUNS_CODE, runs_code),
)


def _targets(name: str, args: Sequence[Word], place: Place) -> Guess:
    given = operands(args, "mst", "--reference", "--size", "--mode", "--target-directory")
    if name in {"chmod", "chown", "chgrp"}:
        given = given[1:]
    into = next((args[i + 1] for i, w in enumerate(args[:-1]) if w == "-t"), None)
    if into is not None and table.TARGETS[name] == table.LAST:
        given = [into]
    elif table.TARGETS[name] == table.LAST:
        given = given[-1:]
    if name == "tee" and not given:
        return reads(name)
    if given and all(place.outside(one) for one in given):
        devices = all(one is not None and DEVICES.fullmatch(one) for one in given)
        return reads(name if devices else f"{name} (outside the workspace)")
    return writes(name)


def _subcommand(name: str, args: Sequence[Word]) -> Guess:
    known = table.SUBCOMMANDS[name]
    if args and args[0] in {"--version", "--help", "-h", "-V", "-v"}:
        return reads(name)
    if name in {"dpkg", "rpm", "crontab", "service"}:
        word: Word = args[0] if args else ""
    else:
        given = operands(args, "CHnf", "--context", "--namespace", "--directory", "--prefix")
        word = given[0] if given else ""
    what = name if word is None else f"{name} {word}".strip()
    for kind, verdict in _KINDS.items():
        if word is not None and word in known.get(kind, "").split():
            return verdict(what)
    for kind, verdict in _KINDS.items():
        if known.get(kind) == "*":
            return verdict(what)
    return unknown(what)


_KINDS = {"reads": reads, "writes": writes, "starts": starts, "sends": leaves}


# -- text tools --------------------------------------------------------------------------------

_SED_WRITES = re.compile(r"(^|[;{}\n/|#,!0-9$gpI])\s*[wW]\s+\S|(.)[^\n]*\2[^\n]*\2[gpI0-9]*e\b")


def _sed(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    if has(args, "i", "--in-place"):
        return writes(f"{name} -i")
    if has(args, "f", "--file"):
        return unknown(f"{name} -f")
    scripts = [args[i + 1] for i, word in enumerate(args[:-1]) if word in {"-e", "--expression"}]
    for script in scripts or operands(args)[:1]:
        if script is None:
            return unknown(f"{name} with a script made as it runs")
        if _SED_WRITES.search(script):
            return unknown(f"{name} with a script that may write")
    return reads(name)


_AWK_ACTS = re.compile(r"system\s*\(|print[^;}\n]*[>|]|\|&?\s*getline|@load")


def _awk(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    if "inplace" in args:
        return writes(f"{name} -i inplace")
    if has(args, "f", "--file"):
        return runs_code(f"{name} -f")
    program = next(iter(operands(args, "Fvi")), None)
    if program is None or _AWK_ACTS.search(program):
        return unknown(f"{name} with a program that may write")
    return reads(name)


def _sort(name: str, args: Sequence[Word], place: Place) -> Guess:
    into = [args[i + 1] for i, word in enumerate(args[:-1]) if word in {"-o", "--output"}]
    into += [word[2:] for word in args if word and word.startswith("-o") and len(word) > 2]
    given = any(word and word.startswith("--output=") for word in args)
    if given or any(not place.outside(one) for one in into):
        return writes(f"{name} -o")
    return reads(name)


def _uniq(name: str, args: Sequence[Word], place: Place) -> Guess:
    given = operands(args, "fsw")
    return writes(name) if len(given) > 1 and not place.outside(given[1]) else reads(name)


def _rg(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    return runs_code(f"{name} --pre") if has(args, "", "--pre") else reads(name)


def _tar(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    mode = args[0] if args else ""
    if mode is None:
        return writes(name)
    letters = mode.lstrip("-") if not mode.startswith("--") else ""
    if "t" in letters or has(args, "", "--list"):
        return reads(f"{name} -t")
    return writes(name)


def _unzip(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    return reads(f"{name} -l") if has(args, "lptvZ") else writes(name)


def _squeeze(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    return reads(f"{name} -c") if has(args, "clt", "--stdout", "--list") else writes(name)


def _dd(name: str, args: Sequence[Word], place: Place) -> Guess:
    into = [word[3:] for word in args if word and word.startswith("of=")]
    return reads(name) if all(place.outside(one) for one in into) else writes(name)


def _formatter(name: str, args: Sequence[Word], place: Place) -> Guess:
    """Programs that write only when they are told to."""
    del place
    if has(args, *_WRITES_WHEN[name]):
        return writes(name)
    return reads(name)


_WRITES_WHEN: dict[str, tuple[str, ...]] = {
    "gofmt": ("w",),
    "clang-format": ("i",),
    "yq": ("i", "--inplace", "--in-place"),
}


# -- the network -------------------------------------------------------------------------------

_CURL_VALUED = "AbcCdDeEFhHKmoPQrtTuUwxXyYz"
_CURL_VALUED_LONG = (
    "--data", "--data-raw", "--data-binary", "--data-urlencode", "--header", "--output",
    "--request", "--user", "--user-agent", "--form", "--max-time", "--connect-timeout", "--retry",
    "--retry-delay", "--cookie", "--cookie-jar", "--proxy", "--write-out", "--cacert", "--cert",
    "--key", "--referer", "--upload-file", "--json", "--resolve", "--range", "--dump-header",
)  # fmt: skip


def _url(name: str, args: Sequence[Word], place: Place) -> Guess:
    """Curl and wget: to this machine, nobody knows what it does; else it leaves it."""
    del place
    if not args or set(args) <= {"--version", "--help", "-V", "-h"}:
        return reads(name)
    valued = _CURL_VALUED if name == "curl" else "aoPUteiTwQ"
    urls = operands(args, valued, *_CURL_VALUED_LONG, "--output-document", "--directory-prefix")
    hosts = [None if url is None else re.sub(r"^\w+://", "", url) for url in urls]
    if hosts and all(host and _is_local(host) for host in hosts):
        return Guess(Likely.UNKNOWN, f"{name}: asks something on this machine")
    return leaves(name)


def _is_local(host: str) -> bool:
    return host.rpartition("@")[2].startswith(table.LOCAL_HOSTS)


def _rsync(name: str, args: Sequence[Word], place: Place) -> Guess:
    given = operands(args, "e", "--exclude", "--include", "--rsh")
    if any(one is None or re.match(r"[^/]+:|rsync://", one) for one in given):
        return leaves(name)
    return reads(name) if given and place.outside(given[-1]) else writes(name)


_GH_READS = "view list ls status diff checks watch browse search download verify"
_GH_WRITES = "checkout clone"


def _gh(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    given = operands(args, "RHFfXqt", "--repo", "--json", "--jq", "--method")
    words = [one or "" for one in given[:2]]
    what = " ".join([name, *words]).strip()
    if not words or words[0] in {"version", "help", "status", "search", "completion"}:
        return reads(what)
    if words[0] == "api":
        changes = has(args, "XfF", "--method", "--field", "--raw-field", "--input")
        return leaves(f"{name} api") if changes else reads(f"{name} api")
    verb = words[1] if len(words) > 1 else ""
    if verb in _GH_READS.split():
        return reads(what)
    return writes(what) if verb in _GH_WRITES.split() else leaves(what)


def _aws(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    words = [one or "" for one in operands(args, "", "--profile", "--region", "--project")[:3]]
    what = " ".join([name, *words[:2]]).strip()
    if any(re.fullmatch(r"(describe|list|get|head|show)(-.*)?|ls|version|help", w) for w in words):
        return reads(what)
    return leaves(what)


# -- interpreters ------------------------------------------------------------------------------


def _python(name: str, args: Sequence[Word], place: Place) -> Guess:
    if set(args) & {"--version", "-V", "-VV", "--help", "-h"}:
        return reads(name)
    if "-m" in args[:-1]:
        at = list(args).index("-m")
        module, rest = args[at + 1], args[at + 2 :]
        if module in {"pip", "build", "twine", "mypy", "ruff", "black", "isort", "venv"}:
            return writes(f"{name} -m {module}") if module in {"build", "venv"} else judge(
                module, rest, place
            )  # fmt: skip
        if module in {"py_compile", "compileall"}:
            return writes(f"{name} -m {module}")
        if module in {"json.tool", "site", "sysconfig", "platform", "tokenize", "dis", "ast"}:
            return reads(f"{name} -m {module}")
        return runs_code(f"{name} -m {module}")
    return runs_code(f"{name} -c" if "-c" in args else name)


def _make(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    dry = has(args, "nqv", "--dry-run", "--just-print", "--question", "--version")
    return reads(f"{name} -n") if dry else runs_code(name)


def _ruff(name: str, args: Sequence[Word], place: Place) -> Guess:
    del place
    if "--no-cache" in args and "--fix" not in args and ("check" in args or "--check" in args):
        return reads(name)
    return writes(name)


_RULES: dict[str, Callable[[str, Sequence[Word], Place], Guess]] = {
    "sed": _sed, "awk": _awk, "sort": _sort, "uniq": _uniq, "rg": _rg, "tar": _tar,
    "unzip": _unzip, "gzip": _squeeze, "gunzip": _squeeze, "bzip2": _squeeze, "xz": _squeeze,
    "zstd": _squeeze, "dd": _dd, "gofmt": _formatter, "clang-format": _formatter,
    "yq": _formatter, "git": git, "curl": _url, "wget": _url, "rsync": _rsync, "gh": _gh,
    "glab": _gh, "aws": _aws, "gcloud": _aws, "az": _aws, "gsutil": _aws, "python": _python,
    "python3": _python, "python2": _python, "make": _make, "gmake": _make, "ruff": _ruff,
}  # fmt: skip
"""The commands whose options decide."""
