"""Killed between intent and result, a call may have happened: check, retry, skip say what now."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import crabrt
from crabrt.core.entries import Noted


class Shop:
    """A loop that charges once and then writes; it may be killed before, in and behind the call."""

    def __init__(self, ws: Path, die) -> None:
        self.ws, self.die = ws, die
        self.ledger = ws.parent / "ledger"  # outside of the workspace: no restore takes it back
        self.checked: list[int] = []

    @property
    def charged(self) -> list[str]:
        return self.ledger.read_text().split() if self.ledger.exists() else []

    def was_charged(self, amount: int) -> crabrt.Done | object:
        self.checked.append(amount)
        happened = str(amount) in self.charged
        return crabrt.Done(f"found {amount}") if happened else crabrt.NOT_DONE

    def agent(self, die_at: str | None = None, **declared):
        def died(where: str) -> None:
            if where == die_at:
                self.die()

        @crabrt.tool(effect="external", **declared)
        def charge(amount: int) -> str:
            died("before")
            with self.ledger.open("a") as file:
                file.write(f"{amount}\n")
            died("after")
            return f"charged {amount}"

        @crabrt.tool
        def write(text: str) -> None:
            (self.ws / "receipt").write_text(text)
            died("behind")

        @crabrt.agent(workspace=self.ws, name="shop")
        def run() -> object:
            receipt = charge(5)
            write(str(receipt))
            return receipt

        return run


@pytest.fixture
def shop(ws: Path, die) -> Shop:
    return Shop(ws, die)


def test_a_check_that_finds_it_gives_its_result(shop: Shop, killed, store) -> None:
    killed(shop.agent("after"))
    assert shop.agent(check=shop.was_charged).resume("last") == "found 5"
    assert shop.charged == ["5"]
    assert (shop.ws / "receipt").read_text() == "found 5"
    (note,) = [body for body in store.bodies(Noted) if body.topic == "in-doubt"]
    assert "it is not made, as in_doubt=check says" in note.text


def test_a_check_that_does_not_find_it_lets_the_call_be_made(shop: Shop, killed) -> None:
    killed(shop.agent("before"))
    assert shop.charged == []
    assert shop.agent(check=shop.was_charged).resume("last") == "charged 5"
    assert shop.charged == ["5"]


@pytest.mark.parametrize(("said", "result"), [(True, None), (False, "charged 5")])
def test_a_check_may_say_yes_or_no(shop: Shop, killed, said, result) -> None:
    killed(shop.agent("before"))
    assert shop.agent(check=lambda amount: said).resume("last") == result
    assert shop.charged == ([] if said else ["5"])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: crabrt.UNKNOWN, "its check cannot tell"),
        (lambda: None, "its check gave a NoneType, no Done"),
        (lambda: 1 / 0, "its check failed: ZeroDivisionError"),
        (lambda: crabrt.Done(threading.Lock()), "what its check gives cannot be stored"),
    ],
    ids=["unknown", "nothing", "an error", "a lock"],
)
def test_a_check_that_does_not_say_leaves_it_in_doubt(shop: Shop, killed, answer, why) -> None:
    killed(shop.agent("after"))
    with pytest.raises(crabrt.InDoubt, match=why):
        shop.agent(check=lambda amount: answer()).resume("last")
    assert shop.charged == ["5"]
    assert shop.agent(check=shop.was_charged).resume("last") == "found 5"


def test_what_was_found_is_asked_for_once(shop: Shop, killed) -> None:
    killed(shop.agent("after"))
    killed(lambda: shop.agent("behind", check=shop.was_charged).resume("last"))
    assert shop.agent(check=shop.was_charged).resume("last") == "found 5"
    assert shop.checked == [], "only the one that died asked"
    assert shop.charged == ["5"]


def test_a_call_to_be_retried_is_made_again(shop: Shop, killed) -> None:
    killed(shop.agent("after"))
    assert shop.agent(kind="idempotent", in_doubt="retry").resume("last") == "charged 5"
    assert shop.charged == ["5", "5"]


def test_a_call_to_be_skipped_gives_a_word_of_it_now_and_on_every_resume(
    shop: Shop, killed
) -> None:
    killed(shop.agent("after", in_doubt="skip"))
    killed(lambda: shop.agent("behind", in_doubt="skip").resume("last"))
    skipped = shop.agent(in_doubt="skip").resume("last")
    assert skipped == crabrt.Skipped("0:charge#0")
    assert shop.charged == ["5"]


@pytest.mark.parametrize("policy", ["ask", "fail", "check"])
def test_without_an_answer_a_person_is_asked(shop: Shop, killed, store, policy) -> None:
    killed(shop.agent("after"))
    with pytest.raises(crabrt.InDoubt, match="may or may not have happened") as caught:
        shop.agent(in_doubt=policy).resume("last")
    assert caught.value.exit_code == 9
    assert f"`crab resume {store.run().run}@0`, from the turn before" in (caught.value.hint or "")
    assert shop.charged == ["5"]


def test_a_stream_in_doubt_gives_the_pieces_that_were_found(ws: Path, killed, die) -> None:
    def agent(deadly: bool, **declared):
        @crabrt.tool(effect="external", **declared)
        def publish():
            yield "a"
            if deadly:
                die()
            yield "b"

        @crabrt.agent(workspace=ws, name="publisher")
        def run() -> list[object]:
            return list(publish())

        return run

    killed(agent(deadly=True))
    assert agent(deadly=False, check=lambda: crabrt.Done(["a", "b"])).resume("last") == ["a", "b"]


def test_a_stream_that_is_skipped_has_no_pieces(ws: Path, killed, die) -> None:
    @crabrt.tool(effect="external", in_doubt="skip")
    def publish():
        yield "a"
        die()

    @crabrt.agent(workspace=ws, name="publisher")
    def run() -> list[object]:
        return list(publish())

    killed(run)
    assert run.resume("last") == []


@pytest.mark.parametrize("is_async", [False, True], ids=["sync check", "async check"])
def test_a_check_does_not_hold_the_event_loop(ws: Path, killed, die, is_async: bool) -> None:
    ledger = ws.parent / "ledger"
    ticked: list[int] = []

    def agent(deadly: bool, check=None):
        @crabrt.tool(effect="external", check=check)
        async def charge(amount: int) -> str:
            ledger.write_text(str(amount))
            if deadly:
                die()
            return "charged"

        @crabrt.agent(workspace=ws, name="payer")
        async def run() -> str:
            return await charge(5)

        return run

    released = threading.Event()

    def waits(amount: int) -> crabrt.Done:
        assert released.wait(60), "the event loop stood still"
        return crabrt.Done(f"found {amount}")

    async def awaits(amount: int) -> crabrt.Done:
        return await asyncio.to_thread(waits, amount)

    async def both() -> str:
        async def tick() -> None:
            ticked.append(1)
            released.set()

        ticking = asyncio.ensure_future(tick())
        result = await agent(deadly=False, check=awaits if is_async else waits).resume("last")
        await ticking
        return result

    killed(lambda: asyncio.run(agent(deadly=True)()))
    assert asyncio.run(both()) == "found 5"
    assert ticked == [1]


def in_parallel(place: Path, died, check):
    """An agent that looks, charges and writes, while another tool of its waits for that."""
    release = asyncio.Event()

    @crabrt.tool
    async def slow() -> None:
        await release.wait()

    @crabrt.tool
    async def look() -> str:
        return (place / "world").read_text()

    @crabrt.tool(effect="external", check=check)
    async def charge(amount: int) -> str:
        with (place / "ledger").open("a") as file:
            file.write(f"{amount}\n")
        died("charge")
        return "charged"

    @crabrt.tool
    async def write(text: str) -> None:
        (place / "ws" / "receipt").write_text(text)
        died("write")

    async def other() -> None:
        await look()
        await write(await charge(5))
        release.set()

    @crabrt.agent(workspace=place / "ws", name="parallel")
    async def run() -> None:
        await asyncio.gather(slow(), other())

    return run


@pytest.mark.filterwarnings("ignore:.*leaves the machine while another tool runs")
def test_what_is_settled_stays_so_though_an_earlier_tool_says_otherwise(
    ws: Path, killed, die
) -> None:
    place = ws.parent
    (place / "world").write_text("before")

    def was_charged(amount: int) -> crabrt.Done:
        with (place / "asked").open("a") as file:
            file.write("?")
        return crabrt.Done("found")

    def agent(die_in: str | None):
        return in_parallel(place, lambda where: die() if where == die_in else None, was_charged)

    killed(lambda: asyncio.run(agent("charge")()))
    (place / "world").write_text("after")
    killed(lambda: asyncio.run(agent("write").resume("last")))
    asyncio.run(agent(None).resume("last"))
    assert (place / "ledger").read_text() == "5\n"
    assert (place / "asked").read_text() == "?"
    assert (ws / "receipt").read_text() == "found"
