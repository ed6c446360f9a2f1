"""Log-likelihood of token sequences under every model of a pack, in one pass."""

import torch
from torch import Tensor

from proxies.loss import chunk
from proxies.model import Model
from proxies.products import product


class PackLikelihood:
    """K trained models that score the same sequences.

    The blocks run in the model's own precision. Logits are float32 always: scores are compared
    across mixtures whose difference is small.

    Args:
        model: the pack.
        keep: positions on the model axis that score; all when None.
    """

    def __init__(self, model: Model, keep: list[int] | None = None) -> None:
        self.model = model
        self.keep = list(range(model.models)) if keep is None else keep
        self.models = len(self.keep)
        self.context = model.rung.context

    @torch.no_grad()
    def score(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next tokens.

        Args:
            tokens: (B, T) int64, right-padded, T at most `context` + 1.
            lengths: (B,) tokens of each sequence.

        Returns:
            log p(token[t+1] | tokens[..t]) in nats (K, B, T-1) float32, 0 where padded; and whether
            token[t+1] was the most probable (K, B, T-1) bool, False where padded. On the CPU.

        Raises:
            ValueError: the sequences are longer than the context, or shorter than two tokens.
        """
        if not 2 <= tokens.shape[1] <= self.context + 1:
            raise ValueError(
                f"sequences of {tokens.shape[1]} tokens; this pack scores 2 to {self.context + 1}"
            )
        device = self.model.device
        inputs_BT, targets_BT = tokens[:, :-1].to(device), tokens[:, 1:].to(device)
        hidden = self.model.hidden(inputs_BT.expand(self.model.models, -1, -1)).float()
        head = self.model.parameters.named["head"].float()
        targets_N = targets_BT.reshape(-1)
        kept = (torch.arange(targets_BT.shape[1]) + 1 < lengths[:, None].cpu()).expand(
            self.models, -1, -1
        )
        logs, best = zip(
            *(_model(hidden[k, None], head[k, None], targets_N) for k in self.keep), strict=True
        )
        logs_KBT = torch.stack(logs).view(kept.shape).cpu()
        best_KBT = torch.stack(best).view(kept.shape).cpu()
        return logs_KBT.where(kept, 0.0), best_KBT & kept


def _model(hidden_1ND: Tensor, head_1DV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """One model's log-probabilities (N,) and hits (N,), logits in chunks."""
    logs = torch.empty(targets_N.shape, dtype=torch.float32, device=targets_N.device)
    best = torch.empty(targets_N.shape, dtype=torch.bool, device=targets_N.device)
    size = chunk(hidden_1ND, head_1DV.shape[-1])
    for start in range(0, len(targets_N), size):
        part = slice(start, start + size)
        logits = product(hidden_1ND[:, part], head_1DV)[0]
        chosen = logits.gather(1, targets_N[part, None])[:, 0]
        best[part] = logits.argmax(1) == targets_N[part]
        logs[part] = chosen - logits.logsumexp(1)
    return logs, best
