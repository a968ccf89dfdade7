"""Settings come from options, then the environment, then defaults, and say which of them is wrong."""

from typing import Any

import msgspec
import pytest

from api.settings import Settings, load
from bandit.errors import InvalidRequest


def test_only_the_app_is_needed() -> None:
    settings = load({"app": "fintech"}, {})
    assert settings == Settings(app="fintech")
    assert (settings.store, settings.host, settings.port) == ("sqlite:///journey-bandit.db", "127.0.0.1", 8080)
    assert (settings.dev, settings.window_scale, settings.keys, settings.salt) == (False, 1.0, "", "")


def test_every_setting_can_come_from_the_environment() -> None:
    environ = {
        "JOURNEY_BANDIT_APP": "travel",
        "JOURNEY_BANDIT_STORE": "memory://",
        "JOURNEY_BANDIT_HOST": "0.0.0.0",  # noqa: S104 - what a container sets
        "JOURNEY_BANDIT_PORT": "9",
        "JOURNEY_BANDIT_KEYS": "k.toml",
        "JOURNEY_BANDIT_DEV": "true",
        "JOURNEY_BANDIT_SALT": "s",
        "JOURNEY_BANDIT_WINDOW_SCALE": "1e-5",
        "JOURNEY_BANDIT_CLOCK": "driven",
        "JOURNEY_BANDIT_QUEUE": "7",
        "JOURNEY_BANDIT_CORS": "https://a",
        "JOURNEY_BANDIT_WEBHOOKS": "w.toml",
        "JOURNEY_BANDIT_CONNECTIONS": "99",
        "JOURNEY_BANDIT_CONNECTIONS_PER_ADDRESS": "9",
        "JOURNEY_BANDIT_DOCS": "false",
        "JOURNEY_BANDIT_COMPILED": "false",
        "JOURNEY_BANDIT_I_KNOW": "1",
        "JOURNEY_BANDIT_METRICS": "read",
        "JOURNEY_BANDIT_MLFLOW_UI": "https://mlflow.example/ui",
        "JOURNEY_BANDIT_TRUSTED_PROXIES": "10.0.0.0/8",
        "JOURNEY_BANDIT_DRAIN": "2.5",
        "JOURNEY_BANDIT_LOG_FORMAT": "json",
        "JOURNEY_BANDIT_LOG_LEVEL": "warning",
        "JOURNEY_BANDIT_ACCESS_LOG": "1",
        "JOURNEY_BANDIT_OTLP": "http://collector:4318",
    }
    assert {f"JOURNEY_BANDIT_{name.upper()}" for name in Settings.__struct_fields__} == environ.keys()
    assert load({}, environ) == Settings(
        app="travel", store="memory://", host="0.0.0.0", port=9, keys="k.toml", dev=True, salt="s",  # noqa: S104
        window_scale=1e-5, clock="driven", queue=7, cors="https://a", webhooks="w.toml",
        connections=99, connections_per_address=9, docs=False, compiled=False, i_know=True, metrics="read",
        trusted_proxies="10.0.0.0/8", drain=2.5, mlflow_ui="https://mlflow.example/ui",
        log_format="json", log_level="warning", access_log=True, otlp="http://collector:4318",
    )  # fmt: skip


def test_an_option_counts_more_than_the_environment_and_one_not_given_less() -> None:
    environ = {"JOURNEY_BANDIT_APP": "travel", "JOURNEY_BANDIT_PORT": "9", "JOURNEY_BANDIT_DEV": "1"}
    settings = load({"app": "gaming", "port": None, "dev": None}, environ)
    assert (settings.app, settings.port, settings.dev) == ("gaming", 9, True)


@pytest.mark.parametrize("link", ["tcp://10.96.0.7:8080", "udp://[fd00::1]:53", " tcp://10.96.0.7:8080 "])
def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over_with_a_word(
    link: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {
        "JOURNEY_BANDIT_APP": "travel",
        "JOURNEY_BANDIT_PORT": link,
        "JOURNEY_BANDIT_SERVICE_HOST": "10.96.0.7",
        "JOURNEY_BANDIT_SERVICE_PORT": "8080",
        "JOURNEY_BANDIT_SERVICE_PORT_HTTP": "8080",
        "JOURNEY_BANDIT_PORT_8080_TCP": "tcp://10.96.0.7:8080",
        "JOURNEY_BANDIT_PORT_8080_TCP_ADDR": "10.96.0.7",
        "JOURNEY_BANDIT_PORT_8080_TCP_PORT": "8080",
        "JOURNEY_BANDIT_PORT_8080_TCP_PROTO": "tcp",
    }
    assert load({}, environ) == Settings(app="travel")
    (line,) = caplog.messages
    assert f"JOURNEY_BANDIT_PORT={link}" in line
    assert load({"port": 9}, environ).port == 9
    with pytest.raises(InvalidRequest, match="JOURNEY_BANDIT_PORT"):  # a link is no other value
        load({}, environ | {"JOURNEY_BANDIT_PORT": "https://10.96.0.7"})


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_is_as_one_that_is_not_set(blank: str) -> None:
    environ = {f"JOURNEY_BANDIT_{name.upper()}": blank for name in Settings.__struct_fields__}
    assert load({"app": "gaming"}, environ) == Settings(app="gaming")


def test_other_variables_do_not_matter() -> None:
    environ = {"JOURNEY_BANDIT_APP": "gaming", "JOURNEY_BANDIT_TOKEN": "x", "PORT": "x", "APP": "x", "DEV": "1"}
    assert load({}, environ) == Settings(app="gaming")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "tcp:/10.96.0.7"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.5"),
        ("dev", "perhaps"),
        ("window_scale", "0"),
        ("window_scale", "-1"),
        ("window_scale", "2"),
        ("window_scale", "nan"),
        ("window_scale", "fast"),
        ("clock", "slow"),
        ("log_format", "xml"),
        ("log_level", "debug"),
        ("access_log", "perhaps"),
        ("otlp", "collector:4318"),
        ("queue", "0"),
        ("queue", "many"),
    ],
)
def test_a_wrong_setting_is_named_with_both_ways_to_set_it(name: str, value: str) -> None:
    for given, environ in (({"app": "x", name: value}, {}), ({"app": "x"}, {f"JOURNEY_BANDIT_{name.upper()}": value})):
        with pytest.raises(InvalidRequest) as refused:
            load(given, environ)
        (problem,) = refused.value.problems
        assert problem.field == name
        assert f"JOURNEY_BANDIT_{name.upper()}" in problem.fix
        assert f"--{name.replace('_', '-')}" in problem.fix


def test_a_missing_app_is_named() -> None:
    with pytest.raises(InvalidRequest, match="--app or JOURNEY_BANDIT_APP"):
        load({}, {})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="colour"):
        load({"app": "x", "colour": "red"}, {})


def test_settings_do_not_change() -> None:
    settings: Any = Settings(app="x")
    with pytest.raises(AttributeError):
        settings.port = 1
    assert msgspec.structs.replace(settings, port=1).port == 1


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network_is_no_trusted_proxy(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="--trusted-proxies or JOURNEY_BANDIT_TRUSTED_PROXIES"):
        load({"app": "gaming", "trusted_proxies": wrong}, {})
