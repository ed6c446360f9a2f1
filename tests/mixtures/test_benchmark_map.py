"""From bits per byte to accuracy: recovered where data support it, refused where they do not."""

import numpy as np
import pytest

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import benchmark_map


def runs(n=40, items=2000, low=0.6, high=1.4, seed=0):
    """Accuracies of runs on a task with four choices."""
    rng = np.random.default_rng(seed)
    bits = rng.uniform(low, high, n)
    truth = curve(bits)
    error = np.sqrt(truth * (1 - truth) / items)
    return bits, rng.binomial(items, truth) / items, error


def curve(bits):
    return 0.25 + 0.6 / (1 + np.exp(8 * (bits - 0.9)))


def test_a_known_sigmoid_is_recovered_with_its_error():
    """Catches a floor that is not chance, and a slope of the wrong sign."""
    found = benchmark_map.fit_map(*runs(), chance=0.25)
    x = np.linspace(0.65, 1.35, 20)
    mean, sd = found.predict(x)
    assert np.abs(mean - curve(x)).max() < 0.03
    assert np.mean(np.abs(mean - curve(x)) <= 2 * sd) > 0.8 and sd.max() < 0.08


def test_guessing_is_not_mapped():
    """Proxies at chance: catches a forecast of accuracy from noise."""
    bits, accuracy, error = runs(low=1.8, high=2.4, items=200)
    with pytest.raises(EvidenceError, match="within the noise of chance"):
        benchmark_map.fit_map(bits, accuracy, error, chance=0.25)


def test_accuracy_that_rises_with_the_loss_is_refused():
    bits, accuracy, error = runs()
    with pytest.raises(EvidenceError, match="does not fall"):
        benchmark_map.fit_map(-bits, accuracy, error, chance=0.25)


def test_losses_far_from_those_seen_are_refused():
    found = benchmark_map.fit_map(*runs(low=0.8, high=1.0), chance=0.25)
    with pytest.raises(EvidenceError, match="too far"):
        found.predict(np.array([0.4]))
