"""A run in a workdir, as a person starts it: real processes, real signals, real damage."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT

from cvae_jax import codec
from cvae_jax.config import Config
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import CheckpointError, ConfigError, TrainingError
from cvae_jax.runs import checkpoint, run, saved, tables
from cvae_jax.runs.find import find
from cvae_jax.runs.run.keeper import METRICS

CONFIG = Config().replace(
    height=12, width=12, latent_dim=2, filters=(2,), dense_width=4, epochs=6, batch_size=8
)
IMAGES = np.zeros((48, 12, 12, 1), np.uint8)
IMAGES[:, 3:9, 3:9] = np.random.default_rng(0).integers(100, 256, (48, 1, 1, 1))
DATA = TrainingData.split("squares", IMAGES[:40], IMAGES[40:], 0.1)
FLAGS = ["--preset", "original", "--latent_dim", "2", "--filters", "2", "--dense_width", "4"]
FLAGS += ["--epochs", "6", "--batch_size", "8", "--validation_fraction", "0.1"]


def trained(workdir, config=CONFIG, data=DATA, **options):
    said = []
    best = run.train(config, data, workdir, say=said.append, **options)
    return best, said


def stored(workdir):
    """Every array and the step's metrics of the last checkpoint, and all of metrics.jsonl."""
    last = saved.steps(workdir)[-1]
    state = run.training.init_state(CONFIG, 24)
    items = {"params": state.average, "optimizer": state._replace(average={})._asdict()}
    rows = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second")
    return checkpoint.restore(last, items), checkpoint.read_config(last)["results"], rows


def assert_same_run(a, b):
    jax.tree.map(np.testing.assert_array_equal, stored(a)[0], stored(b)[0])
    assert stored(a)[1:] == stored(b)[1:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    trained(workdir)
    return workdir


@pytest.fixture
def stopped(whole, tmp_path):
    """The same run as it was after five of its six epochs."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(saved.steps(workdir)[-1])
    return workdir


def test_validation_images_are_carved_from_train_and_always_the_same():
    numbers = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    one, two = (TrainingData.split("n", numbers, numbers[:3], 0.2) for _ in "ab")
    assert len(one.validation) == 20
    assert sorted([*one.train.ravel(), *one.validation.ravel()]) == list(range(100))
    np.testing.assert_array_equal(one.validation, two.validation)
    changed = numbers.copy()
    changed[50] += 1
    other = TrainingData.split("n", changed, numbers[:3], 0.2)
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_leaves_what_it_promises(whole):
    steps = saved.steps(whole)
    assert [step.name for step in steps][-3:] == ["00000016", "00000020", "00000024"]
    record = checkpoint.read_config(steps[-1])
    assert Config.from_dict(record["config"]) == CONFIG
    assert record["dataset"]["name"] == "squares"
    assert re.fullmatch("[0-9a-f]{64}", record["dataset"]["fingerprint"])
    assert record["dataset"]["images"] == {"train": 36, "validation": 4, "test": 8}
    assert record["versions"].keys() >= {"jax", "flax", "orbax-checkpoint"}
    rows = stored(whole)[2]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].keys() == {"step", "epoch", "loss", "bce", "kl", "validation_loss"}
    for picture in ("loss_curves", "reconstructions", "samples"):
        assert (whole / f"{picture}.png").stat().st_size > 1000


def test_the_best_is_the_lowest_validation_loss(whole):
    best = saved.best(whole)
    losses = {row["step"]: row["validation_loss"] for row in stored(whole)[2]}
    assert int(best.path.name) == min(losses, key=losses.get)


def test_goes_on_exactly(whole, stopped):
    _, said = trained(stopped)
    assert "resuming from" in said[0]
    assert_same_run(stopped, whole)


@pytest.mark.parametrize("damage", ["flip", "empty"])
def test_a_damaged_newest_checkpoint_is_passed_over(whole, stopped, damage):
    newest = saved.steps(stopped)[-1]
    file = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        (newest.parent / "00000099").mkdir()
    _, said = trained(stopped)
    assert said[0].startswith("warning: ")
    assert said[1].endswith("00000020" if damage == "empty" else "00000016")
    assert_same_run(stopped, whole)


def test_another_configuration_is_refused_by_the_names_of_its_fields(whole):
    with pytest.raises(ConfigError, match=r"beta is 1\.0 there and 2\.0 here; epochs is 6 .* 7"):
        trained(whole, CONFIG.replace(beta=2.0, epochs=7))
    other = TrainingData.split("squares", IMAGES[:40] // 2, IMAGES[40:], 0.1)
    with pytest.raises(ConfigError, match="dataset fingerprint"):
        trained(whole, data=other)


def test_fresh_starts_again(stopped):
    other = CONFIG.replace(beta=2.0, epochs=1)
    _, said = trained(stopped, other, fresh=True)
    assert not any("resuming" in line for line in said)
    assert [step.name for step in saved.steps(stopped)] == ["00000004"]
    assert len(stored(stopped)[2]) == 1


def test_fresh_deletes_nothing_for_a_run_that_cannot_start(stopped):
    before = saved.steps(stopped)
    with pytest.raises(TrainingError, match="do not fill one batch of 100"):
        trained(stopped, CONFIG.replace(batch_size=100, schedule="cosine"), fresh=True)
    assert saved.steps(stopped) == before


def test_an_unusable_workdir_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/run: Not a dir"):
        trained(tmp_path / "file" / "run")


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path):
    with (
        run.alone(tmp_path),
        pytest.raises(ConfigError, match="another run is using"),
    ):
        trained(tmp_path)
    trained(tmp_path, CONFIG.replace(epochs=1))


def test_parameters_that_diverge_in_the_last_update_are_never_saved(tmp_path):
    """One step an epoch: its loss is finite, what it leads to is not."""
    with pytest.raises(TrainingError, match="the last checkpoint is kept"):
        trained(tmp_path, CONFIG.replace(batch_size=36, learning_rate=1e30))
    assert saved.steps(tmp_path) == []
    assert (tmp_path / METRICS).read_text() == ""


def test_the_workdirs_dataset_is_known(whole, tmp_path):
    assert run.recorded_dataset(whole) == "squares"
    assert run.recorded_dataset(tmp_path) is None


def test_tensorboard_events_hold_the_metrics(tmp_path):
    trained(tmp_path, CONFIG.replace(epochs=1), tensorboard=True)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"validation_loss" in events.read_bytes()


@pytest.fixture
def command(tmp_path):
    np.savez(tmp_path / "squares.npz", train=IMAGES[:40], test=IMAGES[40:])
    return [sys.executable, "train.py", "--dataset", str(tmp_path / "squares.npz"), *FLAGS]


def started(command, workdir):
    return subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_steps(workdir, count, process):
    deadline = time.monotonic() + 120
    while len(list(workdir.glob("steps/0*"))) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_stopped_and_finished_is_a_run_never_stopped(command, tmp_path):
    """``kill -9`` in the midst, then SIGTERM, then to the end; compared with one straight run."""
    command += ["--epochs", "40"]
    cut, straight = tmp_path / "cut", tmp_path / "straight"
    process = started(command, cut)
    wait_for_steps(cut, 2, process)
    process.kill()
    process.communicate()

    assert len(saved.steps(cut)) >= 1
    process = started(command, cut)
    while "resuming" not in process.stdout.readline():
        assert process.poll() is None
    before = (cut / METRICS).stat().st_size
    while (cut / METRICS).stat().st_size <= before:  # until it has finished another epoch
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have been done already
        assert process.returncode == 128 + signal.SIGTERM
        assert "stopped by SIGTERM at step" in output
        assert "Traceback" not in output

    for workdir in (cut, straight):
        process = started(command, workdir)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    assert "-ELBO, nats" in output
    assert_same_run(cut, straight)


def test_a_loss_gone_wrong_is_one_line_and_keeps_the_checkpoints(command, tmp_path):
    process = started([*command, "--learning_rate", "1e30"], tmp_path / "run")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"^error: the loss became (nan|inf) at about step", output, re.MULTILINE)
    assert "Traceback" not in output


def test_a_finished_run_can_write_files(whole):
    c = codec.load(whole)
    assert c.tables.latent_dim == 2
    decoded = c.decompress(c.compress(DATA.test))
    symbols, step = c.encode_symbols(DATA.test)
    assert np.array_equal(decoded, c.decode_symbols(symbols, step))


def test_calibrating_again_gives_the_same_tables(whole, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    before = codec.load(workdir).identity
    assert tables.make(find(workdir), DATA.train).identity == before
    assert codec.load(workdir).identity == before
