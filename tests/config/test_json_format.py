"""config.json of every format: earlier names and values of settings are read, later formats are not."""

import json

import pytest

from lab.config.json_format import CONFIG_FORMAT, OLD_NAMES, OLD_VALUES, from_dict, to_dict
from lab.config.methods import METHODS, make_config
from lab.config.schema import declared_settings
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.errors import LabError

FORMAT_2 = {
    "ipo": {"form": "token_mean", "shard": "on", "quantization": "none"},
    "grpo": {"reduction": "fixed_length", "scale": "batch", "gradient_checkpointing": "on"},
    "ppo": {"lam": 0.9, "layout": "separate", "reduction": "sequence_mean", "shard": "off"},
}
FORMAT_3 = {
    "ipo": {"ipo_variant": "token_mean", "shard": True, "quantization": None},
    "grpo": {
        "loss_aggregation": "fixed_length",
        "advantage_scaling": "batch",
        "gradient_checkpointing": True,
    },
    "ppo": {
        "gae_lambda": 0.9,
        "model_layout": "separate",
        "loss_aggregation": "sequence_mean",
        "shard": False,
    },
}


@pytest.mark.parametrize("method", FORMAT_2)
@pytest.mark.parametrize("written", [{}, {"format": 1}, {"format": 2}])
def test_names_and_values_of_earlier_formats_are_read(method, written):
    expected = make_config(method, FORMAT_3[method])
    assert from_dict({"method": method} | written | FORMAT_2[method]) == expected
    assert from_dict({"method": method} | written | FORMAT_3[method]) == expected


@pytest.mark.parametrize("method", FORMAT_2)
def test_format_3_takes_the_new_names_alone(method):
    assert CONFIG_FORMAT == 3
    with pytest.raises(LabError, match="Unknown setting"):
        from_dict({"method": method, "format": 3} | FORMAT_2[method])
    with pytest.raises(LabError, match="shard is 'on', but takes true or false"):
        from_dict({"method": method, "format": 3, "shard": "on"})


@pytest.mark.parametrize("method", METHODS)
def test_a_config_survives_json_and_no_setting_has_an_earlier_name(method):
    config = make_config(method)
    assert from_dict({"format": CONFIG_FORMAT} | json.loads(json.dumps(to_dict(config)))) == config
    assert not OLD_NAMES.keys() & declared_settings(type(config)).keys()


def test_every_new_name_and_every_changed_value_belongs_to_a_setting():
    names = {name for spec in METHODS.values() for name in declared_settings(spec.config)}
    assert {*OLD_NAMES.values(), *OLD_VALUES} <= names


@pytest.mark.parametrize(
    "path", sorted(SHIPPED_RUNS_FOLDER.glob("*/config.json")), ids=lambda path: path.parent.name
)
def test_every_shipped_run_is_read_with_its_own_values(path):
    written = json.loads(path.read_text("utf-8"))
    settings = to_dict(from_dict(written))
    for name, value in written.items():
        if name not in ("format", *OLD_VALUES):
            assert settings[OLD_NAMES.get(name, name)] == value, name


def test_a_boolean_and_an_optional_word_are_parsed_from_text():
    settings = declared_settings(METHODS["dpo"].config)
    assert [settings["shard"].parse(word) for word in ("on", "True", "off")] == [True, True, False]
    assert settings["quantization"].parse("none") is None
    assert settings["quantization"].parse("4bit") == "4bit"
    for name, text in (("shard", "perhaps"), ("beta", "much"), ("steps", "1.5")):
        with pytest.raises(LabError, match=f"{name} is '{text}', but takes"):
            settings[name].parse(text)
    for own in settings.values():
        assert own.parse(own.text(own.default)) == own.default
    with pytest.raises(LabError, match="Unknown quantization '8bit'"):
        make_config("dpo", {"quantization": "8bit"})
