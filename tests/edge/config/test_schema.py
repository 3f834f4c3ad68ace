"""The device's YAML file and its schema."""

import pytest

from edge.config.schema import DeviceConfig
from edge.config.yaml_file import load_config
from edge.errors import ConfigError

MINIMAL = "cameras:\n  front:\n    source: rtsp://cam/1\n"


def load(tmp_path, text, environment=None):
    path = tmp_path / "device.yaml"
    path.write_text(text)
    return load_config(path, environment or {})


def error_of(tmp_path, text, environment=None):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environment)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_file_states_only_differences(tmp_path):
    config = load(tmp_path, MINIMAL + "recognition:\n  min_looks: 5\n")
    assert config.recognition.min_looks == 5
    assert config.recognition.max_looks == 12
    assert config.cameras["front"].rtsp_transport == "tcp"
    assert config.mqtt is None


def test_unknown_key_is_named_with_line_and_nearest_valid_key(tmp_path):
    text = MINIMAL + "engine:\n  thread: 2\n"
    assert error_of(tmp_path, text) == "device.yaml:5: engine.thread: unknown key 'thread'; did you mean 'threads'?"


def test_nearest_key_in_a_camera_and_in_an_optional_section(tmp_path):
    camera = error_of(tmp_path, MINIMAL + "    bakend: auto\n")
    assert camera == "device.yaml:4: cameras.front.bakend: unknown key 'bakend'; did you mean 'backend'?"
    mqtt = error_of(tmp_path, MINIMAL + "mqtt:\n  hots: x\n")
    assert mqtt == "device.yaml:5: mqtt.hots: unknown key 'hots'; did you mean 'host'?"


def test_camera_may_have_the_name_of_a_key(tmp_path):
    text = "cameras:\n  source:\n    source: v4l2:///dev/video0\n    zzz: 1\n"
    assert "valid keys are backend, enabled" in error_of(tmp_path, text)


def test_unknown_key_unlike_any_other_lists_the_valid_keys(tmp_path):
    assert "unknown key 'zzz'; valid keys are cameras, device" in error_of(tmp_path, MINIMAL + "zzz: 1\n")


def test_all_errors_are_reported_at_once(tmp_path):
    text = MINIMAL + "engine:\n  threads: many\nmqtt:\n  port: 70000\n"
    lines = error_of(tmp_path, text).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["device.yaml:7", "mqtt.port"],
        ["device.yaml:5", "engine.threads"],
    ]
    assert "found 'many'" in lines[1]


def test_missing_key_is_named(tmp_path):
    text = "cameras:\n  front:\n    enabled: true\n"
    assert error_of(tmp_path, text) == "device.yaml:2: cameras.front.source: this key is missing; add it"


def test_no_enabled_camera_is_an_error(tmp_path):
    found = error_of(tmp_path, "cameras:\n  front: {source: x, enabled: false}\n")
    assert "device.yaml:1: cameras: " in found
    assert "no camera is enabled; enable at least one" in found


@pytest.mark.parametrize("name", ["a/b", "+", "#", "", "-x", "ä", "x" * 65])
def test_name_that_cannot_be_a_topic_level_is_rejected(tmp_path, name):
    assert "site" in error_of(tmp_path, MINIMAL + f"site: '{name}'\n")


def test_variables_and_defaults_are_substituted_and_typed(tmp_path):
    text = "cameras:\n  front:\n    source: rtsp://u:${PW}@cam/${CH:-1}\nmqtt:\n  port: ${PORT:-8883}\n"
    config = load(tmp_path, text, {"PW": "s3cret"})
    assert config.cameras["front"].source == "rtsp://u:s3cret@cam/1"
    assert config.mqtt.port == 8883
    assert load(tmp_path, text, {"PW": "x", "PORT": "1884"}).mqtt.port == 1884


def test_empty_default_is_valid(tmp_path):
    assert load(tmp_path, MINIMAL + "mqtt:\n  username: ${USER:-}\n").mqtt.username == ""


def test_unset_variable_is_named_with_its_line(tmp_path):
    text = MINIMAL + "mqtt:\n  password: ${BROKER_PW}\n"
    expected = "device.yaml:5: mqtt.password: variable BROKER_PW is not set; set it or write ${BROKER_PW:-default}"
    assert error_of(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("{tls_ca: ca.pem}", "tls_ca without tls: true; set tls: true"),
        ("{tls: false, tls_cert: a.pem, tls_key: a.key}", "tls_cert and tls_key without tls: true; set tls: true"),
        ("{tls: true, tls_key: a.key}", "tls_key without tls_cert; set both"),
    ],
)
def test_unused_tls_files_are_an_error(tmp_path, keys, message):
    expected = f"device.yaml:4: mqtt: {message}"
    assert error_of(tmp_path, MINIMAL + f"mqtt: {keys}\n") == expected


def test_relative_paths_are_relative_to_the_file(tmp_path):
    text = (
        "state_dir: state\nmqtt: {tls: true, tls_ca: ca.pem, tls_cert: /etc/cert.pem}\ncameras:\n"
        "  a: {source: 'file://clips/a.mp4?loop=1'}\n  b: {source: 'folder:///data/b'}\n  c: {source: 'rtsp://cam/1'}\n"
    )
    config = load(tmp_path, text)
    assert config.state_dir == tmp_path / "state"
    assert config.mqtt.tls_ca == tmp_path / "ca.pem"
    assert str(config.mqtt.tls_cert) == "/etc/cert.pem"
    assert config.mqtt.tls_key is None
    assert config.cameras["a"].source == f"file://{tmp_path}/clips/a.mp4?loop=1"
    assert config.cameras["b"].source == "folder:///data/b"
    assert config.cameras["c"].source == "rtsp://cam/1"


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "mqtt:\n  password: [hunter2]\n",
        MINIMAL + "mqtt:\n  password: {a: hunter2}\n",
        MINIMAL + "mqtt:\n  - password: hunter2\n",
        MINIMAL + "mqtt:\n  passwort: hunter2\n",
        "cameras:\n  front: rtsp://admin:hunter2@cam/1\n",
        "cameras:\n  front: {source: 'rtsp://admin:hunter2@cam/1', enabled: false}\n",
        "cameras:\n  front: {source: [ 'rtsp://admin:hunter2@cam/1' ]}\n",
        MINIMAL + "mqtt:\n  host: [ 'mqtt://u:hunter2@h' ]\n",
    ],
)
def test_errors_do_not_print_passwords(tmp_path, text):
    assert "hunter2" not in error_of(tmp_path, text)


def test_configuration_does_not_print_a_password(tmp_path):
    config = load(tmp_path, "cameras:\n  a: {source: 'rtsp://u:hunter2@cam'}\nmqtt:\n  password: hunter2\n")
    assert config.mqtt.password == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "device.yaml:2: not YAML: "),
        ("- a\n", "device.yaml: this is not a mapping of keys"),
        ("", "device.yaml: this is not a mapping of keys"),
        ("a: !!python/object:os.system x\n", "device.yaml:1: not YAML: "),
    ],
)
def test_text_that_is_no_yaml_mapping_is_rejected(tmp_path, text, message):
    assert error_of(tmp_path, text).startswith(message)


def test_missing_or_binary_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read: No such file"):
        load_config(tmp_path / "none.yaml", {})
    (tmp_path / "device.yaml").write_bytes(b"site: \xff\n")
    with pytest.raises(ConfigError, match="byte 6 is not UTF-8"):
        load_config(tmp_path / "device.yaml", {})


def test_json_schema_has_every_section():
    schema = DeviceConfig.model_json_schema()
    assert {"site", "device", "state_dir", "cameras", "mqtt", "engine"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_duplicate_key_is_rejected_with_its_line(tmp_path):
    path = tmp_path / "device.yaml"
    path.write_text("cameras:\n  door: {source: 'file:///a.mp4'}\n  door: {source: 'file:///b.mp4'}\n")
    with pytest.raises(ConfigError, match=r"device\.yaml:3: key 'door' appears twice"):
        load_config(path, {})


def test_mask_with_swapped_sides_is_rejected(tmp_path):
    text = MINIMAL + "    view:\n      mask: [[0.5, 0, 0.2, 0.1]]\n"
    assert "cameras.front.view.mask: [0.5, 0.0, 0.2, 0.1] is not x0 y0 x1 y1" in error_of(tmp_path, text)


def test_zones_and_lines_are_parsed(tmp_path):
    text = MINIMAL + (
        "    zones: {till: {polygon: [[0, 0], [1, 0], [1, 1]], dwell_s: 2}}\n"
        "    lines: {gate: {from: [0, 0.5], to: [1, 0.5]}}\n"
    )
    camera = load(tmp_path, text).cameras["front"]
    assert camera.zones["till"].polygon == ((0, 0), (1, 0), (1, 1))
    assert (camera.lines["gate"].start, camera.lines["gate"].end) == ((0, 0.5), (1, 0.5))


def test_unknown_key_of_a_line_is_matched_with_its_aliases(tmp_path):
    text = MINIMAL + "    lines: {gate: {from: [0, 0.5], to: [1, 0.5], form: 1}}\n"
    assert error_of(tmp_path, text).endswith("unknown key 'form'; did you mean 'from'?")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("zones: {a: {polygon: [[0, 0], [1, 0]]}}", "at least 3 items"),
        ("zones: {a: {polygon: [[0, 0], [100, 0], [1, 1]]}}", "less than or equal to 1"),
        ("lines: {a: {from: [0, 0], to: [0, 0]}}", "give two points"),
        ("framing: whole_frame\n    motion: {}", "motion cannot be used with framing: whole_frame"),
        (
            "framing: whole_frame\n    zones: {a: {polygon: [[0, 0], [1, 0], [1, 1]]}}",
            "zones cannot be used with framing: whole_frame; set framing: detect",
        ),
    ],
)
def test_invalid_zones_lines_and_motion_are_rejected(tmp_path, wrong, message):
    assert message in error_of(tmp_path, MINIMAL + f"    {wrong}\n")


def test_camera_named_cmd_is_rejected(tmp_path):
    assert "a camera cannot be named cmd" in error_of(tmp_path, "cameras:\n  cmd: {source: 'rtsp://cam/1'}\n")


def test_home_assistant_discovery_is_optional(tmp_path):
    assert load(tmp_path, MINIMAL + "mqtt: {}\n").mqtt.home_assistant is None
    assert load(tmp_path, MINIMAL + "mqtt: {home_assistant: {}}\n").mqtt.home_assistant.prefix == "homeassistant"
    assert load(tmp_path, MINIMAL + "mqtt: {home_assistant: {prefix: ha}}\n").mqtt.home_assistant.prefix == "ha"


KIOSK = "cameras:\n  till: {source: v4l2://0, framing: whole_frame}\n  door: {source: v4l2://1}\nkiosk: "


def test_kiosk_on_the_network_needs_a_token(tmp_path):
    assert load(tmp_path, KIOSK + "{camera: till}\n").kiosk.host == "127.0.0.1"
    assert load(tmp_path, KIOSK + "{camera: till, host: '::1'}\n").kiosk.token is None
    open_ = load(tmp_path, KIOSK + "{camera: till, host: 0.0.0.0, token: '${T}'}\n", {"T": "s3cret token"})
    assert open_.kiosk.token == "s3cret token"
    assert "s3cret" not in repr(open_)
    found = error_of(tmp_path, KIOSK + "{camera: till, host: 0.0.0.0}\n")
    assert "device.yaml:4: kiosk: " in found
    assert "host '0.0.0.0' is not a loopback address; set a token" in found


@pytest.mark.parametrize("camera", ["door", "nobody"])
def test_kiosk_needs_a_whole_frame_camera(tmp_path, camera):
    found = error_of(tmp_path, KIOSK + f"{{camera: {camera}}}\n")
    assert f"camera '{camera}' is not an enabled camera with framing: whole_frame; choose one of ['till']" in found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("token: s3cret", "token: found ***: "),
        ("upload_url: 'ftp://user:s3cret@host'", "upload_url: must be http:// or https:// and a host"),
    ],
)
def test_errors_of_kiosk_secrets_do_not_print_them(tmp_path, keys, message):
    found = error_of(tmp_path, KIOSK + f"{{camera: till, {keys}}}\n")
    assert f"kiosk.{message}" in found
    assert "s3cret" not in found


def test_unknown_objects_are_off_and_bounded_when_on(tmp_path):
    assert load(tmp_path, MINIMAL).unknowns is None
    section = "unknowns: {upload_url: 'https://fleet.example/inbox/till', upload_token: '${T}'}\n"
    unknowns = load(tmp_path, MINIMAL + section, {"T": "s3cret token"}).unknowns
    assert (unknowns.per_hour, unknowns.per_day, unknowns.reasons) == (20, 200, ("unknown_item", "low_margin"))
    assert "s3cret" not in repr(unknowns)
    assert "fleet.example" not in repr(unknowns)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("upload_url: 'ftp://user:s3cret@host'", "unknowns.upload_url: must be http:// or https:// and a host"),
        ("upload_url: 'https://h', cameras: [nobody]", "there is no camera 'nobody'; choose from ['front']"),
        ("upload_url: 'https://h', reasons: []", "unknowns.reasons: "),
        ("upload_url: 'https://h', reasons: [too_small]", "unknowns.reasons.0: "),
        ("upload_token: s3cret", "unknowns.upload_url: "),
    ],
)
def test_unknown_objects_that_cannot_be_sent_are_refused(tmp_path, keys, message):
    found = error_of(tmp_path, MINIMAL + f"unknowns: {{{keys}}}\n")
    assert message in found
    assert "s3cret" not in found


def test_live_view_needs_the_health_server(tmp_path):
    assert "add `health: {}`" in error_of(tmp_path, MINIMAL + "live: {}\n")
    assert load(tmp_path, MINIMAL + "health: {}\nlive: {}\n").live is not None


@pytest.mark.parametrize("pictures", ["live", "snapshots"])
def test_pictures_for_other_machines_need_a_token(tmp_path, pictures):
    section = f"{pictures}: {{}}\n"
    found = error_of(tmp_path, f"{MINIMAL}health: {{host: 0.0.0.0}}\n{section}")
    assert "is not a loopback address; set health.token" in found
    assert load(tmp_path, f"{MINIMAL}health: {{host: 0.0.0.0, token: s3cret token}}\n{section}").health is not None
    assert load(tmp_path, f"{MINIMAL}health: {{host: 0.0.0.0}}\n").snapshots is None


def test_snapshots_for_the_broker_alone_need_no_health_server(tmp_path):
    assert load(tmp_path, MINIMAL + "snapshots: {}\n").snapshots is not None
