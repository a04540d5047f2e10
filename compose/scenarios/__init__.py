"""What ``compose/scenario.py`` is made of; the standard library alone."""
