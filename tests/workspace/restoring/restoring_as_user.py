"""Restores as an ordinary user: CASE TOP. Prints what happened as JSON.

The interpreter may lie where only root can read, so the process starts as root, loads everything
by using it once, and only then becomes somebody else.
"""

import ctypes
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

from crabrt.store import Store
from crabrt.testing import oracle
from crabrt.workspace import Tracker, Workspace, restore, restore_to, undo

PR_SET_DUMPABLE = 4


def checkpoint(workspace, writer):
    tracker = Tracker(workspace, huge_files=10**9, huge_bytes=10**15)
    root = tracker.capture(tracker.scan(), writer).root
    writer.sync()
    return root


def use_everything_once(top):
    for name in ("warm", "warm-home"):
        os.mkdir(top / name)
    (top / "warm/f").write_bytes(os.urandom(300_000))
    with Store.open(top / "warm-home", create=True) as store:
        writer = store.writer()
        workspace = Workspace.open(top / "warm", top / "warm-home")
        target = checkpoint(workspace, writer)
        (top / "warm/f").unlink()
        restore(workspace, writer, target, base=None)
        undo(workspace, writer)
        writer.close()
    subprocess.run(["true"], check=True)


def become_nobody():
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    # As after an exec: /proc/self belongs to the user again.
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    os.umask(0o022)


def closed_directories(top, *, unreadable):
    path, home = top / "ws", top / "home"
    (path / "closed/deep").mkdir(parents=True)
    (path / "closed/f").write_bytes(b"1")
    (path / "closed/deep/g").write_bytes(b"1")
    (path / "unlisted").mkdir()
    (path / "unlisted/h").write_bytes(b"1")
    (path / "tool").write_bytes(b"1")
    (path / "tool").chmod(0o4755)
    (path / "secret").write_bytes(b"1")
    (path / "secret").chmod(0o400)
    for name, mode in (("closed/deep", 0o555), ("closed", 0o500), ("unlisted", 0o555)):
        (path / name).chmod(mode)
    path.chmod(0o555)
    with Store.open(home, create=True) as store:
        writer = store.writer()
        workspace = Workspace.open(path, home)
        target, wanted = checkpoint(workspace, writer), oracle.manifest(path)
        subprocess.run(["chmod", "-R", "u+rwx", path], check=True)
        (path / "closed/f").write_bytes(b"2")
        (path / "closed/deep/g").unlink()
        (path / "closed/deep/new").write_bytes(b"2")
        (path / "unlisted/h").unlink()
        (path / "tool").write_bytes(b"2")
        (path / "secret").unlink()
        (path / "closed/deep").chmod(0o555)
        (path / "unlisted").chmod(0o100 if unreadable else 0o555)
        (path / "closed").chmod(0o500)
        path.chmod(0o555)
        was = None if unreadable else oracle.manifest(path)
        report = restore(workspace, writer, target, base=None)
        said = {
            "complete": report.complete,
            "not_restored": [[repr(p), why] for p, why in report.not_restored],
            "difference": oracle.describe_difference(wanted, oracle.manifest(path)),
            "undone": "",
        }
        if was is not None:
            undo(workspace, writer)
            said["undone"] = oracle.describe_difference(was, oracle.manifest(path))
        writer.close()
    subprocess.run(["chmod", "-R", "u+rwx", path], check=True)
    return said


def owner_of_somebody_else(top):
    with Store.open(top / "home") as store:
        report = restore_to(store, bytes.fromhex((top / "root").read_text()), top / "ws/new")
    tool = (top / "ws/new/tool").stat()
    return {
        "verified": report.verified,
        "why": dict(report.not_restored)[b"tool"],
        "mode": stat.S_IMODE(tool.st_mode),
    }


case, top = sys.argv[1], Path(sys.argv[2])
use_everything_once(top)
become_nobody()
if case == "owner":
    said = owner_of_somebody_else(top)
else:
    said = closed_directories(top, unreadable=case == "unreadable")
sys.stdout.write(json.dumps(said))
