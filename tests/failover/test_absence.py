"""What explains that something is missing where servers lose changes, on forged histories."""

from __future__ import annotations

import pytest

from tests.failover.campaign.findings import Kind
from tests.failover.stories import Story


@pytest.mark.parametrize("put_back", ["behind", "in front", "behind, and not read again"])
def test_a_window_leaves_out_what_was_begun_later_and_stands_in_front_of_it(put_back: str) -> None:
    story = Story()
    lost = story.append("a", 1).items
    story.stored.clear()
    story.append("b", 1)
    story.stored += lost
    window = story.read("c", 1)
    assert window.result == lost
    if put_back == "in front":
        story.stored.reverse()
    if put_back != "behind, and not read again":
        story.read("d")
    assert (Kind.STALE in story.kinds()) is (put_back != "behind")
