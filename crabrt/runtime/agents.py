"""The agent: a loop of the user's own that becomes a run when it is called, and can be re-entered.

The loop is called again on resume, not unpickled: its local state rebuilds itself from the recorded
replies and results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from crabrt.core.targets import parse_target
from crabrt.errors import NotFound
from crabrt.runtime import registry
from crabrt.runtime.entering import look_up
from crabrt.runtime.loops import Loop
from crabrt.runtime.meaning import meant
from crabrt.runtime.opening import check_name
from crabrt.runtime.settings import load_config
from crabrt.runtime.shapes import shaped

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class AgentFunction(Protocol[P, R_co]):
    """What `agent` makes of a function: the same function, with `resume`."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the loop (inside another run: as a child of it)."""
        ...

    def resume(self, run: str, /, **override: Any) -> R_co:
        """Take up a run: the recorded calls are answered, then the loop is live.

        Args:
            run: ``RUN`` (goes on where it stopped), or ``RUN@TURN`` (goes on differently from
                that turn, as a new run). ``last`` is the last run of this agent in its workspace.
            override: arguments that could not be stored, or should be others.

        Raises:
            NotFound, Ambiguous: there is no such run or turn.
            NotResumable: it cannot be replayed, or is another agent's; the message says why.
            RunBusy, WorkspaceBusy: somebody alive has it.
            Diverged: the loop made another call than was recorded.
        """
        ...


@overload
def agent(function: Callable[P, R_co], /) -> AgentFunction[P, R_co]: ...
@overload
def agent(
    *,
    workspace: str | os.PathLike[str] | None = None,
    name: str | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    **options: Any,
) -> Callable[[Callable[P, R_co]], AgentFunction[P, R_co]]: ...
def agent(
    function: Callable[..., Any] | None = None,
    /,
    *,
    workspace: str | os.PathLike[str] | None = None,
    name: str | None = None,
    returns: Any = None,
    raises: Iterable[type[BaseException]] | type[BaseException] = (),
    **options: Any,
) -> Any:
    """Make a function an agent loop: each call of it is a run, journalled and protected.

    Args:
        function: the loop: sync, async, or a generator of either kind.
        workspace: the directory it works in, protected in place (relative: to the current
            directory at the time of the call). None: that of the run it is called in; outside of
            any, the current directory.
        name: what it and its runs are called (default: the setting ``name`` for its runs, and the
            function's name).
        returns: the type of its result, where the annotation doesn't say.
        raises: exception classes that come back as themselves.
        options: any field of `crabrt.Config`: ``strict``, ``shared``, ``force``, ``exclude``,
            ``gate_limit_ms``, ``on_divergence``, ...

    Raises:
        UsageError: the name is not legal.
    """
    if name is not None:
        check_name(name)

    def decorate(plain: Callable[..., Any]) -> Any:
        return shaped(
            Loop(
                plain,
                workspace,
                name,
                returns=returns,
                raises=raises,
                options=options,
            )
        )

    return decorate if function is None else decorate(function)


def resume(run: str, /, **override: Any) -> Any:
    """Take up a run by name, when its agent function is imported. See `AgentFunction.resume`.

    Here ``last`` is the last run of any agent in the current directory.

    Raises:
        NotFound: its agent function is not imported, or there is no such run.
    """
    config, asked = load_config("."), parse_target(run)
    target = meant(config, ".", asked, "of an agent ", lambda view: view.agent is not None)
    recorded = look_up(config, target)
    found = registry.agent_named(recorded.started.agent or "")
    if found is None:
        raise NotFound(
            f"the agent function {recorded.started.agent!r} of this run is not imported",
            where=recorded.run,
            hint="import the module that defines it, or use `crab resume`, which runs its command",
        )
    return found.resume(str(target), **override)
