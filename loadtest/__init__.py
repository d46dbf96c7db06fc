"""Load tests: how fast the server is, and whether it keeps its promises when it is killed or its disk refuses.

    load/       the load generator: `python -m loadtest.load.flood`
    compare/    comparisons: with other servers (`rivals`), of two checkouts (`versus`, `instructions`), of features
                (`features`), and of jobs with another server, a million at once, and a server without any (`jobs`)
    waits/      how long a bystander waits beside a crowd, many queues, or many items: `crowd`, `many_queues`, `stalls`
    crash/      kill -9 under load (`kill`, `together`), a disk that refuses writes (`refused`), an hour of all (`soak`)
    locustfile.py    Locust users: `locust -f loadtest/locustfile.py`

Each program is started in the repository as `python -m loadtest.<folder>.<program>`; `--help` says what it takes.
"""
