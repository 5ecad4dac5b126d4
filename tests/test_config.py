"""Settings are checked, survive JSON, and change by name."""

import json

import pytest

from cvae_jax.config import PRESETS, Config
from cvae_jax.errors import ConfigError


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_survives_json(preset):
    assert Config.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be positive, not 0"),
        ({"filters": ()}, "filters must be one or more positive numbers"),
        ({"beta": -1.0}, "beta must be at least 0"),
        ({"average_decay": 1.0}, r"average_decay must be at least 0 and below 1, not 1\.0"),
        ({"validation_fraction": 0.0}, "validation_fraction must be positive"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, not linear"),
        ({"seed": -1}, "seed must be from 0"),
        ({"latent_dim": 1 << 70}, "latent_dim must be 16384 at most"),
        ({"filters": (1,) * 17}, "filters must be 16 at most"),
        ({"filters": (1, "2")}, "filters must be of type tuple"),
        ({"height": 28.5}, r"height must be of type int, not 28\.5"),
        ({"height": True}, "height must be of type int, not True"),
        ({"beta": "1"}, "beta must be of type float"),
        ({"flip": 1}, "flip must be of type bool, not 1"),
        ({"latent_channels": 6}, "latent_channels must be a multiple of 4, or 0 .* not 6"),
        ({"latent_channels": -4}, "latent_channels must be a multiple of 4"),
        ({"latent_channels": 8, "latent_dim": 32}, "latent_dim means nothing for a map"),
        ({"latent_channels": 8, "dense_width": 32}, "dense_width means nothing for a map"),
        ({"blocks": 1}, "blocks go with a map of latents: set latent_channels too"),
        ({"latent_channels": 8, "blocks": 17}, "blocks must be from 0 to 16, not 17"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(**settings)


def test_a_stored_configuration_from_before_maps_is_of_a_dense_model():
    stored = PRESETS["hq"].to_dict()
    for name in ("latent_channels", "blocks"):
        del stored["model"][name]
    del stored["train"]["flip"]
    config = Config.from_dict(stored)
    assert config == PRESETS["hq"]
    model = config.model
    assert (model.latent_map, model.latents, model.noise_dim) == (None, 160, 160)


def test_a_map_is_as_large_as_its_convolutions_leave_of_the_image():
    model = PRESETS["photos32"].model
    assert (model.latent_map, model.latents, model.noise_dim) == ((8, 8, 24), 1536, 1537)
    odd = PRESETS["photos32"].replace(height=33, width=30).model
    assert odd.latent_map == (9, 8, 24)


def test_refuses_a_stored_configuration_of_another_version():
    stored = Config().to_dict()
    stored["train"]["later_field"] = 1
    with pytest.raises(ConfigError, match="later_field"):
        Config.from_dict(stored)
