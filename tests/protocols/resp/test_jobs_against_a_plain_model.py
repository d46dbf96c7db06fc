"""Random commands about jobs, against a model in plain Python. The server is killed in between."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.resp_clients import RespClient, RespServer

QUEUED, ACTIVE, BURIED, DELAYED = "queued", "active", "buried", "delayed"


@dataclass
class Job:
    id: bytes
    queue: str
    body: bytes
    pri: int
    once: bool
    state: str = QUEUED
    nacks: int = 0
    again: int = 0
    lost: int = 0  # with a connection, which counts only where the queue counts failures, or keeps the job aside
    bound: bool = False
    place: int = field(default=0)


class Jobs(RuleBasedStateMachine):
    server: ClassVar[RespServer]
    number: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        Jobs.number += 1
        self.queues = [f"p{Jobs.number}", f"q{Jobs.number}"]
        self.client = RespClient(self.server.resp_port)
        self.jobs: list[Job] = []
        self.made = 0

    # -- the model

    def waiting(self, queue: str) -> list[Job]:
        there = [job for job in self.jobs if job.queue == queue and job.state == QUEUED]
        return sorted(there, key=lambda job: (job.pri, job.place))

    def some(self, data: st.DataObject, *states: str) -> Job | None:
        there = [job for job in self.jobs if job.state in states]
        return data.draw(st.sampled_from(there)) if there else None

    def hand_out(self, job: Job, bound: bool) -> None:
        if job.once and not bound:
            job.state = "taken"
        else:
            job.state, job.bound = ACTIVE, bound

    # -- what clients do

    @rule(
        second=st.booleans(),
        pri=st.sampled_from([1024, 1024, 1024, 0, 2000]),
        once=st.booleans(),
        delayed=st.booleans(),
    )
    def add(self, second: bool, pri: int, once: bool, delayed: bool) -> None:
        self.made += 1
        queue, body = self.queues[second], b"%d" % self.made
        words = (*(("PRI", pri) if pri != 1024 else ()), *(("RETRY", 0) if once else ()))
        job = self.client.do("ADDJOB", queue, body, 0, *words, *(("DELAY", 1000) if delayed else ()))
        state = DELAYED if delayed else QUEUED
        self.jobs.append(Job(job.encode(), queue, body, pri, once, state, place=self.made))

    @rule(count=st.integers(1, 4), both=st.booleans(), bound=st.booleans())
    def get(self, count: int, both: bool, bound: bool) -> None:
        queues = self.queues if both else self.queues[:1]
        words = ("BOUND",) if bound else ()
        said = self.client.do("GETJOB", "NOHANG", "WITHCOUNTERS", "COUNT", count, *words, "FROM", *queues)
        expected: list[Any] = []
        left = list(queues)
        while left and len(expected) < count:
            for queue in list(left):
                there = self.waiting(queue)
                if not there:
                    left.remove(queue)
                elif len(expected) < count:
                    job = there[0]
                    self.hand_out(job, bound)
                    expected.append([queue.encode(), job.id, job.body, b"nacks", job.nacks])
                    assert job.again <= said[len(expected) - 1][-1] <= job.again + job.lost
        assert [job[:5] for job in said or ()] == expected

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        job = self.some(data, QUEUED, ACTIVE, BURIED, DELAYED, "taken")
        if job is not None:
            assert self.client.do("ACKJOB", job.id) == 1
            self.jobs.remove(job)
            assert self.client.do("ACKJOB", job.id) == 0

    @rule(data=st.data(), verb=st.sampled_from(["NACK", "ENQUEUE"]))
    def give_back(self, data: st.DataObject, verb: str) -> None:
        job = self.some(data, QUEUED, ACTIVE, BURIED, DELAYED, "taken")
        if job is None:
            return
        assert self.client.do(verb, job.id) == (job.state in (ACTIVE, DELAYED, BURIED))
        if job.state == ACTIVE:
            counts_as_nack = verb == "NACK" or job.bound
            job.nacks, job.again = job.nacks + counts_as_nack, job.again + (not counts_as_nack)
        if job.state != "taken":
            job.state = QUEUED

    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        job = self.some(data, QUEUED, ACTIVE, DELAYED)
        if job is not None:
            assert self.client.do("DEQUEUE", job.id) == (job.state == QUEUED)
            if job.state == QUEUED:
                self.hand_out(job, bound=False)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        job = self.some(data, QUEUED, ACTIVE)
        if job is not None:
            assert self.client.do("REJECT", job.id) == (job.state == ACTIVE)
            if job.state == ACTIVE:
                job.state = BURIED

    @rule()
    @precondition(lambda self: any(job.bound and job.state == ACTIVE for job in self.jobs))
    def hang_up(self) -> None:
        self.client.do("CLIENT", "SETNAME", "going")
        self.client.close()
        self.client = RespClient(self.server.resp_port)
        while b"name=going" in self.client.do("CLIENT", "LIST"):
            pass
        for job in self.jobs:
            if job.bound and job.state == ACTIVE:
                job.state = QUEUED
                job.lost += 1

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        if data.draw(st.integers(0, 9)):
            return
        self.client.close()
        self.server.kill()
        self.server.start()
        self.client = RespClient(self.server.resp_port)
        self.jobs = [job for job in self.jobs if job.state != "taken"]
        for job in self.jobs:
            if job.state == ACTIVE:
                job.state = QUEUED

    @invariant()
    def is_as_it_should_be(self) -> None:
        for queue in self.queues:
            assert [job[1] for job in self.client.do("QPEEK", queue, 100)] == [job.id for job in self.waiting(queue)]
        states = {QUEUED: QUEUED, ACTIVE: ACTIVE, "taken": ACTIVE, DELAYED: ACTIVE, BURIED: BURIED}
        for job in self.jobs[:10]:
            told = self.client.do("SHOW", job.id)
            assert (told[5].decode(), told[-1]) == (states[job.state], job.body)

    def teardown(self) -> None:
        self.client.do("DEL", *self.queues)
        self.client.close()


def test_jobs_do_what_the_model_does(server: RespServer) -> None:
    Jobs.server = server
    run_state_machine_as_test(Jobs, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))
