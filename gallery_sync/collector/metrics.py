"""The text of `/metrics`: counts of the fleet and of the server, in the format of Prometheus.

Rules this module keeps:
1. Devices cannot make the number of time series grow without bound: the largest counts have their names, the rest is
   `other`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge.telemetry.counters import Counters
from gallery_sync.collector.queries import Fleet, bounded

_MOST = 30  # label values of one gauge
_HELP = {
    "commands_delivered": "Commands that were kept and sent when their device connected; again, if no answer came.",
    "commands_expired": "Commands that were kept for a device, and never sent.",
    "command_failures": "Kept commands that could not be sent, for a reason that is in the log.",
    "answers": "Answers to commands, by result: stored, or refused (too many, or to another device's command).",
    "availabilities": "Messages about connections of devices, by result: online or offline.",
    "broker_connections": "Connections to the broker.",
    "broker_failures": "Connections to the broker that failed or ended, by reason: refused or unreachable.",
    "coalesced": "Messages that a newer one of the same device replaced before they were stored, by kind.",
    "connections_closed": "Connections that the HTTP server closed early, by server and reason.",
    "delayed": "Messages of devices that report too often, which waited, by kind.",
    "devices_forgotten": "Devices that were forgotten because they had not reported for so long.",
    "dropped": "Messages that were not stored, by kind and reason: too_often, or full (the database is too slow).",
    "http_failures": "Requests that failed on the server; the log says why.",
    "http_refused": "Requests that were refused, by reason.",
    "publish_refused": "Messages that the broker refused.",
    "reports": "Reports of devices, by result: new (the first of a device), accepted, new_epoch (the device lost its "
    "numbers), repeated (old or seen before), or too_many_devices.",
    "retained_incomplete": "Connections on which the broker sent far fewer messages than it should keep; the log says "
    "what to do.",
    "rings": "Times devices were woken because the repository changed.",
    "store_failures": "Times the database could not be written, by reason: disk, or damaged (it began empty).",
    "subscriptions_refused": "Times the broker refused a subscription that commands to cameras need.",
    "thread_restarts": "Times a thread raised an unexpected error and was restarted; the log holds it.",
    "turns_ended": "Turns that ended.",
    "turns_given": "Turns that were given to devices.",
    "uploads": "Uploads to the inbox, by result: stored, or why they were refused.",
    "wake_up_failures": "Times the repository or the database could not be read for the doorbell and the turns.",
    "wrong_messages": "Messages that were ignored, by kind and reason: topic, empty, too_large, invalid or "
    "other_device.",
}


def metrics_text(fleet: Fleet, counters: Counters, gauges: Mapping[str, tuple[str, float]]) -> str:
    """Return all metrics.

    Args:
        fleet: counts of devices.
        counters: of the server.
        gauges: further values of the server, each with its help text.
    """
    lines: list[str] = []
    for name, text, counts in (
        ("line", "Devices, by product line.", fleet.by("line")),
        ("release", "Devices, by the release that they run.", fleet.by("release")),
        ("state", "Devices, by the state of their agent.", fleet.by("state")),
        ("available", "Devices, by what the broker says of their connection.", fleet.by("available")),
        ("engine", "Devices, by the inference engine that serves.", fleet.by("engine")),
    ):
        full = f"finesight_fleet_devices_by_{name}"
        lines += _head(full, text, "gauge")
        lines += [f'{full}{{{name}="{_escaped(value)}"}} {count}' for value, count in bounded(counts, _MOST).items()]
    plain = {
        "devices": ("Devices that have reported.", float(fleet.devices)),
        "devices_silent": ("Devices that have not reported for two hours.", float(fleet.silent)),
        "devices_failed": ("Devices whose newest try of a release failed.", float(fleet.failed)),
        **gauges,
    }
    for name, (text, number) in plain.items():
        lines += [*_head(f"finesight_fleet_{name}", text, "gauge"), f"finesight_fleet_{name} {number:.10g}"]
    return "\n".join([*lines, *_counters(counters), ""])


def _counters(counters: Counters) -> Iterable[str]:
    seen: set[str] = set()
    for name, labels, count in counters.items():
        full = f"finesight_fleet_{name}_total"
        if name not in seen:
            seen.add(name)
            yield from _head(full, _HELP.get(name, name), "counter")
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
        yield f"{full}{{{pairs}}} {count}" if pairs else f"{full} {count}"


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _escaped(value: str) -> str:
    shown = value.encode("utf-8", "backslashreplace").decode()[:120]
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
