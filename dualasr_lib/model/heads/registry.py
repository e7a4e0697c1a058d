"""Which heads there are, and which of them each branch has.

A new head is one file beside this one, a line in `HEADS`, a field of `HeadsConfig` if it has
options, and a weight in `loss.heads`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dualasr_lib.model.attention_decoder import DecoderConfig
from dualasr_lib.model.heads.attention import AttentionHead
from dualasr_lib.model.heads.contract import Head
from dualasr_lib.model.heads.ctc import CtcHead, CtcHeadConfig
from dualasr_lib.model.heads.transducer import TransducerHead, TransducerHeadConfig

__all__ = ["HEADS", "HeadsConfig", "check_heads"]

HEADS: dict[str, type[Head]] = {
    head.name: head for head in (CtcHead, AttentionHead, TransducerHead)
}
"""By name. The order is that in which heads are built and logged; the first one of a branch gives
the texts of validation."""


def check_heads(names: Iterable[str], what: str) -> None:
    """ValueError unless all names are those of heads."""
    for name in names:
        if name not in HEADS:
            raise ValueError(
                f"{what} must name heads ({', '.join(HEADS)}), but there is no head {name!r}"
            )


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """The heads of each branch, and the sizes of each head."""

    streaming: tuple[str, ...] = ("ctc", "attention")
    """Heads of the streaming branch: any, at least one."""
    full: tuple[str, ...] = ("ctc", "attention")
    """Heads of the full-context branch: any, at least one."""
    shared: tuple[str, ...] = ()
    """Heads that are one set of weights for both branches, where both have them."""
    ctc: CtcHeadConfig = field(default_factory=CtcHeadConfig)
    """Each CTC head."""
    attention: DecoderConfig = field(default_factory=DecoderConfig)
    """Each attention decoder."""
    transducer: TransducerHeadConfig = field(default_factory=TransducerHeadConfig)
    """Each transducer."""

    def __post_init__(self) -> None:
        for name in ("streaming", "full", "shared"):
            heads: Sequence[str] = getattr(self, name)
            check_heads(heads, name)
            if len(set(heads)) != len(heads):
                raise ValueError(f"{name} must name each head once, but is {list(heads)}")
        if not self.streaming or not self.full:
            raise ValueError(
                "each branch must have at least one head, but streaming has "
                f"{list(self.streaming)} and full {list(self.full)}"
            )

        if self.shared and not set(self.shared) & set(self.streaming) & set(self.full):
            raise ValueError(
                f"shared must name a head of both branches, but none of {list(self.shared)} is "
                f"both in streaming = {list(self.streaming)} and in full = {list(self.full)}"
            )

    def of(self, branch: str) -> tuple[str, ...]:
        """The heads of a branch, in the order of `HEADS`."""
        listed: tuple[str, ...] = getattr(self, branch)
        return tuple(name for name in HEADS if name in listed)

    def owner(self, head: str, branch: str) -> str:
        """Whose weights a branch's head has: "shared", or the branch."""
        both = head in self.streaming and head in self.full
        return "shared" if both and head in self.shared else branch
