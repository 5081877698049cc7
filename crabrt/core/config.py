"""Configuration: parsed once into one frozen value; nothing downstream meets an "unset".

Layers, strongest first: keyword arguments, ``CRAB_*`` variables, the workspace's own file
(``crab.toml`` or ``[tool.crab]`` in ``pyproject.toml``), the user's file, the defaults below. The
workspace's file arrives with a clone and can be written by the agent, so it may set only what
`WORKSPACE_MAY_SET` lists, and limits only downwards.

Only this module reads settings from the environment; the command line hands them to programs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from crabrt.core.config_files import SettingsFile
from crabrt.errors import UsageError

GIB = 1 << 30


class Config(msgspec.Struct, frozen=True):
    """Everything that can be set.

    Attributes:
        home: the store's directory.
        observer: who says what changed: ``auto``, ``scan`` or ``fanotify``.
        network_observer: whether connections are watched: ``auto`` (where root allows) or ``off``.
        processes: ``auto``: processes that outlive their turn are tracked, imaged where this
            machine can, and come back; ``track``: never imaged; ``off``: nobody looks.
        respawn: whether what has no image is started again from its recorded command where a state
            is restored: ``ask`` (a command asks on a terminal; nobody else does it), ``never``, or
            ``always``.
        criu: the program that takes images of processes; None: one on the path that works, else
            the one that ``crab doctor --install-criu`` unpacked.
        durability: what a gate waits for: ``captured`` (survives SIGKILL) or ``durable`` (survives
            a power cut). External calls wait for durable, whatever this says.
        disable: every decorator becomes the plain function.
        strict: raise `Unprotected` instead of going on when a checkpoint fails.
        on_divergence: ``stop`` or ``branch``.
        on_not_durable: ``raise`` or ``warn`` before an external effect that cannot be protected.
        shared: allow another live run family in the same workspace.
        force: allow a workspace that is ``/``, the home directory, or huge.
        gate_limit_ms: how long a gate may hold the loop before the turn is unprotected.
        baseline_gate_limit_ms: the same for turn 0.
        size_cap_bytes: of the whole store; reaching it starts retention.
        huge_files, huge_bytes: a workspace above either is refused unless forced.
        undo_keep_days: how long undo points are kept.
        exclude: gitignore patterns on top of ``.crabignore``.
        regenerable: ``keep`` or ``skip`` what tools make again by themselves (byte code, caches).
        regenerable_patterns: gitignore patterns of more of that.
        name: name of the run; None: the agent function's name, else the workspace's.
        labels: labels given to the run's first turn.
    """

    home: Path
    observer: str = "auto"
    network_observer: str = "auto"
    processes: str = "auto"
    respawn: str = "ask"
    criu: Path | None = None
    durability: str = "captured"
    disable: bool = False
    strict: bool = False
    on_divergence: str = "stop"
    on_not_durable: str = "raise"
    shared: bool = False
    force: bool = False
    gate_limit_ms: int = 2_000
    baseline_gate_limit_ms: int = 30_000
    size_cap_bytes: int = 20 * GIB
    huge_files: int = 2_000_000
    huge_bytes: int = 100 * GIB
    undo_keep_days: int = 14
    exclude: tuple[str, ...] = ()
    regenerable: str = "keep"
    regenerable_patterns: tuple[str, ...] = ()
    name: str | None = None
    labels: tuple[str, ...] = ()

    @classmethod
    def from_env(
        cls,
        *,
        user: SettingsFile | Mapping[str, Any] | None = None,
        workspace: SettingsFile | Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Config:
        """Merge the layers into a configuration.

        Args:
            user: the user's file, or its table as TOML gave it.
            workspace: the same of the workspace's file.
            environ: instead of ``os.environ``.
            given: keyword arguments of the caller; None means not given.

        Raises:
            UsageError: an unknown key, a value that makes no sense, or a key the workspace may not
                set; `where` is the variable, file and line, or argument that says so.
        """
        env = os.environ if environ is None else environ
        everything = frozenset(_FIELDS)
        arguments = {key: value for key, value in given.items() if value is not None}
        layers = (
            _layer(user, "the user's config file", everything),
            _layer(workspace, "the workspace's config", WORKSPACE_MAY_SET),
            _Layer(_environment(env), _NAMES.__getitem__, everything),
            _Layer(arguments, "the argument {}".format, everything),
        )
        values: dict[str, Any] = {"home": _default_home(env)}
        places: dict[str, str] = {}
        for layer in layers:
            found = _checked(layer)
            if layer.may_set is WORKSPACE_MAY_SET:
                found = _limited(found, values)
            values |= found
            places |= {key: layer.place(key) for key in found}
        config = cls(**values)
        _check_choices(config, places)
        return config


_FIELDS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Config)}

_PATHS = frozenset({"home", "criu"})

_LIMITS = frozenset({"gate_limit_ms", "baseline_gate_limit_ms", "huge_files", "huge_bytes"})

WORKSPACE_MAY_SET = frozenset({"name", "exclude", "observer", "labels"}) | _LIMITS
"""What a file in the workspace may set (limits only lower than the user's)."""

_CHOICES = {
    "observer": ("auto", "scan", "fanotify"),
    "network_observer": ("auto", "off"),
    "processes": ("auto", "track", "off"),
    "respawn": ("ask", "never", "always"),
    "durability": ("captured", "durable"),
    "regenerable": ("keep", "skip"),
    "on_divergence": ("stop", "branch"),
    "on_not_durable": ("raise", "warn"),
}

RESPAWN_VARIABLE = "CRAB_RESPAWN"
"""Sets `Config.respawn`; ``crab resume --respawn`` sets it for the command it runs."""

_VARIABLES = {
    "CRAB_HOME": "home",
    "CRAB_OBSERVER": "observer",
    "CRAB_NETWORK_OBSERVER": "network_observer",
    "CRAB_PROCESSES": "processes",
    RESPAWN_VARIABLE: "respawn",
    "CRAB_CRIU": "criu",
    "CRAB_DURABILITY": "durability",
    "CRAB_DISABLE": "disable",
    "CRAB_STRICT": "strict",
    "CRAB_NAME": "name",
    "CRAB_SHARED": "shared",
    "CRAB_FORCE": "force",
    "CRAB_GATE_LIMIT_MS": "gate_limit_ms",
    "CRAB_SIZE_CAP_BYTES": "size_cap_bytes",
}

_NAMES = {key: variable for variable, key in _VARIABLES.items()}

RESUME_VARIABLE = "CRAB_RESUME"
"""``RUN@TURN``: the decorated agent of that run attaches to it instead of starting a new one."""

RUN_VARIABLE = "CRAB_RUN"
"""Set for everything a run starts, so that its orphans can be found."""

SHELL_VARIABLE = "CRAB_SHELL"
"""Set for everything a shell of ours starts: the shells it is in, outermost first."""


_PREFIX = "CRAB_"


def unknown_variables(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that are named like settings and are none, each with the nearest that is one."""
    env = os.environ if environ is None else environ
    known = {*_VARIABLES, RESUME_VARIABLE, RUN_VARIABLE, SHELL_VARIABLE}
    unknown = sorted(name for name in env if name.startswith(_PREFIX) and name not in known)
    if not unknown:
        return {}
    import difflib  # noqa: PLC0415 - hardly ever needed

    nearest = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.75) for name in unknown}
    return {name: near[0] if near else None for name, near in nearest.items()}


def _default_home(environ: Mapping[str, str]) -> Path:
    """``crabrt`` in the user's state directory (XDG base directories)."""
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path("~/.local/state").expanduser()) / "crabrt"


def user_config_path(environ: Mapping[str, str] | None = None) -> Path:
    """``crabrt/config.toml`` in the user's config directory."""
    env = os.environ if environ is None else environ
    base = env.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "crabrt" / "config.toml"


def runtime_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where live processes find each other and their channels.

    ``crabrt`` in the user's runtime directory (XDG), else a directory of the user's in ``/tmp``.
    """
    base = (os.environ if environ is None else environ).get("XDG_RUNTIME_DIR")
    if base:
        return Path(base) / "crabrt"
    return Path(f"/tmp/crabrt-{os.geteuid()}")  # noqa: S108 - who uses it checks whose it is


def observers_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where runs meet that share a watch of a file system: one place for all of a user's stores."""
    return runtime_directory(environ) / "observers"


def programs_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where programs of crabrt's own are unpacked: ``crabrt`` in the user's data directory (XDG).

    One place for all stores: a program is for the machine, wherever ``CRAB_HOME`` puts a store.
    """
    base = (os.environ if environ is None else environ).get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "crabrt"


def resume_request(environ: Mapping[str, str] | None = None) -> str | None:
    """What ``CRAB_RESUME`` asks for, if anything."""
    return (os.environ if environ is None else environ).get(RESUME_VARIABLE) or None


def _environment(env: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, key in _VARIABLES.items():
        text = env.get(variable)
        if text is None or text == "":
            continue
        kind = _FIELDS[key]
        if kind is bool:
            if text.lower() not in {"0", "1", "true", "false", "yes", "no"}:
                raise UsageError(f"{text!r} is neither 0 nor 1", where=variable)
            found[key] = text.lower() in {"1", "true", "yes"}
        elif kind is int:
            if not text.isdecimal():
                raise UsageError(f"{text!r} is not a whole number", where=variable)
            found[key] = int(text)
        else:
            found[key] = text
    return found


class _Layer(NamedTuple):
    """What one source sets, where it says so, and what it may set."""

    values: Mapping[str, Any]
    place: Callable[[str], str]
    may_set: frozenset[str]


def _layer(
    given: SettingsFile | Mapping[str, Any] | None, name: str, may_set: frozenset[str]
) -> _Layer:
    if isinstance(given, SettingsFile):
        return _Layer(given.values, given.place, may_set)
    return _Layer(given or {}, lambda _: name, may_set)


def _checked(layer: _Layer) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in layer.values.items():
        where = layer.place(key)
        if key not in _FIELDS:
            raise UsageError(f"unknown setting {key!r}", where=where)
        if key not in layer.may_set:
            variable = f", in {_NAMES[key]}" if key in _NAMES else ""
            raise UsageError(
                f"{key!r} may not be set there: the agent can write that file",
                where=where,
                hint=f"set it in your own config file{variable}, or in code",
            )
        if key in _PATHS and isinstance(value, str | Path):
            checked[key] = Path(value).expanduser().absolute()
            continue
        try:
            checked[key] = msgspec.convert(value, _FIELDS[key], strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            raise UsageError(f"{key}: {error}", where=where) from error
    return checked


def _limited(workspace: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Config)}
    for key in _LIMITS & workspace.keys():
        workspace[key] = min(workspace[key], above.get(key, defaults[key]))
    return workspace


def _check_choices(config: Config, places: Mapping[str, str]) -> None:
    if config.durability == "replicated":
        raise UsageError(
            "durability 'replicated' needs a second place for the store, and there can be none yet",
            hint="durable survives a power cut",
        )
    for key, choices in _CHOICES.items():
        value = getattr(config, key)
        if value not in choices:
            raise UsageError(
                f"{key} is {value!r}", where=places.get(key), hint=f"one of: {', '.join(choices)}"
            )
