"""Counters, and what each of them counts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Named counts that only grow; thread-safe.

    Labels distinguish causes: `counters.add("frames_dropped", camera="door", reason="superseded")`. Label values come
    from small closed sets; never a URL, an id or a message, which would leak secrets and grow without bound.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, int] = {}

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a count."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def total(self, name: str, /, **labels: str) -> int:
        """Return the sum of a name over all label sets that contain these labels."""
        wanted = set(labels.items())
        with self._lock:
            return sum(n for (found, pairs), n in self._counts.items() if found == name and wanted <= set(pairs))

    def items(self) -> list[tuple[str, tuple[tuple[str, str], ...], int]]:
        """Return all counts as name, labels and count."""
        with self._lock:
            return [(name, labels, self._counts[name, labels]) for name, labels in sorted(self._counts)]

    def snapshot(self) -> dict[str, int]:
        """Return all counts, keyed as Prometheus writes them: `frames_dropped{camera="door",reason="superseded"}`."""
        return {_prometheus_key((name, labels)): count for name, labels, count in self.items()}


def _prometheus_key(key: _Key) -> str:
    name, labels = key
    return name + ("{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}" if labels else "")


# The help text of `/metrics` and of the reference page. A test checks it is complete.
COUNTER_HELP: Mapping[str, str] = MappingProxyType(
    {
        "activations": "Newly activated bundles and galleries, or other engines for them, by result: serving (in "
        "use), or refused (not loadable).",
        "agent_reports_unread": "Times the report of the update agent could not be read.",
        "announcements_dropped": "Health reports that were not sent because the broker was not connected.",
        "answers": "Objects that ended, by result: known (named as an item of a gallery) or unknown.",
        "boxes_sought": "Boxes of taught items that the finder added to the detector's.",
        "cameras_without_gstreamer": "Cameras that OpenCV reads because GStreamer cannot; the log says why.",
        "commands": "MQTT commands, by result: done or refused.",
        "commands_ignored": "MQTT commands that were ignored, by reason: retained, too_many at once, or topic (one "
        "that the device did not subscribe to).",
        "config_overlays": "Configurations that were loaded with an overlay from afar, by result: used or refused (the "
        "device's own file counts alone).",
        "configurations_not_kept": "Times the copy of the last good configuration could not be written.",
        "connections_closed": "Connections that an HTTP server closed early, by server and reason: slow (no request in "
        "time), evicted (the oldest without a request, for a new one), full (all busy), or left (the client went "
        "away).",
        "cuda_graph_failures": "Engines that run kernel by kernel, because their CUDA graph could not be recorded.",
        "dress_failed": "Newly activated bundles that went into use without the latest taught items.",
        "engine_builds": "Builds of a bundle's engines for the GPU, by result: built or failed.",
        "engine_choices": "Trials of the engines in the background, by result: kept (the same are fastest), changed or "
        "failed.",
        "engine_evictions": "Models that were closed to stay within engine.memory_mib.",
        "engine_loads": "Models that were loaded, or could not be, by result: loaded or failed.",
        "events": "Events, by camera and type: new, update or end.",
        "events_published": "Events that the broker acknowledged.",
        "events_refused": "Times the broker refused an event (MQTT 5), by its reason; the event is sent again later, "
        "or set aside.",
        "events_set_aside": "Events that the broker cannot take, by reason: too_long, refused, hangs_up or invalid; "
        "they stay in the outbox file and are not sent again.",
        "events_retried": "Events sent again because a connection ended before the broker acknowledged them.",
        "fallbacks": "Starts with another bundle or gallery than the active ones, which could not be used.",
        "frames_dropped": "Frames not recognised, by reason: superseded by a newer one, backlog (sent late, "
        "when the stream was opened), unreadable, frozen, obstructed, or of a closed camera.",
        "frames_failed": "Frames skipped because recognition raised an error; the log holds it.",
        "frames_gated": "Frames without a detector run because nothing moved.",
        "frames_recognised": "Frames that went through recognition.",
        "frames_sought": "Frames searched by the finder for taught items.",
        "gallery_cache": "Lists or graphs of large categories that were wanted from the cache of the state folder, by "
        "result: hit, miss, damaged (ignored, and built again), or not_written.",
        "gallery_items": "Items of large categories when another gallery was activated, by change: added, removed, or "
        "kept (with their place in the index). A changed item is both removed and added.",
        "gallery_lists_failed": "Times the lists that make the search of a large gallery fast could not be built; the "
        "log says why.",
        "gpu_failures": "Times the CPU took over from the GPU, by reason: lost (until the next start), or load.",
        "health_refused": "HTTP requests that the health server refused, by reason.",
        "kiosk_failed": "Times the kiosk's recognition raised an error; the log holds it.",
        "kiosk_refused": "HTTP requests that the kiosk refused, by reason.",
        "line_crossings": "Objects that crossed a line, by direction.",
        "looks": "Looks (embeddings): times a tracked object was classified, embedded and searched.",
        "looks_shed": "Looks skipped, by reason: too_small, outside_zones, poor_sight (poor crop), budget, or loading "
        "(a model that they need is being loaded).",
        "live_failed": "Times a picture of the live view could not be made; the log says why.",
        "lookups": "Pictures sent to /v1/lookup, by result: match, or the reason why there is none.",
        "lookups_refused": "Pictures sent to /v1/lookup while the device was busy, by reason: full (too many wait), "
        "memory (they are too large together), or late (the wait was or would be too long).",
        "lookups_waited": "Pictures sent to /v1/lookup that waited for their turn.",
        "messages_dropped": "Replies, Frigate messages and states that were not sent, by kind and reason: "
        "disconnected, full, unanswered, too_long, refused, hangs_up, invalid, or held (the broker does not take the "
        "topic).",
        "messages_shortened": "Messages that the broker took without their optional parts, because it takes no longer "
        "ones.",
        "mqtt_attempts": "Attempts to connect to the broker.",
        "mqtt_clashes": "Connections that another client with the same client id took away, or seems to have.",
        "mqtt_connections": "First connections to the broker: 1 once it was reached.",
        "mqtt_errors": "Unexpected errors of the publisher; the log holds them.",
        "mqtt_failures": "Connections that failed or ended, by reason: refused, unreachable, or taken_over by another "
        "client with the same client id.",
        "mqtt_reconnects": "Connections to the broker after the first.",
        "outbox_damaged": "Outbox files that were damaged or unusable and moved aside.",
        "outbox_disk_errors": "Disk errors of the outbox, during read or write.",
        "outbox_dropped": "Events dropped from the outbox, by reason and priority.",
        "outbox_duplicates": "Events put into the outbox twice; the second was ignored.",
        "outbox_salvaged": "Events read from damaged outbox files and kept.",
        "outbox_stored": "Events written to the outbox file.",
        "outlines": "Crops in which a silhouette was found.",
        "outlines_missed": "Crops in which no silhouette was found.",
        "pictures_refused": "Requests for a snapshot or the live view that were refused, by reason.",
        "recalls_failed": "Failed attempts to search departed objects in a newly activated gallery.",
        "recordings_failed": "Recordings that stopped because of a disk error.",
        "records_dropped": "Encoded pictures that were not recorded because the disk was too slow.",
        "reloads": "Reloads of the configuration, by result: done or refused.",
        "reply_wishes_unmet": "Replies that did not go to the response topic of the command (MQTT 5), or without its "
        "correlation data, by reason: foreign, invalid, too_long or correlation.",
        "snapshots": "Snapshots of recognised objects.",
        "snapshots_dropped": "Snapshots that were not made, by reason: full (too many at once) or failed.",
        "subscriptions_refused": "Times the broker refused the subscription to commands.",
        "taught": "Items taught on this device.",
        "taught_forgotten": "Taught items that a person deleted.",
        "taught_made_lost": "Cached embeddings of taught items that were lost and computed again, by reason.",
        "taught_retired": "Taught items that are no longer searched, by reason.",
        "taught_unusable": "Taught items that could not be read or embedded.",
        "taught_uploads": "Uploads of taught items, by result: taken, failed (tried again later), or refused (the "
        "server does not take the file).",
        "thread_restarts": "Times a thread raised an unexpected error and was restarted; the log holds it.",
        "tracks_unannounced": "Tracks that ended without an event, by reason.",
        "unknown_uploads": "Uploads of unknown objects, by result: taken, failed (tried again later), or refused (the "
        "server does not take the file, which is deleted).",
        "unknowns": "Pictures of unknown objects that were kept for the server, by camera.",
        "unknowns_dropped": "Pictures of unknown objects that were not kept, by camera and reason: busy (too many at "
        "once), no_picture (none was large enough), alike (as the one before), limit (per_hour or per_day), disk, or "
        "failed.",
        "unknowns_lost": "Pictures of unknown objects that were deleted for newer ones before the server had them.",
        "vital_signs_failed": "Times the file that the update agent reads could not be written.",
    }
)
