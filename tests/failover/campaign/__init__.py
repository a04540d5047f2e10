"""The fault campaign: worker processes write and read sessions while faults strike, and a checker reads the record.

    python -m tests.failover.campaign --report campaign.md               # everything, wherever it makes sense
    python -m tests.failover.campaign --topology cluster --fault kill slot-migration --durability replicas
    python -m tests.failover.campaign --workload turns --fault kill worker-killed

What is checked, call by call, against what is stored and against every read: each confirmed change exactly once, each
batch whole and contiguous, each writer's order kept, nothing there that was reported as not applied, what is unknown at
most once, pops handed out once, reads of one session object never going backwards. `findings.Kind` names each breach.
What servers may lose by their nature has to be put back or be said (`HistoryLostError`): a silent loss fails the run.

With turns, most of what is added is added in turns, each delivered until it is answered. Every worker delivers some
turns of the others, too, and in the end those that killed workers left. All deliveries of a turn are one call to the
checker; `turn_checker` compares what they were told.

    marks ◀ history ◀ record ◀ caller ◀ worker ◀ strike ◀ faults_…, evictions ◀ fleets ◀ scenarios ◀ runner ◀ …
              ▲                                                                            │
              └──── findings, views ◀ shape, absence ◀ checker ◀───────────────────────────┘

… ◀ table ◀ __main__; turns ◀ worker; turn_checker ◀ runner. A fleet says how each worker reaches the servers.

To look into a failure: `--keep DIRECTORY` leaves each worker's record there, one JSON line when a call begins and one
when it has ended; times are those in the report.
"""
