"""Decides how an action of hawkBit ends, or how far it is: pure."""

from __future__ import annotations

from gallery_sync.adapters.device_view import DeviceView, judge
from gallery_sync.adapters.hawkbit_messages import Deployment
from gallery_sync.adapters.hawkbit_record import Action, Result


def decide(view: DeviceView, action: Action, offer: Deployment, give_up_s: float, *, works: bool) -> Result | str:
    """Return how an action ends, or how far it is, for people.

    Args:
        view: the device now.
        action: with its release.
        offer: what hawkBit says of it now.
        give_up_s: how long the agent may take to begin with the release.
        works: the agent works at it.
    """
    if (named := action.named) is None:
        return "its release is not known yet"
    verdict = judge(view, named, action.mark)
    if verdict.kind != "waiting":
        return Result(
            execution="closed", finished="success" if verdict.kind == "confirmed" else "failure", text=verdict.text
        )
    if offer.download_only and view.has_downloaded(named):
        return Result(execution="downloaded", finished="none", text=f"{named} is downloaded and verified")
    if action.waited_s >= give_up_s and not works:
        text = f"{named}: the agent did not begin with it within {give_up_s / 3600.0:.1f} h; {verdict.text}"
        return Result(execution="closed", finished="failure", text=text)
    if not (offer.may_install or offer.download_only):
        return f"{verdict.text}; hawkBit's maintenance window is closed"
    return verdict.text
