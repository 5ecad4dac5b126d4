"""The step and the loop: exact sums, determinism, no hidden transfers, nothing kept of a NaN."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax import backend, training
from cvae_jax.config import Config
from cvae_jax.errors import TrainingError
from cvae_jax.modules import init_params

CONFIG = Config().replace(
    height=8, width=8, latent_dim=3, filters=(4, 4), dense_width=8, epochs=2, batch_size=10
)
MAP = Config().replace(
    height=8, width=8, filters=(4, 8), latent_channels=4, blocks=1, reconstruction="mse",
    beta=0.029, epochs=2, batch_size=10, average_decay=0.9, flip=True,
)  # fmt: skip
# Squares of random brightness: quick to learn.
IMAGES = np.zeros((35, 8, 8, 1), np.uint8)
IMAGES[:, 2:6, 2:6] = np.random.default_rng(0).integers(100, 256, (35, 1, 1, 1))


def start(config=CONFIG, images=IMAGES):
    total = config.train.epochs * training.steps_per_epoch(config.train, len(images))
    return training.init_state(config, total)


def states(config=CONFIG, state=None, images=IMAGES):
    """The states after each dispatch, on the host: the loop gives its own up."""
    run = training.run(config, state or start(config), images)
    return [jax.tree.map(np.asarray, at.state) for at in run]


@pytest.fixture(scope="module")
def reference():
    """The state after each of the six steps of CONFIG."""
    return states()


def equal(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunked_gradient_is_the_whole_batchs(chunk):
    params = init_params(CONFIG.model, jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), (20, 3))
    compute = jax.jit(functools.partial(training.loss_and_gradient, CONFIG), static_argnums=3)
    whole, pieces = (compute(params, IMAGES[:20], noise, c) for c in (20, chunk))
    chex.assert_trees_all_close(pieces, whole, rtol=1e-5, atol=1e-5)


def test_every_image_is_seen_at_most_once_an_epoch_and_orders_differ():
    first, second = (training.epoch_order(CONFIG.train, e, 35) for e in (0, 1))
    assert first.shape == (3, 10)
    assert len(np.unique(first)) == 30
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, training.epoch_order(CONFIG.train, 0, 35))


def test_same_seed_same_parameters_and_another_seed_others(reference):
    chex.assert_trees_all_equal(states(), reference)
    assert not equal(states(CONFIG.replace(seed=1))[-1].params, reference[-1].params)


@pytest.mark.parametrize("step", [2, 3])
def test_going_on_from_a_step_is_exact(reference, step):
    """Within an epoch, and between two."""
    rest = states(state=jax.device_put(reference[step - 1]))
    chex.assert_trees_all_equal(rest, reference[step:])


def test_a_map_is_trained_the_same_each_time_and_goes_on_exactly():
    whole = states(MAP)
    chex.assert_trees_all_equal(states(MAP), whole)
    chex.assert_trees_all_equal(states(MAP, jax.device_put(whole[3])), whole[4:])
    start_of = start(MAP).params
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start_of, whole[-1].params)
    assert min(jax.tree.leaves(moved)) > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole[-1]))


def test_flipping_exchanges_left_and_right_of_about_half_the_images(reference):
    """What looks the same from both sides trains the same, and nothing else does."""
    flipping = CONFIG.replace(flip=True)
    chex.assert_trees_all_close(states(flipping)[0].sums, reference[0].sums, rtol=1e-5)
    lopsided = IMAGES * (np.arange(8) < 4)[:, None].astype(np.uint8)
    one, other = (states(c, images=lopsided)[0].sums["loss"] for c in (CONFIG, flipping))
    assert abs(one - other) > 1e-3
    flips = np.asarray(training._flips(jax.random.key(0), 3, 1000))
    assert 400 < flips.sum() < 600


def test_an_epoch_in_one_dispatch_is_the_loop_of_steps(reference, monkeypatch):
    monkeypatch.setattr(backend, "epoch_is_one_dispatch", lambda: True)
    first, second = states()
    chex.assert_trees_all_close((first, second), (reference[2], reference[5]), rtol=1e-4, atol=1e-5)
    rest = states(state=jax.device_put(reference[1]))
    chex.assert_trees_all_close(rest, [first, second], rtol=1e-4, atol=1e-5)


def test_the_average_follows_the_parameters(reference):
    assert equal(reference[-1].average, reference[-1].params)
    averaged = states(CONFIG.replace(average_decay=0.5))[-1]
    assert equal(averaged.params, reference[-1].params)
    assert not equal(averaged.average, averaged.params)


def test_the_loop_transfers_nothing():
    """Every step of ``run`` passes a guard, which does refuse a step that is handed host data."""
    advance = training.make_advance(CONFIG, 6, backend.mesh())
    state, key = start(), jax.random.key(0)
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(Exception, match="Disallowed host-to-device transfer"),
    ):
        advance(state, IMAGES[:10], key)  # images that are on the host


def test_loss_falls_and_epoch_means_are_means():
    config = CONFIG.replace(epochs=30, learning_rate=1e-2)
    losses, means = [], []
    for at in training.run(config, start(config), IMAGES):
        losses.append(at.metrics["loss"])
        if at.step % 3 == 0:
            means.append(training.epoch_means(at.state, 3)["loss"])
    assert means[-1] < 0.97 * means[0]
    assert len(losses) == 90


def test_a_loss_that_is_not_finite_stops_the_run():
    state = start()
    broken = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), state.params)
    with pytest.raises(TrainingError, match="loss became nan at about step 1; the last checkpoint"):
        states(state=state._replace(params=broken))


def test_fewer_images_than_a_batch_is_an_error():
    with pytest.raises(TrainingError, match="35 training images do not fill one batch of 36"):
        training.steps_per_epoch(CONFIG.replace(batch_size=36).train, 35)


def test_cosine_schedule_warms_up_and_ends_at_zero():
    config = CONFIG.replace(schedule="cosine", learning_rate=0.5).train
    rate = training.learning_rate(config, 1000)
    assert float(rate(0)) == 0
    assert float(rate(100)) == 0.5
    assert float(rate(1000)) == pytest.approx(0, abs=1e-8)
