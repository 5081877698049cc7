"""What the tools of large services will probably do, by the one word that says so. Pure.

That word stands at a place of its own; what comes behind it are names that somebody gave
(``aws lambda invoke --function-name get-orders``, ``gsutil cp list-a gs://b``) and say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from crabrt.core.verdicts import Guess
from crabrt.inspector.priors_table import words as table
from crabrt.inspector.priors_words import Place, has, leading, leaves, reads, writes
from crabrt.inspector.shell import Word

_TELLS = frozenset({"--version", "--help", "-h"})

# -- hosts of repositories ---------------------------------------------------------------------

_GH_VALUED = table("-R --repo --hostname")
_GH_ALONE = table("version help status search completion")
_GH_READS = table("view list ls status diff checks watch browse search verify")
_GH_WRITES = table("checkout clone download")


def gh(name: str, args: Sequence[Word], place: Place) -> Guess:
    """``gh GROUP VERB``, and ``glab``."""
    del place
    if set(args) <= _TELLS:
        return reads(name)
    group, verb = [*leading(args, _GH_VALUED), "", ""][:2]
    what = f"{name} {group} {verb}".strip()
    if group in _GH_ALONE:
        return reads(what)
    if group == "api":
        changes = has(args, "XfF", "--method", "--field", "--raw-field", "--input")
        return leaves(f"{name} api") if changes else reads(f"{name} api")
    if verb in _GH_READS:
        return reads(what)
    return writes(what) if verb in _GH_WRITES else leaves(what)


# -- clouds ------------------------------------------------------------------------------------

_VALUED = table(
    """
    --profile --region --output -o --endpoint-url --ca-bundle --query --color --project --account
    --configuration --format --subscription --cli-read-timeout --cli-connect-timeout -u -h -i
    --impersonate-service-account --verbosity --billing-project
    """
)
_PLAIN = table(
    """
    --no-cli-pager --no-paginate --no-sign-request --no-verify-ssl --only-show-errors -m -D
    """
)
_READS = re.compile(r"(describe|list|get|head|show)(-[\w-]+)?|ls|cat|stat|du|hash|read|help")
_ALONE = table("version info help")


def cloud(name: str, args: Sequence[Word], place: Place) -> Guess:
    """``aws``, ``gcloud``, ``az`` and ``gsutil``."""
    del place
    found = leading(args, _VALUED, _PLAIN)
    what = " ".join([name, *found[:2]]).strip()
    alone = set(args) <= _TELLS or not _ALONE.isdisjoint(found[:1])
    return reads(what) if alone or _READS.fullmatch(_VERBS[name](found)) else leaves(what)


def _aws_verb(found: Sequence[str]) -> str:
    """``aws SERVICE VERB``, and ``help`` behind either."""
    return "help" if found[2:] == ["help"] else "".join(found[1:2])


def _gcloud_verb(found: Sequence[str]) -> str:
    """``gcloud GROUP COLLECTION VERB``: collections are in the plural, there may be several."""
    rest = [word for word in found if word not in {"alpha", "beta"}][1:]
    while len(rest) > 1 and rest[0].endswith("s") and not _READS.fullmatch(rest[0]):
        del rest[0]
    return "".join(rest[:1])


def _az_verb(found: Sequence[str]) -> str:
    """``az GROUP GROUP VERB``: all else is said by options."""
    return "".join(found[-1:])


_GSUTIL_SETTINGS = table(
    """
    acl autoclass cors defacl defstorageclass iam kms label lifecycle logging notification pap
    requesterpays retention rpo ubla versioning web
    """
)


def _gsutil_verb(found: Sequence[str]) -> str:
    """``gsutil VERB``, or ``gsutil SETTING VERB``."""
    return next((word for word in found[:2] if word not in _GSUTIL_SETTINGS), "")


_VERBS: dict[str, Callable[[Sequence[str]], str]] = {
    "aws": _aws_verb, "gcloud": _gcloud_verb, "az": _az_verb, "gsutil": _gsutil_verb,
}  # fmt: skip
