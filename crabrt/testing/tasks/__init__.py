"""The tasks of ``crab bench recovery``: scripted agents that make the processes agents make.

What it is: data. A `Task` has the calls of a scripted model, turn by turn, and questions whose
answers are in the memory of the processes that those calls have made. A new one is an entry in
`TASKS`; it has to print the same at every run.
"""

from crabrt.testing.tasks import databases, jobs, servers, shells
from crabrt.testing.tasks.task import Call, Task, Tool, search_path

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        servers.DEV_SERVER,
        servers.NODE_SERVER,
        servers.REDIS,
        databases.POSTGRESQL,
        databases.SQLITE,
        jobs.FILE_WATCHER,
        jobs.BUILD_DAEMON,
        jobs.TAIL_PIPELINE,
        jobs.BACKGROUND_WRITER,
        jobs.SOCKET_PAIR,
        jobs.SCRATCH_FILE,
        shells.SHELL,
        shells.PYTHON_REPL,
        shells.KEPT_CONNECTION,
        shells.TWO_KINDS,
    )
}
"""Each task, by its name."""

__all__ = ["TASKS", "Call", "Task", "Tool", "search_path"]
