"""How a run begins in this process: a fresh one, or a child of one that lives here."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from crabrt.core.config import RUN_VARIABLE, Config, observers_directory
from crabrt.core.entries import CallId, Labelled, Lineage, Payload, Started
from crabrt.core.ids import RunId, derived_run_id, new_run_id, valid_name
from crabrt.core.version import VERSION
from crabrt.errors import UsageError, WorkspaceBusy
from crabrt.inspector import caches, choose, shell
from crabrt.inspector.network import choose_network
from crabrt.journal import Journal, Lease, run_dir
from crabrt.runtime import registry, upkeep
from crabrt.runtime.engine import Engine
from crabrt.runtime.payloads import put_payload
from crabrt.runtime.putback import tell_recovered
from crabrt.runtime.session import Session
from crabrt.runtime.settings import warn_of_unknown_variables
from crabrt.store import Store
from crabrt.workspace import Claim, Workspace, recover


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run is opened with.

    Attributes:
        config: the resolved configuration.
        workspace: its directory.
        name: the run's name.
        agent: name of the agent function, or None for `open_run`.
        arguments: the agent's encoded arguments; None where there are none.
        missing: why they could not be encoded.
    """

    config: Config
    workspace: Path
    name: str
    agent: str | None = None
    arguments: bytes | None = None
    missing: str | None = None


def check_name(name: str) -> str:
    """`name`, if it may be the name of a run.

    Raises:
        UsageError: it may not.
    """
    if not valid_name(name):
        raise UsageError(
            f"{name!r} may not name a run", hint="letters, digits, . _ - and no integer"
        )
    return name


def open_engine(setup: Setup, family: str) -> Engine:
    """Store, workspace, claim and engine for a run of `family`; a killed restore is finished first.

    Raises:
        StoreUnavailable, Damaged: the store cannot be used.
        WorkspaceRefused, WorkspaceBusy, NotFound: the workspace cannot be used.
        Unwatchable: an observer is asked for that cannot be had here.
    """
    config = setup.config
    warn_of_unknown_variables()
    store = Store.open(config.home, create=True)
    try:
        workspace = Workspace.open(
            setup.workspace, config.home, force=config.force, exclude=caches.left_out(config)
        )
        claim = _claim(workspace, family, config)
        try:
            mark = f"{RUN_VARIABLE}={family}".encode()
            observer = choose(config.observer, workspace.path, observers_directory(), mark=mark)
            network = choose_network(config.network_observer, mark)
            engine = Engine(config, store, workspace, claim, observer, network=network)
        except BaseException:
            claim.release()
            raise
    except BaseException:
        store.close()
        raise
    try:
        engine.submit(network.open)  # it mostly waits, for the kernel: 10 to 50 ms
        engine.recovered = recover(workspace, engine.writer)
    except BaseException:
        engine.close()
        raise
    return engine


def _claim(workspace: Workspace, family: str, config: Config) -> Claim:
    try:
        return workspace.claim(family, shared=config.shared)
    except WorkspaceBusy as error:  # who opens a run may share; who restores may not
        hint = f"{error.hint}; or let both work there: shared=True, or CRAB_SHARED=1"
        raise WorkspaceBusy(error.message, where=error.where, hint=hint) from error


def start(setup: Setup) -> Session:
    """A fresh run; its baseline is being captured when this returns.

    Raises:
        CrabError: see `open_engine`.
    """
    run_id = new_run_id(check_name(setup.name))
    engine = open_engine(setup, run_id)
    try:
        session = _begin(setup, engine, run_id, Lineage(family=run_id))
    except BaseException:
        engine.close()
        raise
    try:
        # Whatever this thread has to do comes first: beside one that computes, each of its steps
        # that lets go of the interpreter waits milliseconds to have it back.
        tell_recovered(session)
        upkeep.begin(engine)
        engine.submit(lambda: engine.tracker.load(engine.store))
        session.checkpoint(0, 0)
        engine.run_aside(shell.available)  # loaded here, it keeps no tool waiting
    except BaseException:
        registry.remove(session)
        session.close()
        raise
    return session


def start_child(setup: Setup, parent: Session, call: CallId) -> Session:
    """A child run of `parent`, in the same workspace and engine.

    Raises:
        CrabError: its journal cannot be begun.
    """
    run_id = derived_run_id(check_name(call.callable), parent.id, str(call))
    lineage = Lineage(family=parent.family, parent=parent.id, call=str(call))
    engine = parent.engine.share()
    try:
        session = _begin(setup, engine, run_id, lineage, parent)
    except BaseException:
        engine.close()
        raise
    session.checkpoint(0, 0)
    return session


def _begin(
    setup: Setup, engine: Engine, run_id: RunId, lineage: Lineage, parent: Session | None = None
) -> Session:
    directory = run_dir(setup.config.home, run_id)
    lease = Lease.acquire(directory)
    try:
        journal = Journal.open(directory, lease, create=True)
        with engine.writer.commit():
            arguments = Payload(missing=setup.missing)
            if setup.arguments is not None:
                arguments = put_payload(setup.arguments, engine.writer)
                engine.writer.flush()
            started = Started(
                run=run_id,
                name=setup.name,
                workspace_path=engine.workspace.path,
                workspace_id=engine.workspace.id,
                lineage=lineage,
                argv=command_line(),
                cwd=os.getcwdb(),
                agent=setup.agent,
                arguments=arguments,
                version=VERSION,
                pid=os.getpid(),
                exclude=caches.left_out(setup.config),
            )
            journal.append(started, turn=0)
        for label in setup.config.labels:
            journal.append(Labelled(0, label), turn=0)
    except BaseException:
        lease.release()
        raise
    session = Session(run_id, setup.name, lineage.family, engine, journal=journal, lease=lease)
    session.parent = parent
    registry.add(session)
    return session


def command_line() -> tuple[str, ...]:
    """The command that runs this program again, as the interpreter was given it."""
    return (sys.executable, *sys.orig_argv[1:]) if sys.executable else tuple(sys.orig_argv)
