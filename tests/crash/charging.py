"""A loop that pays: ``charging.py PLACE [resume]``. Its ledger lies outside of the workspace."""

import sys
from pathlib import Path

import crabrt

PAYMENTS = (5, 6, 7)


def agent(place):
    ws = place / "ws"
    ws.mkdir(exist_ok=True)

    @crabrt.model
    def think(messages: list[dict]) -> str:
        return f"reply {len(messages)}"

    @crabrt.tool
    def write(text: str) -> str:
        (ws / "receipt").write_text(text)
        return "written"

    @crabrt.tool(effect="external")
    def charge(amount: int) -> str:
        with (place / "ledger").open("a") as ledger:
            ledger.write(f"{amount}\n")
        return f"charged {amount}"

    @crabrt.agent(workspace=ws, name="payer", home=place / "home", gate_limit_ms=60_000)
    def pay(amounts: list[int]) -> str:
        messages = []
        for amount in amounts:
            messages.append({"role": "assistant", "content": think(messages)})
            messages.append({"role": "tool", "content": write(f"before {amount}")})
            messages.append({"role": "tool", "content": charge(amount)})
            messages.append({"role": "tool", "content": write(messages[-1]["content"])})
        return "paid"

    return pay


def lead(place, *, resume=False):
    pay = agent(place)
    return pay.resume("payer") if resume else pay(list(PAYMENTS))


if __name__ == "__main__":
    assert lead(Path(sys.argv[1])) == "paid"
