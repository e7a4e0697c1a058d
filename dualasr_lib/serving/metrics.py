"""What a server counts, for Prometheus and for its tests."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dualasr_lib.decoding.events import Final

__all__ = ["Metrics"]

_SECONDS = (
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.12,
    0.16,
    0.2,
    0.24,
    0.28,
    0.32,
    0.5,
    0.75,
    1.0,
    1.5,
    2.5,
    5.0,
    10.0,
)
_SHARED = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.streams = Gauge("dualasr_streams_open", "Live streams", registry=registry)
        self.uploads = Gauge("dualasr_uploads_open", "Recordings under way", registry=registry)
        self.refused = Counter("dualasr_refused", "Requests", ["reason"], registry=registry)
        self.closed = Counter(
            "dualasr_closed", "Live streams that have ended", ["reason"], registry=registry
        )
        self.finals = Counter(
            "dualasr_finals",
            "Sentences, by the pass that wrote them",
            ["number"],
            registry=registry,
        )
        self.audio = Counter("dualasr_audio_seconds", "Audio heard", registry=registry)
        self.compute = Counter(
            "dualasr_compute_seconds", "Steps of the model and second passes", registry=registry
        )
        self.real_time_factor = Gauge(
            "dualasr_real_time_factor", "Computing per second of audio so far", registry=registry
        )
        self.restarts = Counter(
            "dualasr_worker_restarts", "Decoding processes that were lost", registry=registry
        )
        self.batch = self._histogram("dualasr_batch_streams", "Streams of a step", _SHARED)
        self.chunk = self._histogram("dualasr_chunk_seconds", "A step of all ready streams")
        self.second_pass = self._histogram("dualasr_second_pass_seconds", "Rewriting a sentence")
        self.queue = self._histogram(
            "dualasr_queue_seconds", "Audio of a stream that was still unheard after a step"
        )
        self._audio = self._compute = 0.0

    def heard(self, seconds: float) -> None:
        """More audio was heard."""
        self.audio.inc(seconds)
        self._audio += seconds
        self._rate()

    def stepped(self, seconds: float, streams: int) -> None:
        """A step of the model for so many streams."""
        self.chunk.observe(seconds)
        self.batch.observe(streams)
        self._computed(seconds)

    def finished(self, final: Final) -> None:
        """A sentence is over."""
        is_done = final.second_pass == "done"
        self.finals.labels("2" if is_done else "1").inc()
        if is_done:
            self.second_pass.observe(final.finalise_seconds)
            self._computed(final.finalise_seconds)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def _computed(self, seconds: float) -> None:
        self.compute.inc(seconds)
        self._compute += seconds
        self._rate()

    def _rate(self) -> None:
        if self._audio:
            self.real_time_factor.set(self._compute / self._audio)
