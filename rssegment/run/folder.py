"""The output folder: whose it is, what may be replaced in it, and what an interrupted run left there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from rssegment.errors import OutputError
from rssegment.run.json_file import read_json
from rssegment.run.planning import Plan
from rssegment.run.products import Result, read_result
from rssegment.run.record import replaced
from rssegment.run.store import RESUME, Store
from rssegment.write.atomic import hinted, storage_errors, write_bytes
from rssegment.write.leftovers import check_not_held

__all__ = ["prepare", "remarks"]


@hinted(RESUME)
def prepare(plan: Plan, overwrite: bool, resume: bool) -> tuple[Plan, Result | None]:
    """Makes the output folder ready for ``plan``.

    Returns the plan, with the block size of the run that is resumed where it was left open, and the result where that
    run was complete. An earlier result stays until new files take its place one by one; what it has more than the new
    one goes at the end.

    Raises
    ------
    OutputError
        The folder holds what may not be replaced, or what isn't a run of ours.
    """
    if overwrite and resume:
        raise OutputError(
            "--overwrite and --resume exclude each other: start afresh, or go on with what is there"
        )
    _keep_inputs(plan)
    for path in _leaving(plan):
        check_not_held(path)
    mark = _mark(plan)
    if not overwrite and not resume:
        _refuse_earlier(plan)
    if resume and mark is not None:
        plan = _resumed(plan, mark)
    elif resume and (result := read_result(plan)) is not None:
        return plan, result
    elif resume:
        _refuse_unknown(plan)
    elif plan.work.exists():
        shutil.rmtree(plan.work, ignore_errors=True)
    _sweep(plan)
    with storage_errors(plan.work):
        plan.work.mkdir(parents=True, exist_ok=True)
    write_bytes(_mark_path(plan), json.dumps(_facts(plan)).encode())
    Store.of(plan).create()
    return plan, None


def remarks(plan: Plan) -> tuple[str, ...]:
    """What a run would meet in its output folder, for a plan that is only looked at.

    Raises
    ------
    OutputError
        The folder could not be used by any run.
    """
    if plan.out.exists() and not plan.out.is_dir():
        raise OutputError(f"can't write to {plan.out}: it is a file; choose a folder")
    _keep_inputs(plan)
    _mark(plan)
    try:
        _refuse_earlier(plan)
    except OutputError as error:
        return (str(error),)
    return ()


def _mark_path(plan: Plan) -> Path:
    return plan.work / "plan.json"


def _facts(plan: Plan) -> dict[str, str | int]:
    return {"fingerprint": plan.fingerprint, "block": plan.resources.block}


def _mark(plan: Plan) -> dict[str, str | int] | None:
    """What the run that made the work folder said of itself; None if there is no such folder."""
    mark = read_json(_mark_path(plan))
    if mark is None and plan.work.is_dir() and any(plan.work.iterdir()):
        raise OutputError(
            f"{plan.work} is not from a run of rssegment, and a run needs a folder of that name; "
            "choose another output folder, or move it away"
        )
    return mark


def _leaving(plan: Plan) -> set[Path]:
    """Files of the earlier run that this one does not make, and would remove."""
    return set(replaced(plan.out, set(plan.products.values())))


def _keep_inputs(plan: Plan) -> None:
    """Refuses to write over what the run reads, or to remove it."""
    inputs = {Path(source.path).resolve() for source in plan.scene.sources if "://" not in source.path}
    inputs |= {path.resolve() for path in plan.bundle.iterdir()}
    outputs = {path.resolve() for path in (*plan.products.values(), *_leaving(plan))}
    work = plan.work.resolve()
    for path in sorted(inputs):
        if path in outputs or work in path.parents:
            raise OutputError(f"the run would write over its own input {path}; choose another output folder")


def _refuse_earlier(plan: Plan) -> None:
    earlier = [path for path in plan.products.values() if path.exists()]
    if plan.work.exists() and not plan.products["run"].exists():
        raise OutputError(
            f"{plan.out} holds an unfinished run already; go on with it by --resume, replace it by --overwrite, "
            "or choose another folder"
        )
    if earlier:
        raise OutputError(
            f"{plan.out} holds {earlier[0].name} already; use --overwrite to replace it, or choose another folder"
        )


def _refuse_unknown(plan: Plan) -> None:
    earlier = [path.name for path in plan.products.values() if path.exists()]
    if earlier:
        raise OutputError(
            f"{plan.out} holds {earlier[0]}, but no run that could be resumed; use --overwrite to replace it, "
            "or choose another folder"
        )


def _resumed(plan: Plan, mark: dict[str, str | int]) -> Plan:
    """The plan with the block size of the run that it goes on with."""
    block = mark.get("block")
    if plan.settings.block == "auto" and isinstance(block, int):
        plan = replace(plan, resources=replace(plan.resources, block=block))
    if mark != _facts(plan):
        raise OutputError(
            f"{plan.work} was left by a run of another scene, model, settings, block size or version; "
            "resume that run with what it was started with, or start afresh with --overwrite"
        )
    return plan


def _sweep(plan: Plan) -> None:
    """Removes what a killed run left half-written beside the products."""
    for path in plan.products.values():
        for leftover in plan.out.glob(f".{path.name}.*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
