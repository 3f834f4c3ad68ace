"""The device's YAML file."""

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


def test_the_file_states_only_differences(tmp_path):
    config = load(tmp_path, MINIMAL + "recognition:\n  min_looks: 5\n")
    assert config.recognition.min_looks == 5
    assert config.recognition.max_looks == 12
    assert config.cameras["front"].rtsp_transport == "tcp"
    assert config.mqtt is None


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(tmp_path):
    text = MINIMAL + "engine:\n  thread: 2\n"
    assert error_of(tmp_path, text) == "device.yaml:5: engine.thread: found unknown key 'thread', expected 'threads'"


def test_the_nearest_key_is_found_below_a_camera_and_below_an_optional_section(tmp_path):
    camera = error_of(tmp_path, MINIMAL + "    bakend: auto\n")
    assert camera == "device.yaml:4: cameras.front.bakend: found unknown key 'bakend', expected 'backend'"
    mqtt = error_of(tmp_path, MINIMAL + "mqtt:\n  hots: x\n")
    assert mqtt == "device.yaml:5: mqtt.hots: found unknown key 'hots', expected 'host'"


def test_a_camera_may_bear_the_name_of_a_key(tmp_path):
    text = "cameras:\n  source:\n    source: v4l2:///dev/video0\n    zzz: 1\n"
    assert "expected one of ['backend', 'enabled'" in error_of(tmp_path, text)


def test_an_unknown_key_like_no_other_gets_the_list(tmp_path):
    assert "found unknown key 'zzz', expected one of ['cameras', 'device'" in error_of(tmp_path, MINIMAL + "zzz: 1\n")


def test_every_mistake_is_told_at_once(tmp_path):
    text = MINIMAL + "engine:\n  threads: many\nmqtt:\n  port: 70000\n"
    lines = error_of(tmp_path, text).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["device.yaml:7", "mqtt.port"],
        ["device.yaml:5", "engine.threads"],
    ]
    assert "found 'many'" in lines[1]


def test_a_missing_key_is_named(tmp_path):
    text = "cameras:\n  front:\n    enabled: true\n"
    assert error_of(tmp_path, text) == "device.yaml:2: cameras.front.source: found no such key, expected it"


def test_no_enabled_camera_is_an_error(tmp_path):
    found = error_of(tmp_path, "cameras:\n  front: {source: x, enabled: false}\n")
    assert "device.yaml:1: cameras: " in found
    assert "found no enabled camera, expected at least one" in found


@pytest.mark.parametrize("name", ["a/b", "+", "#", "", "-x", "ä", "x" * 65])
def test_a_name_that_cannot_be_a_topic_level_is_refused(tmp_path, name):
    assert "site" in error_of(tmp_path, MINIMAL + f"site: '{name}'\n")


def test_variables_and_defaults_are_filled_in_and_typed(tmp_path):
    text = "cameras:\n  front:\n    source: rtsp://u:${PW}@cam/${CH:-1}\nmqtt:\n  port: ${PORT:-8883}\n"
    config = load(tmp_path, text, {"PW": "s3cret"})
    assert config.cameras["front"].source == "rtsp://u:s3cret@cam/1"
    assert config.mqtt.port == 8883
    assert load(tmp_path, text, {"PW": "x", "PORT": "1884"}).mqtt.port == 1884


def test_an_empty_default_is_a_default(tmp_path):
    assert load(tmp_path, MINIMAL + "mqtt:\n  username: ${USER:-}\n").mqtt.username == ""


def test_a_variable_that_is_not_set_is_named_with_its_place(tmp_path):
    text = MINIMAL + "mqtt:\n  password: ${BROKER_PW}\n"
    expected = "device.yaml:5: mqtt.password: ${BROKER_PW}: found no such environment variable, expected it set"
    assert error_of(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("{tls_ca: ca.pem}", "found tls_ca without tls, expected tls: true"),
        ("{tls: false, tls_cert: a.pem, tls_key: a.key}", "found tls_cert and tls_key without tls, expected tls: true"),
        ("{tls: true, tls_key: a.key}", "found tls_key without tls_cert, expected both"),
    ],
)
def test_tls_files_that_would_not_be_used_are_an_error_not_a_connection_in_the_clear(tmp_path, keys, complaint):
    expected = f"device.yaml:4: mqtt: found a mapping: Value error, {complaint}"
    assert error_of(tmp_path, MINIMAL + f"mqtt: {keys}\n") == expected


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path):
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
def test_no_error_prints_a_password(tmp_path, text):
    assert "hunter2" not in error_of(tmp_path, text)


def test_the_tree_does_not_print_a_password(tmp_path):
    config = load(tmp_path, "cameras:\n  a: {source: 'rtsp://u:hunter2@cam'}\nmqtt:\n  password: hunter2\n")
    assert config.mqtt.password == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "device.yaml:2: not YAML: "),
        ("- a\n", "device.yaml: found list, expected a mapping of keys"),
        ("", "device.yaml: found NoneType, expected a mapping of keys"),
        ("a: !!python/object:os.system x\n", "device.yaml:1: not YAML: "),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path, text, message):
    assert error_of(tmp_path, text).startswith(message)


def test_a_file_that_is_missing_or_not_text_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read: No such file"):
        load_config(tmp_path / "none.yaml", {})
    (tmp_path / "device.yaml").write_bytes(b"site: \xff\n")
    with pytest.raises(ConfigError, match="found bytes that are not UTF-8 at offset 6"):
        load_config(tmp_path / "device.yaml", {})


def test_the_schema_for_editors_knows_every_section():
    schema = DeviceConfig.model_json_schema()
    assert {"site", "device", "state_dir", "cameras", "mqtt", "engine"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "device.yaml"
    path.write_text("cameras:\n  door: {source: 'file:///a.mp4'}\n  door: {source: 'file:///b.mp4'}\n")
    with pytest.raises(ConfigError, match=r"device\.yaml:3: found key 'door' twice"):
        load_config(path, {})


def test_a_mask_that_ends_before_it_begins_is_refused(tmp_path):
    text = MINIMAL + "    view:\n      mask: [[0.5, 0, 0.2, 0.1]]\n"
    assert "cameras.front.view.mask: found a list: " in error_of(tmp_path, text)


def test_zones_and_lines_are_read(tmp_path):
    text = MINIMAL + (
        "    zones: {till: {polygon: [[0, 0], [1, 0], [1, 1]], dwell_s: 2}}\n"
        "    lines: {gate: {from: [0, 0.5], to: [1, 0.5]}}\n"
    )
    camera = load(tmp_path, text).cameras["front"]
    assert camera.zones["till"].polygon == ((0, 0), (1, 0), (1, 1))
    assert (camera.lines["gate"].start, camera.lines["gate"].end) == ((0, 0.5), (1, 0.5))


def test_an_unknown_key_of_a_line_is_told_with_the_keys_that_are_written(tmp_path):
    text = MINIMAL + "    lines: {gate: {from: [0, 0.5], to: [1, 0.5], form: 1}}\n"
    assert error_of(tmp_path, text).endswith("found unknown key 'form', expected 'from'")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("zones: {a: {polygon: [[0, 0], [1, 0]]}}", "at least 3 items"),
        ("zones: {a: {polygon: [[0, 0], [100, 0], [1, 1]]}}", "less than or equal to 1"),
        ("lines: {a: {from: [0, 0], to: [0, 0]}}", "expected two points"),
        ("framing: whole_frame\n    motion: {}", "found motion with framing: whole_frame"),
        ("framing: whole_frame\n    zones: {a: {polygon: [[0, 0], [1, 0], [1, 1]]}}", "expected framing: detect"),
    ],
)
def test_places_that_make_no_sense_are_refused(tmp_path, wrong, said):
    assert said in error_of(tmp_path, MINIMAL + f"    {wrong}\n")


def test_a_camera_named_as_the_topic_of_commands_is_refused(tmp_path):
    assert "found a camera named cmd" in error_of(tmp_path, "cameras:\n  cmd: {source: 'rtsp://cam/1'}\n")


def test_home_assistant_is_announced_to_where_asked_for(tmp_path):
    assert load(tmp_path, MINIMAL + "mqtt: {}\n").mqtt.home_assistant is None
    assert load(tmp_path, MINIMAL + "mqtt: {home_assistant: {}}\n").mqtt.home_assistant.prefix == "homeassistant"
    assert load(tmp_path, MINIMAL + "mqtt: {home_assistant: {prefix: ha}}\n").mqtt.home_assistant.prefix == "ha"


KIOSK = "cameras:\n  till: {source: v4l2://0, framing: whole_frame}\n  door: {source: v4l2://1}\nkiosk: "


def test_a_kiosk_listens_on_loopback_unless_it_has_a_token(tmp_path):
    assert load(tmp_path, KIOSK + "{camera: till}\n").kiosk.host == "127.0.0.1"
    assert load(tmp_path, KIOSK + "{camera: till, host: '::1'}\n").kiosk.token is None
    open_ = load(tmp_path, KIOSK + "{camera: till, host: 0.0.0.0, token: '${T}'}\n", {"T": "s3cret token"})
    assert open_.kiosk.token == "s3cret token"
    assert "s3cret" not in repr(open_)
    found = error_of(tmp_path, KIOSK + "{camera: till, host: 0.0.0.0}\n")
    assert "device.yaml:4: kiosk: " in found
    assert "found host '0.0.0.0' without a token, expected a token or a loopback address" in found


@pytest.mark.parametrize("camera", ["door", "nobody"])
def test_a_kiosk_without_a_whole_frame_camera_is_an_error(tmp_path, camera):
    found = error_of(tmp_path, KIOSK + f"{{camera: {camera}}}\n")
    assert f"found camera '{camera}', expected one of ['till'], enabled" in found


@pytest.mark.parametrize("keys", ["token: s3cret", "upload_url: 'ftp://user:s3cret@host'"])
def test_what_is_wrong_with_a_kiosks_secret_does_not_print_it(tmp_path, keys):
    found = error_of(tmp_path, KIOSK + f"{{camera: till, {keys}}}\n")
    assert f"kiosk.{keys.partition(':')[0]}: found ***: " in found
    assert "s3cret" not in found
