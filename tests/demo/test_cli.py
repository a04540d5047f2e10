"""The command, and one short run of the whole demo."""

from __future__ import annotations

import io
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents_redis_ha import cli
from agents_redis_ha.demo import Report, figures, findings
from agents_redis_ha.demo.progress import PlainProgress, RichProgress, Snapshot, choose_progress, rows

WHOLE = Report(
    topology="sentinel",
    fault="kill",
    session="ha",
    workers=4,
    seed=0,
    conversations=40,
    turns=165,
    turns_done=165,
    items=775,
    items_stored=775,
    failed_turns=0,
    errors={},
    error_examples={},
    redelivered_turns=0,
    resumed_turns=0,
    unresolved_turns=0,
    bad_inputs=0,
    retries=12,
    repeats_suppressed=2,
    failovers=4,
    lost=0,
    duplicated=0,
    foreign=0,
    out_of_order=0,
    torn_turns=0,
    damaged_conversations=0,
    resent_turns_stored_twice=0,
    resent_items_stored_twice=0,
    session_view_differs=0,
    longest_wait_seconds=2.5,
    longest_silence_seconds=2.0,
    takeover_seconds=1.9,
    slots_moved=0,
    seconds=20.0,
)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(arguments))
    assert stop.value.code == cli.EXIT_USAGE
    return capsys.readouterr().err


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "tls"])
def test_moving_slots_without_a_cluster_is_a_usage_error(capsys: pytest.CaptureFixture[str], topology: str) -> None:
    assert "--topology cluster" in error_of(capsys, "demo", "--topology", topology, "--fault", "move-slot")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["demo", "--topology", "ring"],
        ["demo", "--fault", "flood"],
        ["demo", "--session", "sqlite"],
        ["demo", "--workers", "0"],
        ["demo", "--limit", "-1"],
        ["demo", "--limit", "many"],
        ["play"],
    ],
)
def test_what_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert "usage:" in error_of(capsys, *arguments)


def test_a_conversation_file_that_cannot_be_replayed_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "talks.jsonl"
    broken.write_text('{"conversation": "a", "items": [{"role": "assistant"}]}\n')
    assert "talks.jsonl, line 1: " in error_of(capsys, "demo", "--conversations", str(broken))
    assert "cannot read" in error_of(capsys, "demo", "--conversations", str(tmp_path / "none"))


def test_a_short_run_on_a_real_server_ends_whole_and_says_so_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--topology", "standalone", "--fault", "none", "--workers", "2", "--limit", "4", "--json"]
    assert cli.main(arguments) == cli.EXIT_OK
    printed = capsys.readouterr()
    report: dict[str, Any] = json.loads(printed.out)
    assert report.keys() == {field.name for field in fields(Report)} | {"whole"}
    assert report["whole"] is True
    assert report["turns_done"] == report["turns"] > 4
    assert report["items_stored"] == report["items"] > report["turns"]
    assert report["workers"] == 2
    assert "starting 2 worker processes" in printed.err


@pytest.mark.parametrize(
    "name", ["lost", "duplicated", "foreign", "out_of_order", "bad_inputs", "unresolved_turns", "session_view_differs"]
)
def test_nothing_that_went_wrong_can_pass_for_whole(name: str) -> None:
    assert WHOLE.whole
    assert not replace(WHOLE, **{name: 1}).whole  # type: ignore[arg-type]


def test_a_run_that_proved_nothing_cannot_pass_for_whole() -> None:
    assert not replace(WHOLE, refused="it was refused").whole
    assert not replace(WHOLE, fault_error="nobody took over").whole


def test_the_findings_say_what_sending_a_stored_turn_again_did() -> None:
    damaged = replace(
        WHOLE, resent_turns_stored_twice=3, resent_items_stored_twice=7, duplicated=7, damaged_conversations=3
    )
    text = " ".join(findings(damaged))
    assert "3 turns had failed or lost their worker although part of them had been stored" in text
    assert "stored 7 items twice" in text
    assert "3 of 40 conversations are damaged" in text


def test_a_store_that_refuses_every_turn_is_named_plainly() -> None:
    assert findings(replace(WHOLE, refused="All 8 turns ended with TypeError: no."))[0].endswith("TypeError: no.")


def test_the_figures_name_what_was_compared() -> None:
    rows = dict(figures(WHOLE))
    assert rows["items"] == "775 said, 775 stored"
    assert rows["repeats suppressed"] == "2"
    assert {"items lost", "items duplicated", "items out of order"} <= rows.keys()
    assert "repeats suppressed" not in dict(figures(replace(WHOLE, session="sdk")))


def test_the_figures_tell_what_became_of_the_turns_of_a_killed_worker() -> None:
    assert "turns of a killed worker" not in dict(figures(WHOLE))
    killed = replace(WHOLE, redelivered_turns=8, resumed_turns=3)
    row = "turns of a killed worker"
    assert dict(figures(killed))[row] == "8 delivered again, 3 resumed behind their tools"
    assert dict(figures(replace(killed, session="sdk", resumed_turns=0)))[row] == "8 delivered again"


def test_progress_that_is_no_terminal_is_a_line_a_second() -> None:
    stream = io.StringIO()
    progress = choose_progress(stream)
    assert isinstance(progress, PlainProgress)
    with progress.live():
        for tenth in range(25):
            progress.show(Snapshot(tenth / 10, 100, tenth, (1, 2), 0, 3, 1, 0))
        progress.say("primary 127.0.0.1:7001 killed")
    lines = stream.getvalue().splitlines()
    assert [re.match(r"\s*([\d.]+) s", line) is not None for line in lines] == [True, True, True, False]
    assert "primary 127.0.0.1:7001 killed" in lines[-1]


def test_progress_on_a_terminal_shows_every_figure_and_the_latest_events() -> None:
    console = Console(file=io.StringIO(), width=100)
    progress = RichProgress(console)
    progress.say("primary 127.0.0.1:7001 killed")
    progress.show(Snapshot(2.5, 100, 41, (1, 2), 5, 33, 7, 4))
    with console.capture() as captured:
        console.print(progress.render())
    lines = [line.strip() for line in captured.get().splitlines()]
    for name, value in rows(Snapshot(2.5, 100, 41, (1, 2), 5, 33, 7, 4)):
        assert any(line.startswith(name) and line.endswith(value) for line in lines), name
    assert lines[-1].endswith("primary 127.0.0.1:7001 killed")
