"""The record of a worker is complete up to its last begun call, even if the process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.failover.campaign.history import Op, Status
from tests.failover.campaign.marks import find_mark, make_batch, put_mark
from tests.failover.campaign.record import Recorder, load

KILLED = """
import os, signal, sys
from pathlib import Path
from {package}.record import Recorder
from {package}.history import Op, Status
from {package}.marks import make_batch
recorder = Recorder(Path(sys.argv[1]), "w1")
recorder.end(recorder.begin("s", "h", Op.APPEND, items=make_batch("w1", 1, 2)), Status.OK)
recorder.begin("s", "h", Op.POP)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "w1.jsonl", "w1")
    batch = make_batch("w1", 1, 3)
    written = [
        recorder.end(recorder.begin("s", "h", Op.APPEND, items=batch), Status.OK),
        recorder.end(recorder.begin("s", "h", Op.READ, limit=4), Status.OK, result=(*batch, None)),
        recorder.end(recorder.begin("s", "h", Op.POP), Status.UNKNOWN, error="E: x", foreign_error=True),
        recorder.end(
            recorder.begin("s", "h", Op.POP), Status.HISTORY_LOST, error="E: x", lost_versions=2, is_open=True
        ),
        recorder.begin("s", "h", Op.CLEAR),
    ]
    recorder.close()
    assert load(tmp_path / "w1.jsonl") == written


def test_a_killed_workers_record_ends_with_the_call_that_it_had_begun(tmp_path: Path) -> None:
    package = f"{__package__}.campaign"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED.format(package=package), str(tmp_path / "record")]
    done = subprocess.run(command, env=environment, check=False, timeout=170)
    assert done.returncode == -signal.SIGKILL
    append, pop = load(tmp_path / "record")
    assert (append.status, append.finished) == (Status.OK, True)
    assert (pop.op, pop.status, pop.finished) == (Op.POP, Status.UNKNOWN, False)


def test_a_line_that_was_cut_leaves_its_call_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "record"
    recorder = Recorder(path, "w1")
    recorder.end(recorder.begin("s", "h", Op.APPEND, items=make_batch("w1", 1, 1)), Status.OK)
    recorder.close()
    path.write_bytes(path.read_bytes()[:-20])
    (call,) = load(path)
    assert not call.finished


def test_an_item_tells_who_wrote_it_and_where() -> None:
    (mark,) = make_batch("w1.own", 7, 1)
    item = put_mark({"role": "user", "content": "x"}, mark, "s")
    assert find_mark(item, "s") == mark
    assert find_mark(item, "other") is None
    assert find_mark({"role": "user"}, "s") is None
    assert find_mark("text", "s") is None
