"""Engines: where a campaign's work is done. One call for oracle calls, one for scoring, whichever engine a campaign names.

=======  ===========================================================================================================================
engine   oracle calls go to
=======  ===========================================================================================================================
here     this process, one after the other
pool     worker processes of this machine (default)
dask     Dask workers: processes of this machine, of a running scheduler, or jobs of a Slurm or PBS queue
aiida    AiiDA: one process with provenance for each call, on this machine or as a job of a queue
=======  ===========================================================================================================================

Whatever the engine, a result is written down where it arises before it is reported, so that neither a dead worker nor a dead campaign loses
one, and a call that is written down is never made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from naica.discover.config import EngineSection
from naica.discover.engines.calls import Desk, Rules
from naica.discover.engines.spool import Spool, fingerprint
from naica.discover.oracle import Oracle, OracleResult
from naica.errors import InputError
from naica.structure import Crystal

__all__ = ["run"]


def run(
    oracle: Oracle,
    jobs: Mapping[str, Crystal],
    workers: int = 1,
    timeout: float | None = 300.0,
    retries: int = 1,
    *,
    on_result: Callable[[OracleResult], None] = lambda result: None,
    spool: str | Path | None = None,
    engine: EngineSection | None = None,
    folder: str | Path | None = None,
) -> None:
    """Evaluate jobs and hand over each result as it comes, in the calling thread.

    Parameters
    ----------
    oracle : anything with `name`, `level`, `evaluate`; it must pickle unless it is asked in this process
    jobs : key → crystal; equal crystals are computed once and reported under each of their keys (all but the first with 0 seconds and
        0 attempts, as they cost nothing)
    workers : processes, each with one thread; 0 computes in this process
    timeout : seconds per call; the process that exceeds it is killed, others go on. In this process it interrupts Python code in the main
        thread only
    retries : further attempts after a crash, a time-out, or a failure the oracle calls retryable
    on_result : called once per key; an exception from it stops the run (finished results stay in the spool)
    spool : folder where workers leave each result before reporting it; results found there are handed over instead of computed, and a
        file goes once `on_result` has returned
    engine : where; default: the local pool
    folder : the engine's own place, for logs and AiiDA's profile; default: beside the spool

    Raises
    ------
    InputError
        If the oracle cannot travel to a process.
    MissingPart
        If the engine is not installed.
    RunError
        If workers die or hang while loading the oracle, or the engine cannot be reached or went away. Finished results are kept: the same
        call goes on.
    """
    if workers < 0 or retries < 0 or (timeout is not None and timeout <= 0):
        raise InputError(f"workers = {workers}, retries = {retries}, timeout = {timeout}; expected ≥ 0, ≥ 0 and > 0")
    engine = engine or EngineSection()
    place = Spool(Path(spool).absolute(), fingerprint(oracle)) if spool is not None else None
    desk = Desk(jobs, on_result, place)
    left = desk.from_spool()
    rules = Rules(oracle, timeout, retries)
    own = Path(folder).absolute() if folder is not None else (Path(spool).absolute().parent if spool is not None else Path.cwd()) / "engine"
    if not left:
        return
    if engine.name == "dask":
        from naica.discover.engines import dask

        dask.work_off(rules, desk, engine, max(workers, 1), own)
    elif engine.name == "aiida":
        from naica.discover.engines import aiida

        aiida.work_off(rules, desk, engine, max(workers, 1), own)
    elif engine.name == "here" or workers == 0:
        from naica.discover.engines import here

        here.work_off(left, rules, desk)
    else:
        from naica.discover.engines.pool import Crew

        with Crew(rules, min(workers, len(left)), place) as crew:
            crew.work_off(left, desk.deliver)
