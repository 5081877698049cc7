"""A process that watches and obeys over a pipe. Run as a script: WORKSPACE HOME PATIENCE."""

import json
import os
import signal
import sys
from pathlib import Path

from crabrt.inspector.watch import Unwatchable, open_watch


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def told(dirty):
    names = [os.fsdecode(name) for names in dirty.places.values() for name in names]
    return {"names": sorted(names), "unknown": dirty.unknown, "events": dirty.events}


def obey(watch, command):
    if command == "drain":
        return told(watch.drain())
    if command == "fork":
        near, far = os.pipe()
        child = os.fork()
        if child == 0:
            unknown = watch.drain().unknown
            watch.close()
            os.write(far, unknown.encode())
            os.close(far)
            while True:
                signal.pause()
        os.close(far)
        with open(near) as pipe:
            return {"child": child, "unknown": pipe.read()}
    watch.close()
    return {}


def main():
    try:
        watch = open_watch(sys.argv[1], Path(sys.argv[2]), patience_s=float(sys.argv[3]))
    except Unwatchable as error:
        say({"reason": error.reason, "message": error.message})
        return
    say({"pid": os.getpid()})
    for line in sys.stdin:
        say(obey(watch, line.strip()))


if __name__ == "__main__":
    main()
