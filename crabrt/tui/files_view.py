"""The files as they were after a turn: a directory on one side, a file on the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.worker import get_current_worker

from crabrt.core.trees import Entry, Kind
from crabrt.timeline import amounts
from crabrt.timeline.reader import RunReader
from crabrt.timeline.rows import Row
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Tone
from crabrt.tui.background import in_thread, in_words
from crabrt.tui.changes_view import choice
from crabrt.tui.highlight import highlighted, lexer_for
from crabrt.tui.line_list import LineList
from crabrt.tui.pieces import Line, Piece, cut
from crabrt.tui.text_view import TextView

_COLOURED_MOST = 256 << 10  # bytes of a file that is shown in the tones of its language
_MARKS = {Kind.DIR: "/", Kind.SYMLINK: "@", Kind.FIFO: "|"}


@dataclass(frozen=True, slots=True)
class Listing:
    """A directory.

    Attributes:
        path: relative to the workspace; empty: the workspace.
        entries: what is in it, directories first.
        why_not: where it cannot be listed, why.
    """

    path: bytes = b""
    entries: tuple[Entry, ...] = ()
    why_not: str = ""


class EntryList(LineList[int]):
    """A directory as a list of lines; keys are places, 0 leads up where there is an up.

    Attributes:
        listing: what is listed.
        chosen: paths to be restored together, of any directory.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Choose", tooltip="Choose this path, or no longer, for R"),
        Binding("backspace", "up_one", "Up", show=False, tooltip="To the directory above"),
    ]

    class Up(Message):
        """To the directory above."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(id=id)
        self.listing = Listing()
        self.chosen: set[bytes] = set()

    def show(self, listing: Listing) -> None:
        """List another directory."""
        before = self.listing.path
        self.listing = listing
        self.key = None
        self.lay_out()
        come_from = before[len(listing.path) :].strip(b"/").split(b"/")[0]
        for place, entry in enumerate(listing.entries):
            if before.startswith(listing.path) and entry.name == come_from:
                self.go_to(place + self._above)

    @property
    def entry(self) -> Entry | None:
        """The one under the cursor; None where the cursor leads up."""
        if self.key is None or self.key < self._above:
            return None
        return self.listing.entries[self.key - self._above]

    @property
    def path(self) -> bytes:
        """Its path, or that of the directory above."""
        here = self.listing.path
        if self.entry is None:
            return here.rpartition(b"/")[0]
        return self._path_of(self.entry)

    def _path_of(self, entry: Entry) -> bytes:
        here = self.listing.path
        return here + b"/" + entry.name if here else entry.name

    @property
    def wanted(self) -> list[bytes]:
        """The chosen paths; if none is, the one under the cursor."""
        here = [] if self.entry is None else [self.path]
        return sorted(self.chosen) or here

    def action_choose(self) -> None:
        """Choose the path under the cursor, or no longer, and go on to the next."""
        if self.entry is not None:
            self.chosen ^= {self.path}
            self.redraw()
            self.action_move(1)

    def action_up_one(self) -> None:
        """To the directory above."""
        if self._above:
            self.post_message(self.Up())

    @property
    def _above(self) -> int:
        return 1 if self.listing.path else 0

    @property
    def keys(self) -> Sequence[int]:
        """Places."""
        return range(len(self.listing.entries) + self._above)

    @property
    def line_count(self) -> int:
        """A line more, for what is to be said of all of them."""
        return len(self.keys) + 1

    def place_of(self, key: int) -> int | None:
        """See `LineList.place_of`."""
        return key if key < len(self.keys) else None

    def line_at(self, at: int) -> tuple[Line, int | None]:
        """See `LineList.line_at`."""
        if at == len(self.keys):
            said = self.listing.why_not or ("" if self.listing.entries else "an empty directory")
            return cut((Piece(safe_text(said), Tone.QUIET),), self.cells), None
        if at > len(self.keys):
            return (), None
        if at < self._above:
            here = Piece(safe_path(self.listing.path), Tone.QUIET)
            return cut((Piece("  ../  ", Tone.FILES), here), self.cells), at
        entry = self.listing.entries[at - self._above]
        line = choice(self._path_of(entry) in self.chosen) + _entry_line(entry)
        return cut(line, self.cells), at


class FilesView(Horizontal):
    """See the module; reads in threads."""

    DEFAULT_CSS = """
    FilesView EntryList { width: 1fr; max-width: 44; min-width: 20; border-right: solid $panel; }
    FilesView TextView { width: 3fr; }
    """

    class Listed(Message):
        """A directory was read."""

        def __init__(self, row: Row, listing: Listing) -> None:
            super().__init__()
            self.row = row
            self.listing = listing

    def __init__(self, reader: Callable[[], RunReader], *, id: str | None = None) -> None:  # noqa: A002
        """Args: reader: gives what answers about the run; called in threads."""
        super().__init__(id=id)
        self._reader = reader
        self._row: Row | None = None

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield EntryList(id="entries")
        yield TextView(id="file")

    @property
    def entries(self) -> EntryList:
        """The list on the left."""
        return self.query_one(EntryList)

    def browse(self, row: Row, path: bytes | None = None) -> None:
        """Show the files after a turn, from a directory on; None: the one shown before."""
        if row is not self._row:
            self.entries.chosen.clear()
        self._row = row
        here = self.entries.listing.path if path is None else path
        work = functools.partial(self._list, row, here)
        in_thread(self, work, group="list", exclusive=True)

    def _list(self, row: Row, path: bytes) -> None:
        worker = get_current_worker()
        try:
            reader = self._reader()
            found = reader.children(reader.entry(row.view, path))
            order = sorted(found, key=lambda entry: (entry.kind != Kind.DIR, entry.name))
            listing = Listing(path, tuple(order))
        except Exception as error:  # noqa: BLE001 - shown where the entries would be
            listing = Listing(path, why_not=in_words(error))
        if not worker.is_cancelled:
            self.post_message(self.Listed(row, listing))

    @on(Listed)
    def listed(self, message: Listed) -> None:
        """Show the directory."""
        message.stop()
        if message.row is self._row:
            self.query_one(TextView).show(iter(()))
            self.entries.show(message.listing)

    @on(LineList.Moved)
    def moved(self, message: LineList.Moved) -> None:
        """Show the file under the cursor."""
        message.stop()
        entry, path = self.entries.entry, self.entries.path
        text = iter(()) if entry is None else self._content(entry, path)
        self.query_one(TextView).show(text)

    @on(EntryList.Up)
    def up(self, message: EntryList.Up) -> None:
        """To the directory above."""
        message.stop()
        if self._row is not None:
            self.browse(self._row, self.entries.listing.path.rpartition(b"/")[0])

    @on(LineList.Opened)
    def opened(self, message: LineList.Opened) -> None:
        """Into a directory, or into the text of a file."""
        message.stop()
        entry = self.entries.entry
        if self._row is not None and (entry is None or entry.kind == Kind.DIR):
            self.browse(self._row, self.entries.path)
        elif entry is not None:
            self.query_one(TextView).focus()

    def _content(self, entry: Entry, path: bytes) -> Iterator[Line]:
        has_time = entry.kind in {Kind.FILE, Kind.SYMLINK}  # of nothing else it is state
        when = f"  {amounts.clock(entry.mtime_ns)}" if has_time else ""
        yield (Piece(f"{entry.mode:04o}{when}", Tone.QUIET),)
        if entry.kind == Kind.SYMLINK:
            yield (Piece(f"-> {safe_path(entry.target)}"),)
        if entry.content is None:
            return
        yield (Piece(amounts.size(entry.content.size), Tone.QUIET),)
        text = self._reader().file(entry)
        if entry.content.size <= _COLOURED_MOST:
            whole = "".join(page.text for page in text.pages())
            yield from highlighted(whole.split("\n"), lexer_for(safe_path(path)))
            return
        rest = ""
        for page in text.pages():
            *lines, rest = (rest + page.text).split("\n")
            for line in lines:
                yield (Piece(line),)
        yield (Piece(rest),)


def _entry_line(entry: Entry) -> Line:
    name = safe_path(entry.name) + _MARKS.get(Kind(entry.kind), "")
    tone = Tone.FILES if entry.kind == Kind.DIR else Tone.PLAIN
    size = "" if entry.content is None else f"  {amounts.size(entry.content.size)}"
    return (Piece(name, tone), Piece(size, Tone.QUIET))
