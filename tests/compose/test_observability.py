"""A turn that met a failover, as Prometheus and a receiver of spans see it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest
from scenarios.stack import Stack

from agents_redis_ha import HAConfig, session_keys
from agents_redis_ha._telemetry import names
from agents_redis_ha.lab.conversations import load_conversations
from tests.compose.chat_service import TALKERS, TURN_SECONDS, ChatService, Reply, turns
from tests.compose.phoenix import Span, Trace
from tests.support.dashboard_queries import PAGE, Query, documented_queries, label_queries, panel_queries
from tests.support.docker import new_stack

pytestmark = pytest.mark.timeout(600)  # the first test waits for images to be built

FILES = ("compose/fleet.yml", "compose/observability.yml", "tests/compose/phoenix.yml")
VARIABLES = {"FLEET_PORT": "0", "PROMETHEUS_PORT": "0", "RECORDED_SECONDS": "0.3"}
"""Any free ports; and a model that takes longer than all else, so that a fault meets turns whose agent is at work."""

TAKES_TURNS = "POST /turns"
AGENT = "chat"


@dataclass(frozen=True)
class Failover:
    """What happened.

    Attributes:
        service: What went through it.
        began: When the first turn was sent, in seconds since 1970.
        ended: When all had been scraped.
        killed: The node that was the primary.
        elected: The node that took over.
        replies: What the users were answered.
    """

    service: ChatService
    began: float
    ended: float
    killed: str
    elected: str
    replies: list[Reply]


def damage(service: ChatService, primary: str) -> None:
    """Have one conversation that cannot be read, and one with an element that is not an item."""
    prefix = str(HAConfig.model_fields["key_prefix"].default)
    keys = {name: session_keys(prefix, name) for name in ("broken", "odd")}
    service.stack.ask(primary, f"set '{keys['broken'].items.decode()}' 'no list'")
    service.stack.ask(primary, f"set '{keys['broken'].meta.decode()}' 'no hash'")
    assert service.post("/turns", "broken", 0, "Hello?").status == 503
    opening, following = (str(turn.user_message["content"]) for turn in load_conversations(None)[0].turns[:2])
    assert service.post("/turns", "odd", 0, opening).status == 200
    service.stack.ask(primary, f"rpush '{keys['odd'].items.decode()}' 'no item'")
    assert service.post("/turns", "odd", 1, following).status == 200


def work(service: ChatService) -> None:
    """Have a worker answer a turn."""
    opening = str(load_conversations(None)[0].turns[0].user_message["content"])
    job = str(service.post("/jobs", "background", 0, opening).body["job"])

    def done() -> bool:
        with urlopen(f"{service.url('nginx', 8080)}/jobs/{job}", timeout=TURN_SECONDS) as answer:
            return bool(answer.status == 200)

    service.stack.wait_for(done, "a worker has answered", TURN_SECONDS)


@pytest.fixture(scope="module")
def failover(stacks: Callable[..., Stack], need_images: Callable[..., None]) -> Failover:
    """The service after its primary was killed while turns ran."""
    need_images("REDIS_IMAGE", "PYTHON_IMAGE", "NGINX_IMAGE", "PROMETHEUS_IMAGE")
    stack = stacks(*FILES, **VARIABLES)
    service = ChatService(stack)
    began, replies = time.time(), list[Reply]()
    killed = service.primary
    work(service)
    damage(service, killed)
    with turns(service, replies):
        stack.wait_for(lambda: len(replies) > 2 * TALKERS, "turns are answered before the failover")
        stack.compose("kill", killed)
        struck = time.time()
        stack.wait_for(lambda: service.primary != killed, f"another primary than {killed} is elected")
        stack.wait_for(lambda: sum(one.at > struck for one in replies) > 3 * TALKERS, "turns are answered afterwards")
    talked = time.time()
    prometheus = service.prometheus
    scraped = 'min(timestamp(up{job=~"api|worker"}))'
    stack.wait_for(lambda: prometheus.now(scraped)[0].values[0] > talked, "all services were scraped")
    return Failover(service, began, time.time(), killed, service.primary, replies)


def test_the_files_for_users_go_together() -> None:
    services = new_stack(*FILES[:2]).compose("config", "--services").split()
    assert {"api", "worker", "jaeger", "prometheus", "grafana"} <= set(services)


def test_no_turn_was_refused(failover: Failover) -> None:
    assert {reply.status for reply in failover.replies} == {200}
    assert failover.elected != failover.killed


NOT_EVERY_TIME = ("_unconfirmed_total", "_changes_restored_total", "_changes_lost_total", "_repeats_suppressed_total")
"""What a failover need not bring about: these queries may return the 0 that stands for it."""


@pytest.mark.parametrize("query", [*panel_queries(), *documented_queries()], ids=str)
def test_a_query_of_the_dashboard_or_the_page_returns_data(failover: Failover, query: Query) -> None:
    whole = query.has_fallback and any(name in query.text for name in NOT_EVERY_TIME)
    expression = query.expression(range_seconds=int(failover.ended - failover.began), fallback=whole)
    prometheus = failover.service.prometheus
    if query.instant:
        assert prometheus.now(expression)
    else:
        assert prometheus.since(failover.began, failover.ended, expression)


@pytest.mark.parametrize(("variable", "label", "selector"), list(label_queries()))
def test_a_variable_of_the_dashboard_has_values(failover: Failover, variable: str, label: str, selector: str) -> None:
    found = failover.service.prometheus.label_values(label, selector)
    assert {
        "topology": {"sentinel"},
        "node": {failover.killed, failover.elected},
        "service": {"api", "worker"},
    }[variable] <= set(found)


def test_the_metrics_name_the_nodes_of_the_failover(failover: Failover) -> None:
    ask = failover.service.prometheus.now
    took_over = ask("sum by (server_address) (agents_redis_ha_failovers_total)")
    assert [series.labels["server_address"] for series in took_over] == [failover.elected]
    failed = ask(f'sum(agents_redis_ha_retries_total{{server_address="{failover.killed}"}})')
    assert failed[0].values[0] > 0


def _asked(met: Iterable[Span], node: str) -> bool:
    return any(one.attributes.get(names.SERVER_ADDRESS) == node for one in met)


SHOWN = {
    names.ATTEMPT: "{}",
    names.SERVER_ADDRESS: "{}",
    names.RETRY_REASON: "{}",
    names.RETRY_WAIT: "(wait {:.3f} s)",
}
"""What the printed tree shows of a span; docs/observability.md has one."""


def attempts(trace: Trace) -> dict[str, list[Span]]:
    """The attempts in a trace, by the id of their parent."""
    found: dict[str, list[Span]] = {}
    for span in trace.spans:
        if span.name == names.ATTEMPT_SPAN:
            found.setdefault(span.parent or "", []).append(span)
    return found


@pytest.fixture(scope="module")
def story(failover: Failover) -> tuple[Trace, Span]:
    """The trace of a turn whose agent met the failover, and the operation that did."""
    spans = failover.service.spans

    def found() -> tuple[Trace, Span] | None:
        for trace in map(spans.trace, {span.trace for span in spans.named(names.ATTEMPT_SPAN)}):
            met = attempts(trace)
            for operation in (span for span in trace.spans if _asked(met.get(span.id, ()), failover.killed)):
                above = [span.name for span in trace.ancestors(operation)]
                if AGENT in above and above[-1] == TAKES_TURNS:
                    return trace, operation
        return None

    return failover.service.stack.wait_for(found, "there is a trace with more than one attempt below an agent's run")


def test_a_trace_holds_the_request_the_run_the_operation_and_its_attempts(story: tuple[Trace, Span]) -> None:
    trace, operation = story
    print(trace.as_text(SHOWN))
    assert trace.root.name == TAKES_TURNS
    above = [span.name for span in trace.ancestors(operation)]
    assert above[-1] == TAKES_TURNS
    assert above[-2] == "ha_turn"
    assert {AGENT, "Agent workflow"} <= set(above)
    for span in trace.spans:
        for parent in list(trace.ancestors(span))[:1]:
            assert parent.start <= span.start
    (turn,) = trace.children(trace.root)
    assert {"turn_begin", "turn_finish"} <= {span.name for span in trace.children(turn)}


def test_attempts_tell_node_reason_wait_and_error(story: tuple[Trace, Span], failover: Failover) -> None:
    trace, operation = story
    *failed, last = attempts(trace)[operation.id]
    assert failed
    assert [one.attributes[names.ATTEMPT] for one in (*failed, last)] == list(range(1, len(failed) + 2))
    assert operation.attributes[names.ATTEMPTS] == len(failed) + 1
    for one, following in pairwise((*failed, last)):
        assert one.failed
        assert one.description
        assert one.attributes[names.ERROR_TYPE]
        assert one.attributes[names.RETRY_REASON]
        assert one.attributes[names.RETRY_WAIT] >= 0
        assert operation.start <= one.start <= one.end <= following.start
    assert _asked(failed, failover.killed)
    assert not last.failed
    assert names.RETRY_WAIT not in last.attributes
    for one in (last, operation):
        assert (one.attributes[names.SERVER_ADDRESS], one.attributes[names.SERVER_PORT]) == (failover.elected, 6379)
    assert last.end <= operation.end


def test_no_conversation_is_named_in_a_span_or_a_metric(failover: Failover, story: tuple[Trace, Span]) -> None:
    trace, _ = story
    assert "user-" not in repr(trace.spans)
    assert not failover.service.prometheus.now('{__name__=~"db_.+|agents_.+", gen_ai_conversation_id!=""}')


def test_an_operation_that_failed_says_what_became_of_the_change(failover: Failover) -> None:
    refused = [span for span in failover.service.spans.named("turn_begin") if span.failed]
    assert {span.attributes[names.ERROR_TYPE] for span in refused} == {"WrongKeyTypeError"}
    assert {span.attributes[names.OUTCOME] for span in refused} == {"not_applied"}


def test_the_documented_lines_put_the_request_and_the_run_around_the_operations(failover: Failover) -> None:
    (lines,) = re.findall(r"^```python fleet\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(lines.strip().splitlines()) == 5
    script = (Path(__file__).parent / "documented.py").read_text(encoding="utf-8")
    said = str(load_conversations(None)[0].turns[0].user_message["content"])
    code, told = failover.service.stack.run("api", "python3", "-c", script, lines, said)
    assert code == 0, told
    shown = told.splitlines()
    assert "None > POST /turns" in shown
    assert "POST /turns > Agent workflow" in shown
    assert "chat > append" in shown
