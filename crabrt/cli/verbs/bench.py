"""``crab bench``: measure on this machine, beside plain calls and peers."""

from __future__ import annotations

import contextlib
import functools
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from crabrt.bench.peers import PEERS
from crabrt.cli.app import App
from crabrt.cli.bench_command import BenchCommand, BenchOption, check_given, given_options
from crabrt.cli.bench_options import BENCHES, Given
from crabrt.cli.bench_tables import print_report
from crabrt.cli.exits import Exit
from crabrt.cli.params import SIZE
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.testing.filesystems import KINDS

_WITHOUT_NAME = ("latency", "traffic")
_COUNT = click.IntRange(min=1)
_DIRECTORY = click.Path(file_okay=False, exists=True, path_type=Path)
_option = functools.partial(click.option, cls=BenchOption)


@verb(
    "bench",
    examples=(
        "crab bench latency                     # trees of 1,000 and 60,000 entries, all peers",
        "crab bench latency --entries 1000 --peers git --big-file 0 --observer fanotify",
        "crab bench traffic --json > traffic.json",
        "crab bench overhead                    # recorded runs, waits as recorded",
        "crab bench overhead --speed 10         # ... a tenth of them, 5 rounds",
        "crab bench density --agents 1 --agents 96",
        "crab bench any-turn --turns 1000 --turns 10000",
        "crab bench sparsity --continue sparsity.state   # 19,500 hostile turns for each observer",
    ),
    exits=(Exit.NOT_FOUND,),
    command_class=BenchCommand,
)
@click.argument("name", type=click.Choice(list(BENCHES)), required=False)
@_option(
    "--entries",
    type=click.IntRange(min=0),
    multiple=True,
    help="Sizes of the trees (traffic: one); 0: no tree.",
)
@_option(
    "--changed",
    type=_COUNT,
    multiple=True,
    help="How many files change at once (default: 1, 20 and 1000).",
)
@_option("--repetitions", type=_COUNT, help="Rounds (default: 5; long ones at 1x: 1).")
@_option("--big-file", type=SIZE, default="1G", show_default=True, help="0: none.")
@_option("--elsewhere/--no-elsewhere", default=True, help="Restores elsewhere too.")
@_option(
    "--turns",
    type=click.IntRange(min=0),
    multiple=True,
    help="How many; for any-turn the lengths of runs, for sparsity hostile ones in all.",
)
@_option("--seed", type=int, default=1, show_default=True, help="Of what is generated.")
@_option("--restores", type=_COUNT, default=1000, show_default=True, help="At most so many.")
@_option("--speed", type=float, default=1.0, show_default=True, help="Divides model waits.")
@_option("--agents", type=_COUNT, multiple=True, help="How many at once (default: 1, 8, 32, 96).")
@_option(
    "--large-tree",
    type=click.IntRange(min=0),
    default=60_000,
    show_default=True,
    help="Entries of one agent's tree among several; 0: none.",
)
@_option(
    "--observer",
    type=click.Choice(["auto", "scan", "fanotify"]),
    multiple=True,
    help="Who says what changed (default: auto; latency: scan; sparsity: scan and fanotify).",
)
@_option(
    "--file-system",
    type=click.Choice(KINDS),
    multiple=True,
    help="Of hostile turns (default: all but fuse).",
)
@_option(
    "--traces",
    type=_DIRECTORY,
    multiple=True,
    help="Directories of recorded runs (default: this project's own, in a checkout).",
)
@_option("--run", "only", multiple=True, help="Only recorded runs with this in their name.")
@_option("--run-turns", type=_COUNT, help="Only so many turns of each recorded run.")
@_option("--workers", type=_COUNT, help="Runs at once (default: one a core).")
@_option(
    "--continue",
    "keep",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep what is done in this file, and go on from what it has.",
)
@_option(
    "--peers",
    default=",".join(PEERS),
    show_default=True,
    help="With whom to compare; what is not installed is listed as absent.",
)
@_option(
    "--scratch",
    type=_DIRECTORY,
    help="Work in a new directory below this one: its file system is measured.",
)
def command(
    app: App, *, name: str | None, peers: str, scratch: Path | None, **given: Any
) -> Outcome:
    """Measure what protection costs here; without NAME: latency and traffic.

    Every figure is the median of interleaved repetitions, with the spread beside it. The floor is
    the same work done by plain calls. A bar is met where the median of its ratios is at most 1; a
    bar that is missed fails nothing. What may never be (a false "none", a turn that comes back
    otherwise) makes exit code 1. Needs gigabytes of scratch space and, with the defaults, from
    some minutes to hours. `crab bench NAME --help` shows what one benchmark takes.
    """
    context = click.get_current_context()
    names = _WITHOUT_NAME if name is None else (name,)
    check_given(context, names)
    given["peers"] = _peer_names(peers)
    repeat = _command_line(context, name)
    with _ending_well(), _scratch(scratch) as directory:
        measures = [BENCHES[one].prepare(Given(one, directory, given)) for one in names]
        reports = [measure(_narrator(app)) for measure in measures]
    for report in reports:
        report.command = repeat

    def text(out: Screen) -> None:
        for report in reports:
            print_report(out, report)

    wrong = any(report.wrong for report in reports)
    data = {"reports": [report.data() for report in reports]}
    return Outcome(data, text, Exit.FAILED if wrong else Exit.DONE)


def _command_line(context: click.Context, name: str | None) -> str:
    """What repeats this: the options that were named."""
    words = ["crab", "bench", *([name] if name else [])]
    for option in given_options(context):
        value = context.params[option.name or ""]
        if option.is_flag:
            words.append((option.opts if value else option.secondary_opts)[0])
            continue
        for one in value if option.multiple else (value,):
            words += [option.opts[0], str(one)]
    return shlex.join(words)


def _peer_names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return names


@contextlib.contextmanager
def _ending_well() -> Iterator[None]:
    """SIGTERM is as good as ^C: workers end, mounts and scratch files go."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _scratch(below: Path | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="crab-bench-", dir=below))
    try:
        yield directory.resolve()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _narrator(app: App) -> Callable[[str], None]:
    """Says what is being done, on a terminal, one line at a time."""

    def say(what: str) -> None:
        if app.err.terminal and not app.json:
            app.err.line(app.err.style(what, "dim"))
            app.err.flush()

    return say
