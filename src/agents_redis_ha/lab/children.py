"""Child processes that do not outlive this one.

On Linux every child asks the kernel to be killed when its parent dies (PR_SET_PDEATHSIG). Two traps are avoided:

* "Parent" means the *thread* that started the child. A server started by `asyncio.to_thread` would die with that worker
  thread. So one daemon thread, which lasts as long as the process, starts them all.
* A `preexec_fn` is unsafe (and, from Python 3.12, warned about) in a process with threads. So a tiny interpreter makes
  the request and then becomes the server by `exec`, which keeps the process id. It costs about 10 ms.

Elsewhere children are ended by `Lab.close` and at exit only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

from .errors import LabError

Process = subprocess.Popen[bytes]

_GRACE_SECONDS = 2.0
_LAUNCHER = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != parent:  # it died before we asked
    sys.exit(1)
os.execv(command[0], command)
"""


class _Starter:
    """The one thread of this process that starts children."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._jobs: queue.SimpleQueue[tuple[Sequence[str], Path, Future[Process]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="agents-redis-ha-lab-starter", daemon=True).start()

    def start(self, command: Sequence[str], log: Path) -> Process:
        future: Future[Process] = Future()
        self._jobs.put((command, log, future))
        return future.result()

    def _work(self) -> None:
        while True:
            command, log, future = self._jobs.get()
            try:
                future.set_result(_popen(command, log))
            except Exception as error:  # noqa: BLE001 (the thread that waits for the future gets it)
                future.set_exception(error)


_lock = threading.Lock()
_starter: _Starter | None = None


def start_child(command: Sequence[str], log: Path) -> Process:
    """Start a command, with its output appended to a file, in a session of its own.

    Its own session keeps Ctrl-C in a terminal from reaching the servers before the lab can end them
    in order.

    Raises:
        LabError: The command could not be started.
    """
    global _starter  # noqa: PLW0603 (one thread a process)
    with _lock:
        if _starter is None or _starter.pid != os.getpid():  # threads do not survive a fork
            _starter = _Starter()
        starter = _starter
    try:
        return starter.start(command, log)
    except OSError as error:
        raise LabError(f"{command[0]} could not be started: {error}") from error


def end_children(processes: Iterable[Process], grace_seconds: float = _GRACE_SECONDS) -> None:
    """End processes and reap them: SIGTERM to all, SIGKILL to those that take too long."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        # a stopped process would never see the SIGTERM
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
    deadline = time.monotonic() + grace_seconds
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def freeze_child(process: Process) -> None:
    """Stop a process (SIGSTOP) and return when the kernel has done so."""
    process.send_signal(signal.SIGSTOP)
    if process.poll() is None and hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _popen(command: Sequence[str], log: Path) -> Process:
    if sys.platform == "linux" and sys.executable:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
