"""What a turn holds, on demand: messages, outputs, changes, files; and what is not kept."""

from __future__ import annotations

import json
import os

import pytest

from crabrt.core.content import build
from crabrt.core.entries import CallId, Failure, Intent, Payload, Request, Response, Result
from crabrt.core.ids import object_id
from crabrt.errors import DamagedObject, NotFound
from crabrt.journal import thin_turns
from crabrt.store import Store
from crabrt.store.contents import put_bytes
from crabrt.timeline.feed import RunFeed
from crabrt.timeline.patches import file_patch
from crabrt.timeline.reader import RunReader, patch_lines


@pytest.fixture
def made(builder, tmp_path):
    run = builder.small_run(tmp_path / "store", tmp_path / "workspace")
    yield run
    run.close()


@pytest.fixture
def reader(made):
    return RunReader(made.store, made.run)


def timeline(made):
    with RunFeed(made.home, made.run) as feed:
        return feed.read_all()


def row(made, number):
    return timeline(made).rows.at(number)


def test_a_turn_has_its_messages_calls_and_outputs(made, reader):
    think, sh = reader.detail(row(made, 2).view).calls
    messages = reader.messages(reader.message_ids(think))
    assert [(one.role, one.text.page().text) for one in messages] == [
        ("user", "turn 1?"),
        ("assistant", "reply 1"),
        ("user", "turn 2?"),
    ]
    reply = reader.output(think)
    assert (reply.role, reply.text.page().text) == ("assistant", "reply 2")
    assert reader.title(sh) == 'sh("make")'
    assert reader.output(sh).text.page().text == "ok"


def test_hostile_text_of_calls_is_shown_and_not_obeyed(made, reader, builder):
    made.turn(None, tool="sh\x1b[2J", argument="\x1b]0;x\x07", result="\x1b[31mred\u202e")
    _, call = reader.detail(row(made, 4).view).calls
    for text in (reader.title(call), reader.output(call).text.page().text):
        assert text.isprintable()
        assert "\\x1b" in text


def test_what_a_turn_changed_and_how_each_path_did(made, reader):
    state = timeline(made)
    changes = reader.changed_by(state.rows, 2)
    assert [change.path for change in changes.items] == [b"app.py"]
    patch = reader.patch(changes.items[0])
    assert [line.text for line in patch.lines if line.kind in ("added", "removed")] == [
        "-two",
        "+2",
    ]
    assert not patch.more
    assert reader.patch(changes.items[0], limit=2).more
    assert reader.changed_by(state.rows, 3).items == ()
    assert reader.changed_by(state.rows, 0).why_not
    assert reader.changed_by(state.rows, 77).why_not


def test_any_two_turns_can_be_compared_and_no_more_is_listed_than_asked_for(made, reader):
    def many():
        for n in range(30):
            (made.path / f"new-{n:02}").write_text(str(n))

    made.turn(many)
    state = timeline(made)
    before, after = state.rows.at(0).view, state.rows.at(4).view
    changes = reader.compare(before, after, limit=10)
    assert len(changes.items) == 10
    assert changes.more
    forward = reader.compare(before, after)
    back = reader.compare(after, before)
    assert [one.path for one in forward.items] == [one.path for one in back.items]
    assert len(forward.items) == 31


def test_files_that_were_given_up_are_said_to_be(made, reader):
    thin_turns(made.directory, [2])
    state = timeline(made)
    assert "given up" in reader.changed_by(state.rows, 2).why_not
    with pytest.raises(NotFound, match="not kept"):
        reader.entry(state.rows.at(2).view, b"app.py")
    assert reader.alive(state.rows.at(2).view).trees == ()


def test_a_turn_without_a_checkpoint_is_said_to_have_none(made, reader):
    number = made.unprotected_turn("disk full")
    assert "no checkpoint" in reader.changed_by(timeline(made).rows, number).why_not


def test_every_path_that_a_turn_changed_is_told_by_its_trees(made, reader):
    names = [f"{n:03}.txt" for n in range(50)]
    made.turn(lambda: [(made.path / name).write_text(name) for name in names] and None)
    state = timeline(made)
    assert list(reader.paths_changed(state.rows, 4)) == [name.encode() for name in names]
    assert list(reader.paths_changed(state.rows, 3)) == []
    thin_turns(made.directory, [4])
    with pytest.raises(NotFound, match="given up"):
        next(reader.paths_changed(timeline(made).rows, 4))
    with pytest.raises(NotFound, match="no such turn"):
        next(reader.paths_changed(state.rows, 77))


def test_a_file_as_it_was(made, reader):
    view = row(made, 1).view
    assert reader.file(reader.entry(view, b"app.py")).page().text == "one\ntwo\nthree\n"
    assert reader.file(reader.entry(view, b"")).page().text == ""
    with pytest.raises(NotFound):
        reader.entry(view, b"no such file")


def test_a_removed_line_that_begins_with_dashes_is_no_heading(made, reader):
    made.turn(lambda: (made.path / "q.sql").write_text("select 1\n-- old\n"))
    made.turn(lambda: (made.path / "q.sql").write_text("select 1\n++ new\n"))
    [change] = reader.changed_by(timeline(made).rows, 5).items
    kinds = {line.text: line.kind for line in reader.patch(change).lines}
    assert kinds["--- old"] == "removed"
    assert kinds["+++ new"] == "added"
    assert kinds["--- a/q.sql"] == "head"
    assert kinds[" select 1"] == "context"


def test_a_patch_of_hostile_lines_is_safe_and_keeps_its_tabs(made, reader):
    made.turn(lambda: (made.path / "h").write_bytes(b"\tx\x1b[2J\xff\r\n"))
    [change] = reader.changed_by(timeline(made).rows, 4).items
    [line] = [one for one in reader.patch(change).lines if one.kind == "added"]
    assert line.text == "+\tx\\x1b[2J\\xff\\x0d"
    assert next(patch_lines(file_patch(change, reader._read))).kind == "head"


def test_a_backslash_and_a_letter_are_no_tab(made, reader):
    made.turn(lambda: (made.path / "t.py").write_text("print('a\\tb\\n')\t# \\x1b\n"))
    [change] = reader.changed_by(timeline(made).rows, 4).items
    [line] = [one for one in reader.patch(change).lines if one.kind == "added"]
    assert line.text == "+print('a\\tb\\n')\t# \\x1b"


def test_a_large_output_comes_by_the_page(made, reader):
    call = CallId("0", "sh", 99)
    data = json.dumps("x").encode()
    content = put_bytes(
        b"\xdb" + (9 << 20).to_bytes(4, "big") + b"line 7!\n" * (9 << 17), made.writer
    )
    made.writer.sync()
    made.journal.append(Intent(call, object_id(b"a"), Payload(data)), turn=3)
    made.journal.append(Result(call, 1.0, Payload(content=content)), turn=3)
    made.journal.sync()
    [found] = [one for one in reader.detail(row(made, 3).view).calls if one.call == call]
    text = reader.output(found).text
    assert text.total == 9 << 20
    assert text.page(0, 100).text == "line 7!\n" * 12


def test_a_call_that_raised_and_a_reply_that_never_came(made, reader):
    asked = CallId("0", "think", 50)
    ids = [made.writer.put(b"\xa2hi")]
    listed = build(1, ids, made.writer.put)
    made.writer.sync()
    made.journal.append(Request(asked, b"", Payload(b"\xc0"), listed), turn=3)
    call = CallId("0", "sh", 51)
    made.journal.append(Intent(call, b"", Payload(missing="a socket")), turn=3)
    made.journal.append(Result(call, 1.0, failure=Failure("E", "no\x1b", Payload())), turn=3)
    made.journal.sync()
    calls = {one.call: one for one in reader.detail(row(made, 3).view).calls}
    assert reader.output(calls[asked]).text.page().text == ""
    assert reader.messages(reader.message_ids(calls[asked]))[0].text.page().text == "hi"
    assert reader.title(calls[call]) == "sh(?)  arguments not stored: a socket"
    assert calls[call].failure.message == "no\x1b"


def test_what_the_store_lost_is_damage_and_the_rows_are_still_there(made, reader):
    state = timeline(made)
    made.store.close()
    for pack in made.home.glob("packs/*/*.pack"):
        os.truncate(pack, 100)
    with Store.open(made.home) as store:
        with pytest.raises(DamagedObject):
            RunReader(store, made.run).changed_by(state.rows, 2)
        assert len(timeline(made).rows) == 4


def test_large_replies_in_the_store_are_read_as_messages(made, reader, builder):
    asked = CallId("0", "think", 60)
    reply = builder.encode({"role": "assistant", "content": "word " * 100_000})
    content = put_bytes(reply, made.writer)
    made.writer.sync()
    made.journal.append(Request(asked, b"", Payload(b"\xc0")), turn=3)
    made.journal.append(Response(asked, 1.0, Payload(content=content)), turn=3)
    made.journal.sync()
    [found] = [one for one in reader.detail(row(made, 3).view).calls if one.call == asked]
    reply = reader.output(found)
    assert (reply.role, reply.text.total) == ("assistant", 500_000)
