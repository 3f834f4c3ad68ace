"""The commands about the pair that serves: sync, activate, rollback, prove.

Rules this module keeps:
1. A command does what the same command of `edge` does, and no more: `activate` proves before it switches, `rollback`
   returns to what was proved before.
2. The release that a rollback leaves is held in quarantine, so that the agent does not take it again by itself.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge.bundle import slots
from edge.bundle.active_pointer import ActivePointer, read_active_pointer, read_staged_pointer
from edge.bundle.layout import gallery_folder, slot_folder
from edge.bundle.pairs import Pair, read_pointer_or_none
from edge.errors import one_line
from gallery_sync.formats.reports import Request
from gallery_sync.remote_hands.commands import Command, Context, Outcome

_NOTHING_STAGED = "nothing is staged on this device; edge-sync pull or the agent stages a release"
_MOST_LINES, _LONGEST_LINE = 200, 200  # of a proof in an answer


def sync(_: Request, context: Context) -> Outcome:
    """Have the agent look at the repository now."""
    context.ring()
    return Outcome("done", "the agent looks at the repository now; what follows is in its reports")


def rollback(request: Request, context: Context) -> Outcome:
    """Return to the pair before, and hold the release that it leaves.

    Raises:
        BundleError, GalleryError: there is no pair before, or it is damaged.
    """
    left = read_active_pointer(context.state_dir)
    active = slots.rollback(context.state_dir)
    name = left.release if left else None
    text = f"{_name(active)} serves again"
    if name is not None:
        context.hold(name.line, name.sequence, f"rolled back by {one_line(request.by)}")
        text += f"; release {name.sequence} is held until a newer one comes, or edge-sync agent clear-quarantine"
    return Outcome("done", text, {"serving": _described(active)})


def activate(_: Request, context: Context) -> Outcome:
    """Prove what is staged; then switch to it.

    Raises:
        BundleError, GalleryError, EngineError: it must not serve.
    """
    staged = read_staged_pointer(context.state_dir)
    if staged is None:
        return Outcome("refused", _NOTHING_STAGED)
    context.prove_new(slot_folder(context.state_dir, staged.slot), gallery_folder(context.state_dir, staged.gallery))

    def switch() -> Outcome:
        now = read_staged_pointer(context.state_dir)
        if now is None or Pair.of(now) != Pair.of(staged):
            return Outcome("failed", "another pair is staged than the one that was proved; send it again")
        active = slots.activate(context.state_dir, staged.slot, staged.gallery, lambda *_: [])
        return Outcome("done", f"{_name(active)} serves", {"serving": _described(active)})

    return Outcome("done", then=switch)


def why_not_activate(context: Context) -> str | None:
    """Return why there is nothing to activate; None: there is."""
    staged, problem = read_pointer_or_none(context.state_dir, read_staged_pointer)
    return problem or (_NOTHING_STAGED if staged is None else None)


def prove(_: Request, context: Context) -> Outcome:
    """Run the probes of the pair that serves, in a child process.

    Raises:
        BundleError, GalleryError, EngineError: a probe failed.
    """
    active = read_active_pointer(context.state_dir)
    if active is None:
        return Outcome("refused", "nothing is active on this device")
    bundle, gallery = slot_folder(context.state_dir, active.slot), gallery_folder(context.state_dir, active.gallery)
    lines = [line[:_LONGEST_LINE] for line in context.prove(bundle, gallery)]
    return Outcome("done", f"{_name(active)} is proved", {"probes": len(lines), "lines": lines[:_MOST_LINES]})


def _name(pointer: ActivePointer) -> str:
    release = f"release {pointer.release.sequence}, " if pointer.release else ""
    return f"{release}bundle {pointer.bundle_id} with gallery {pointer.gallery}"


def _described(pointer: ActivePointer) -> dict[str, Any]:
    release = pointer.release
    return asdict(Pair.of(pointer)) | {"release": release.sequence if release else None}


PAIR_COMMANDS = (
    Command("sync", sync),
    Command("rollback", rollback),
    Command("activate", activate, is_long=True, proves=True, why_not=why_not_activate),
    Command("prove", prove, is_long=True, proves=True),
)
