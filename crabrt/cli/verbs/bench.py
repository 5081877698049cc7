"""``crab bench``: measure on this machine, beside plain calls and peers."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from crabrt.bench import Report
from crabrt.bench.mechanisms import ROWS
from crabrt.bench.peers import PEERS
from crabrt.bench.plots import PICTURED, chart_of, svg
from crabrt.bench.recovery_judging import MODES
from crabrt.cli.app import App
from crabrt.cli.bench_command import BenchCommand, BenchOption, check_given, given_options
from crabrt.cli.bench_options import BENCHES, Given
from crabrt.cli.bench_tables import print_report
from crabrt.cli.exits import Exit
from crabrt.cli.params import SIZE
from crabrt.cli.screen import Screen
from crabrt.cli.verb import Outcome, verb
from crabrt.errors import UsageError
from crabrt.testing.filesystems import KINDS
from crabrt.testing.tasks import TASKS

_WITHOUT_NAME = ("latency", "traffic")
_COUNT = click.IntRange(min=1)
_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, exists=True, path_type=Path)
_option = functools.partial(click.option, cls=BenchOption)


@verb(
    "bench",
    examples=(
        "crab bench latency                     # trees of 1,000 and 60,000 entries, all peers",
        "crab bench latency --entries 1000 --peers git --big-file 0 --observer fanotify",
        "crab bench traffic --no-recorded --json > traffic.json",
        "crab bench overhead                    # recorded runs, waits as recorded",
        "crab bench overhead --speed 10         # ... a tenth of them, 5 rounds",
        "crab bench density --agents 1 --agents 96",
        "crab bench any-turn --turns 1000 --turns 10000",
        "crab bench recovery --continue recovery.state   # 15 tasks, 10 kills each, three modes",
        "crab bench recovery --task redis --mode full --kills 100 --restores 0",
        "crab bench mechanisms --continue mechanisms.state   # 0 to 2 GiB of memory, and of files",
        "crab bench mechanisms --rows memory --memory 64M --memory 1G",
        "crab bench sparsity --continue sparsity.state   # 20,000 hostile turns for each observer",
        "crab bench tui                         # the interface on 10,000 turns, and live",
        "crab bench --from traffic.json --plot traffic.svg",
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
@_option(
    "--big-file",
    type=SIZE,
    default="1G",
    show_default=True,
    help="0: none; tui: so much else is in the store.",
)
@_option("--elsewhere/--no-elsewhere", default=True, help="Restores elsewhere too.")
@_option("--full-copy/--no-full-copy", default=True, help="Full copies at every turn, too.")
@_option(
    "--turns",
    type=click.IntRange(min=0),
    multiple=True,
    help="How many; for any-turn the lengths of runs, for sparsity hostile ones in all.",
)
@_option("--seed", type=int, default=1, show_default=True, help="Of what is generated.")
@_option(
    "--restores",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="At most so many (recovery: of each task; 0: none).",
)
@_option(
    "--kills",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Of each task in each mode.",
)
@_option("--task", type=click.Choice(list(TASKS)), multiple=True, help="Only these (default: all).")
@_option(
    "--mode",
    type=click.Choice(list(MODES)),
    multiple=True,
    help="What a resume puts back (default: each of them).",
)
@_option(
    "--memory",
    type=SIZE,
    multiple=True,
    help="Bytes that a process holds (default: 0, 64M, 500M, 1G and 2G).",
)
@_option(
    "--disk",
    type=SIZE,
    multiple=True,
    help="Bytes of large files in a workspace (default: 0, 1G and 2G).",
)
@_option(
    "--rows",
    type=click.Choice(ROWS),
    multiple=True,
    help="Only these kinds of state (default: all).",
)
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
@_option("--recorded/--no-recorded", default=True, help="Recorded runs too.")
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
@click.option(
    "--from",
    "sources",
    type=_FILE,
    multiple=True,
    help="Measure nothing: show what --json printed into this file.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it into this file, as SVG (latency, traffic).",
)
@_option(
    "--scratch",
    type=_DIRECTORY,
    help="Work in a new directory below this one: its file system is measured.",
)
def command(
    app: App,
    *,
    name: str | None,
    sources: tuple[Path, ...],
    plot: Path | None,
    **given: Any,
) -> Outcome:
    """Measure what protection costs here; without NAME: latency and traffic.

    Every figure is the median of interleaved repetitions, with the spread beside it. The floor is
    the same work done by plain calls. A bar is met where the median of its ratios is at most 1; a
    bar that is missed fails nothing. What may never be (a false "none", a turn that comes back
    otherwise) makes exit code 1. Needs gigabytes of scratch space and, with the defaults, from
    some minutes to hours. `crab bench NAME --help` shows what one benchmark takes.
    """
    if plot is not None:
        _check_plot(plot, name, sources)
    reports = [*_saved(sources, name)] if sources else _measured(app, name, given)
    if plot is not None:
        plot.write_text(svg(chart_of(reports)), "utf-8")

    def text(out: Screen) -> None:
        for report in reports:
            print_report(out, report)

    wrong = any(report.wrong for report in reports)
    data = {"reports": [report.data() for report in reports]}
    return Outcome(data, text, Exit.FAILED if wrong else Exit.DONE)


def _measured(app: App, name: str | None, given: dict[str, Any]) -> list[Report]:
    context = click.get_current_context()
    names = _WITHOUT_NAME if name is None else (name,)
    check_given(context, names)
    given["peers"] = _peer_names(given["peers"])
    repeat = _command_line(context, name)
    with _ending_well(), _scratch(given["scratch"]) as directory:
        measures = [BENCHES[one].prepare(Given(one, directory, given)) for one in names]
        reports = [measure(_narrator(app)) for measure in measures]
    for report in reports:
        report.command = repeat
    return reports


def _check_plot(plot: Path, name: str | None, sources: Sequence[Path]) -> None:
    """Refuse before hours of work what could not be drawn after them.

    Raises:
        UsageError: there is no picture of that, or no place for it.
    """
    if not sources and name not in PICTURED:
        raise UsageError(f"--plot draws {' or '.join(PICTURED)}", hint="name one of them")
    if not plot.parent.is_dir():
        raise UsageError("there is no such directory", where=str(plot.parent))


def _saved(sources: Sequence[Path], name: str | None) -> Iterator[Report]:
    """The reports in files that ``--json`` made.

    Raises:
        UsageError: one holds something else, or options say how to measure.
    """
    given = {option.name for option in given_options(click.get_current_context())}
    if name is not None or given - {"sources", "plot", "json"}:
        raise UsageError("--from measures nothing: only --plot goes with it")
    for source in sources:
        try:
            found = json.loads(source.read_text("utf-8"))["data"]["reports"]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                "that is no report of a benchmark",
                where=str(source),
                hint="crab bench NAME --json > FILE makes one",
            ) from error
        yield from map(Report.of, found)


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
