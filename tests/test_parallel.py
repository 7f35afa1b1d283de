import math
import operator
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lits_helpers import parallel
from lits_helpers.parallel import run_jobs


def run(function, jobs, **options):
    return run_jobs(function, jobs, description="testing", unit="job", **options)


def test_processes_give_results_in_the_order_of_the_jobs():
    assert run(math.hypot, [(3, 4), (6, 8), (5, 12)]) == [5, 10, 13]


def test_work_is_done_in_other_processes():
    assert os.getpid() not in run(os.getpid, [(), ()])


def test_another_executor_is_used_and_left_open():
    with ThreadPoolExecutor(2) as executor:
        assert run(os.getpid, [(), ()], executor=executor) == [os.getpid()] * 2
        assert executor.submit(math.sqrt, 4).result() == 2


def test_no_jobs_give_no_results():
    assert run(math.sqrt, []) == []


def test_an_error_in_a_job_is_raised_and_those_that_wait_are_cancelled():
    done = []

    def job(number):
        done.append(number)
        time.sleep(0.01)
        raise ValueError(f"job {number}")

    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="job"):
        run(job, [(number,) for number in range(1000)], executor=executor)
    assert len(done) < 1000


def test_dead_workers_are_explained():
    with pytest.raises(RuntimeError, match="memory ran out"):
        run(os._exit, [(1,)])


KILLED = """
from lits_helpers.parallel import run_jobs
run_jobs(exec, [("import time; print('up', flush=True); time.sleep(1000)",)] * 2, description="", unit="")
"""


def test_workers_do_not_outlive_a_process_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for _ in range(min(2, os.cpu_count())):
            assert process.stdout.readline().strip() == b"up"
        process.kill()
        # The workers have the same end of the pipe: it is closed when the last of them has gone.
        assert process.communicate(timeout=60)[0] == b""


@pytest.mark.parametrize(("memory", "workers"), [(0, 3), (400, 2), (10_000, 1)])
def test_no_more_run_at_once_than_fit_into_memory(monkeypatch, memory, workers):
    seen = []

    def threads(number, context, initializer):
        seen.append(number)
        return ThreadPoolExecutor(number)

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", threads)
    monkeypatch.setattr(parallel, "usable_memory", lambda: 1000)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert run(operator.neg, [(1,), (2,), (3,)], memory=memory) == [-1, -2, -3]
    assert seen == [workers]


def test_the_memory_told_is_that_of_this_machine():
    assert 2**28 < parallel.usable_memory() < 2**50


def test_the_bar_moves_by_the_weights(capsys):
    # A bar appears after a second, so that short work leaves none.
    run_jobs(time.sleep, [(1.1,), (0,)], description="d", unit="slice", weights=[30, 70], executor=ThreadPoolExecutor(1))
    assert "100/100" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield client


def test_a_dask_cluster_runs_the_same_jobs(cluster):
    executor = cluster.get_executor()
    assert run(math.hypot, [(3, 4), (6, 8)], executor=executor) == [5, 10]
    assert os.getpid() not in run(os.getpid, [(), ()], executor=executor)
