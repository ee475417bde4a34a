"""SDPO (arXiv 2601.20802): generalised Jensen-Shannon divergence over the student's likeliest tokens and the rest."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from egrsd_jax.objective.method import Method
from egrsd_jax.objective.settings import Divergence, DivergenceSettings, Schedule
from egrsd_jax.ranges import Range, at_least, require

if TYPE_CHECKING:
    import jax

    from egrsd_jax.objective.signals import Signals


@dataclass(frozen=True, kw_only=True)
class SdpoSettings(DivergenceSettings):
    """As published; the teacher is an average of the student at rate 0.05.

    Args:
        top_k: tokens that a divergence is taken over; all where the vocabulary has no more.
        over: what the divergence is taken over: the student's `top` tokens, or the `sampled` token alone, whose
            log q - log p estimates reverse KL.
        rest: the tokens outside of the top are one entry more (bucket), or both distributions are restricted to the top
            (renormalise).
        ratio_cap: a token's loss is multiplied by the student's probability over the sampler's, at most this; 0 leaves
            it out.
    """

    name: str = field(init=False, default="sdpo")
    teacher: Schedule = "ema"
    teacher_decay: float = 0.95
    beta: float = 0.5
    top_k: int = 100
    over: Literal["top", "sampled"] = "top"
    rest: Literal["bucket", "renormalise"] = "bucket"
    ratio_cap: float = 0.0

    ranges: ClassVar[dict[str, Range]] = {
        "top_k": at_least(1),
        "ratio_cap": at_least(0).noted("0 leaves the ratio out"),
    }

    def __post_init__(self):
        super().__post_init__()
        require(
            (
                self.over == "top" or self.beta == 1,
                f"method.over sampled estimates reverse KL, which is method.beta 1, and it is {self.beta}",
            )
        )

    @property
    def divergence(self) -> Divergence | None:
        """Over the student's likeliest tokens, with the rest or without; none for the sampled token alone."""
        if self.over == "sampled":
            return None
        return Divergence("student_top", self.beta, top_k=self.top_k, renormalised=self.rest == "renormalise")


def token_loss(signals: "Signals", settings: SdpoSettings) -> "jax.Array":
    """The divergence at every token, or `-delta log p_S`, times what its completion and its ratio count, [B, T]."""
    import jax
    import jax.numpy as jnp

    loss_BT = -signals.delta_BT * signals.student_logp_BT if settings.over == "sampled" else signals.divergence_BT
    loss_BT = signals.weight_B[:, None] * loss_BT
    if not settings.ratio_cap:
        return loss_BT
    ratio_BT = jnp.exp(jax.lax.stop_gradient(signals.student_logp_BT) - signals.sampled_logp_BT)
    return jnp.minimum(ratio_BT, jnp.float32(settings.ratio_cap)) * loss_BT


METHOD = Method(
    order=44,
    title="SDPO",
    description="SDPO (arXiv 2601.20802)",
    arxiv="2601.20802",
    formula="`(1 - β) KL(q ‖ m) + β KL(p ‖ m)` over q's `top_k` likeliest tokens and the mass of the rest",
    choices="the teacher reads the reference; `--method.privilege own` with 8 completions per problem shows it "
    "a correct one of the student's, as published, but no feedback of an environment",
    settings=SdpoSettings,
    token_loss=token_loss,
)
