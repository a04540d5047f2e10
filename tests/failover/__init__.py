"""Real faults on real servers."""
