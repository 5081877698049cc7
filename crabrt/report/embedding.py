"""Data, style and script inside of a page, so that nothing in the data can ever act.

Data lies in ``<script type="application/json">``, in which no byte can end the element, and the
script puts it on the page as text only. The page's policy (https://www.w3.org/TR/CSP3/) allows the
one script and the one style whose digests it names, and nothing else: no request, no inline
handler, no evaluated text, no frame, no form. It also forbids turning text into markup
(https://www.w3.org/TR/trusted-types/), so a mistake in the script fails instead of running.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import msgspec

from crabrt.report.markup import Markup, tag

STYLES = ("tokens.css", "page.css", "timeline.css", "turn.css", "print.css")
SCRIPTS = (
    "elements.js", "data.js", "filter.js", "diff.js", "turn.js", "timeline.js", "lanes.js",
    "keys.js", "main.js",
)  # fmt: skip

_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def data_element(data: bytes, **attributes: str | int | bool) -> Markup:
    """JSON, as `json_bytes` makes it, in an element that nothing runs."""
    return tag("script", Markup(data.decode()), type="application/json", **attributes)


def json_bytes(value: Any) -> bytes:
    """JSON in which no character means anything to an HTML parser."""
    data = msgspec.json.encode(value)
    for byte, escape in _ESCAPES:
        data = data.replace(byte, escape)
    return data


def style_text() -> str:
    """The page's style."""
    return "\n".join(_static(name) for name in STYLES)


def script_text() -> str:
    """The page's script: one function, so that it leaves no name behind."""
    body = "\n".join(_static(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();\n'


def policy(style: str, script: str) -> str:
    """What the page may do: this style, this script, an icon that lies in the page."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _static(name: str) -> str:
    text = (resources.files("crabrt.report") / "static" / name).read_text("utf-8")
    assert "</" not in text or not name.endswith(".js"), name  # it could end the element
    return text


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
