import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.yaml_file import load_config
from edge.diagnostics.support_bundle import pack_support, scrub

SECRETS = {"BROKER_PASSWORD": "h0rse-battery", "KIOSK_TOKEN": "sesame-seed"}
YAML = """
site: here
device: one
state_dir: state
mqtt: {host: broker, username: edge, password: "${BROKER_PASSWORD}"}
health: {port: 1}
kiosk: {camera: desk, token: "${KIOSK_TOKEN}", upload_url: "https://s3.example/b?X-Amz-Signature=5ig&sig=az-ure-5ig"}
# the old password was 0ld-s3cret
cameras:
  door: {source: "rtsp://admin:plain-secret@10.0.0.7/stream"}
  desk: {source: "v4l2://0", framing: whole_frame}
  gate: {source: "rtsp://admin:p%40ss%2Fword@10.0.0.8/stream"}
"""


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device.yaml"
    path.write_text(YAML)
    (tmp_path / "state/slots/a").mkdir(parents=True)
    (tmp_path / "state/current").write_text('{"note": "connect to broker with h0rse-battery, page ?token=sesame-seed"}')
    return path


def unpack(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read().decode() for m in tar.getmembers()}


def test_no_part_holds_a_secret(device: Path, tmp_path: Path):
    archive = tmp_path / "out/support.tar.gz"
    names = pack_support(load_config(device, SECRETS), archive)
    parts = unpack(archive)
    assert sorted(parts) == sorted(names)
    for name, text in parts.items():
        for secret in ("h0rse", "plain-secret", "p@ss/word", "p%40ss%2Fword", "sesame", "=5ig", "az-ure", "0ld"):
            assert secret not in text, name
    written = json.loads(parts["device.json"])
    assert written["cameras"]["door"]["source"] == "rtsp://***@10.0.0.7/stream"
    assert written["kiosk"]["upload_url"] == "https://s3.example/b?X-Amz-Signature=***&sig=***"
    assert "connect to broker with ***, page ?token=***" in parts["state/current"]


def test_missing_part_holds_the_reason(device: Path, tmp_path: Path):
    pack_support(load_config(device, SECRETS), tmp_path / "support.tar.gz")
    parts = unpack(tmp_path / "support.tar.gz")
    assert parts["metrics.txt"].startswith("not available: ")
    assert parts["state/slots/a/bundle.json"].startswith("not available: ")
    assert "current" in parts["state/files.txt"]


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("password: abc", "password: ***"),
        ("mqtt: {password: 'a b', port: 1}", "mqtt: {password: ***, port: 1}"),
        ('{"token": "abc"}', '{"token": "***"}'),
        (r'{"token": "a\"b"}', '{"token": "***"}'),
        ("token: 'it''s'", "token: ***"),
        ("rtsp://u:p@h/x", "rtsp://***@h/x"),
        ("no secret here", "no secret here"),
    ],
)
def test_anything_like_a_secret_is_hidden(text: str, scrubbed: str):
    assert scrub(text) == scrubbed


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.sampled_from(["password", "tls_key_passwd", "API_TOKEN", "secret"]), st.text(max_size=30))
def test_any_secret_in_json_is_hidden(key, secret):
    assert scrub(json.dumps({key: secret})) == f'{{"{key}": "***"}}'
