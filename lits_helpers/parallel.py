"""Many independent jobs on all cores of a machine, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm.auto import tqdm


def usable_memory() -> int:
    """Half of the machine's memory in bytes; without limit where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):  # no sysconf on Windows
        return 2**63


def _end_with_parent() -> None:
    """Let a worker not outlive a process that was killed: it would wait for jobs forever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(
    function: Callable,
    jobs: Iterable[tuple],
    *,
    description: str,
    unit: str,
    weights: list[int] | None = None,
    memory: int = 0,
    threads: bool = False,
    executor: Executor | None = None,
) -> list:
    """Call a function with each job's arguments, in parallel, with a progress bar.

    Parameters
    ----------
    function : callable
        A function of a module, not one of a notebook: other processes import it by name.
    jobs : iterable of tuple
        Arguments, one tuple a job. They and the results travel between processes.
    description, unit : str
        For the progress bar.
    weights : list of int, optional
        By how much each finished job moves the bar; 1 by default.
    memory : int
        Bytes that one job needs: no more run at once than half of the memory holds.
    threads : bool
        Use threads, not processes: for jobs too short to start a process for, in libraries that
        let go of Python's lock.
    executor : concurrent.futures.Executor, optional
        What runs the jobs; by default a process (or thread) for each core, at most. A Dask cluster is used
        with ``dask.distributed.Client(...).get_executor()``; its workers must see the same files.

    Returns
    -------
    list
        Results in the order of the jobs.

    Raises
    ------
    RuntimeError
        If the processes died: for want of memory, or because a script without the line
        ``if __name__ == "__main__":`` started itself again in each.
    """
    jobs = list(jobs)
    weights = weights or [1] * len(jobs)
    own = executor is None
    if own:
        fitting = usable_memory() // memory if memory else len(jobs)
        workers = max(1, min(os.cpu_count() or 1, len(jobs), fitting))
        if threads:
            executor = ThreadPoolExecutor(workers)
        else:  # started afresh, not forked: a fork of a process with TensorFlow's threads may hang
            executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    futures = [executor.submit(function, *job) for job in jobs]
    try:
        with tqdm(total=sum(weights), desc=description, unit=unit, delay=1) as bar:
            places = {future: place for place, future in enumerate(futures)}
            for future in as_completed(futures):
                future.result()
                bar.update(weights[places[future]])
    except BrokenProcessPool as error:
        raise RuntimeError(
            "the worker processes died: either memory ran out, or this is a script whose work is not "
            'under the line  if __name__ == "__main__":  which it needs to run in parallel'
        ) from error
    finally:
        for future in futures:
            future.cancel()
        if own:
            executor.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
