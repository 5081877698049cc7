"""One tree that CRIU refuses is started again; what it took an image of comes back from that."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from pathlib import Path

import pytest

from crabrt.process import table

from .counted_runs import Agent, succeeded

pytestmark = pytest.mark.root


@pytest.fixture
def ports():
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return random.sample(range(1024, low), 2)


@pytest.fixture
def serving(tmp_path, criu, ports):
    refusing = tmp_path / "criu"
    refusing.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = dump ] && grep -q http.server "/proc/$3/cmdline"; then exit 1; fi\n'
        f'exec {criu.program} "$@"\n'
    )
    refusing.chmod(0o700)
    made = Agent(tmp_path, refusing, Path(__file__).with_name("serving.py"))
    made._env["KEEP"] = "1"
    yield made
    mark = f"CRAB_HOME={made.home}".encode()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and mark in Path(f"/proc/{name}/environ").read_bytes():
                os.kill(int(name), signal.SIGKILL)


def listening(ports):
    """The processes that have one of `ports` in their command."""
    words = {b"%d" % port for port in ports}
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if words & set(table.command(pid))]


def told(port, request=b""):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_each_comes_back_in_its_way(serving, ports):
    web, counter = ports
    assert serving.run(web, counter, 6).returncode == -signal.SIGKILL
    plain = serving.crab("restore", "last@4")
    assert plain.returncode == 3
    assert f"http.server --bind 127.0.0.1 {web}" in plain.stdout
    assert "brought back: " in plain.stdout
    (number,) = map(table.inner_number, listening([counter]))
    done = serving.crab("restore", "last@4", "--respawn")
    succeeded(done)
    assert done.stdout.count("started again: ") == 1
    (now,) = map(table.inner_number, listening([counter]))
    assert now == number, "an image brings its number back, too"
    assert b"one" in told(web, b"GET /page HTTP/1.0\r\n\r\n")
    assert told(counter) == b"2 sekrit"
