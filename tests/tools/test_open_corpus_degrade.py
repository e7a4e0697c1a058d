"""Damage to speech: levels, echoes, gaps, and that a seed decides it."""

import numpy as np
import pytest
from open_corpus.degrade import (
    CLEAN,
    RATE,
    Condition,
    apply,
    babble,
    dropouts,
    reverberate,
    room_response,
    speech_rms,
)


def _tone(seconds: float = 2.0, frequency: float = 440.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def test_clean_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(apply(_tone(), CLEAN.draw(rng), (), rng), _tone())


def test_babble_has_the_snr_of_the_active_speech() -> None:
    rng = np.random.default_rng(0)
    speech = np.concatenate([_tone(), np.zeros(2 * RATE, np.float32)])
    pool = [rng.normal(size=RATE).astype(np.float32) for _ in range(3)]
    damage = Condition(name="b", babble_snr=(12.0, 12.0)).draw(rng)
    noise = apply(speech, damage, pool, rng) - speech
    snr = 20 * np.log10(speech_rms(speech) / np.sqrt(np.mean(noise**2)))
    assert snr == pytest.approx(12.0, abs=0.2)
    assert speech_rms(speech) == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_babble_needs_other_talkers() -> None:
    with pytest.raises(ValueError, match="pool"):
        babble(100, [], np.random.default_rng(0))


def test_room_response_has_its_time_and_ratio() -> None:
    response = room_response(0.5, 3.0, np.random.default_rng(0))
    tail = response[1:].astype(np.float64)
    assert response[0] == pytest.approx(1.0, abs=0.1)
    assert 10 * np.log10(1 / (tail**2).sum()) == pytest.approx(3.0, abs=0.3)
    early, late = tail[1600:2400], tail[4800:5600]  # 0.2 s apart: 24 dB at 0.5 s for 60 dB
    assert 10 * np.log10((early**2).sum() / (late**2).sum()) == pytest.approx(24.0, abs=2.0)


def test_reverberation_is_a_convolution_at_the_same_power() -> None:
    rng = np.random.default_rng(0)
    speech, response = rng.normal(size=3000).astype(np.float32), room_response(0.2, 0.0, rng)
    wet = reverberate(speech, response)
    slow = np.convolve(speech, response)[:3000]
    slow *= np.sqrt((speech**2).mean() / (slow**2).mean())
    np.testing.assert_allclose(wet, slow, atol=1e-3)


def test_dropouts_are_gaps_of_the_given_length() -> None:
    speech = np.ones(60 * RATE, np.float32)
    damaged = dropouts(speech, 0.5, np.random.default_rng(0))
    edges = np.flatnonzero(np.diff(damaged))
    edges = edges[: len(edges) // 2 * 2]  # the last gap may go on to the end
    lengths = (edges[1::2] - edges[::2]) / RATE
    assert set(np.unique(damaged)) == {np.float32(0.01), np.float32(1.0)}
    assert lengths.min() >= 0.079 and lengths.max() <= 0.251
    assert 15 <= len(lengths) <= 45


def test_drawing_needs_the_same_numbers_whatever_the_condition() -> None:
    full = Condition(name="x", t60=(0.3, 0.5), babble_snr=(5.0, 20.0), dropout_rate=1.0)
    states = []
    for condition in (CLEAN, full):
        rng = np.random.default_rng(3)
        damage = condition.draw(rng)
        states.append(rng.random())
    assert states[0] == states[1]
    assert damage.t60_s is not None and 0.3 <= damage.t60_s <= 0.5
    assert damage.babble_snr_db is not None and 5 <= damage.babble_snr_db <= 20
