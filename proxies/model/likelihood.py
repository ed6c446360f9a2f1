"""Log-likelihood of tokens under every model of a pack, in one pass.

Batches are small on a CPU and each model answers them in turn: a thousand tokens of one model stay
in a core's cache, and four thousand cost more than twice as much per token (docs/results).
Elsewhere all models answer at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cuvee.proxies.model.grouped_matmul import grouped_matmul
from cuvee.proxies.model.layers import Branches
from cuvee.proxies.model.loss import chunk_tokens, models_together
from cuvee.proxies.model.prefix_tree import (
    PrefixTreeBatch,
    Tokens,
    grow_prefix_tree,
    prefix_tree_batches,
)
from cuvee.proxies.model.transformer import PackModel

CPU_BATCH = 1024  # input tokens of one model at once
BATCH = 1 << 18  # input tokens of all models at once, elsewhere


class PackLikelihood:
    """K trained models that score the same sequences.

    The blocks run in the model's own precision. Logits are float32 always: scores are compared
    across mixtures whose difference is small.

    Args:
        model: the pack.
        keep: positions on the model axis that score; all when None.
    """

    def __init__(self, model: PackModel, keep: list[int] | None = None) -> None:
        self.model = model
        self.keep = list(range(model.models)) if keep is None else keep
        self.models = len(self.keep)
        self.context = model.size.context

    @torch.no_grad()
    def answer(
        self, contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]]
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of answers, each after its context.

        Args:
            contexts: C sequences of at least one token.
            answers: for each context its answers, of at least one token; a context and an answer
                are at most `context` + 1 tokens.

        Returns:
            log p(answer | context) in nats, (K, R) float64, for all answers in their order; and
            whether each of its tokens was the most probable (K, R) bool. On the CPU.

        Raises:
            ValueError: something is empty or too long.
        """
        for context, some in zip(contexts, answers, strict=True):
            longest = max((len(answer) for answer in some), default=1)
            if not context or not all(some) or len(context) + longest > self.context + 1:
                raise ValueError(
                    f"a context of {len(context)} tokens and answers of up to {longest}; this pack "
                    f"scores 2 to {self.context + 1} tokens, and answers of at least one"
                )
        total = sum(len(some) for some in answers)
        nats = torch.zeros(self.models * total, dtype=torch.float64, device=self.model.device)
        misses = torch.zeros_like(nats)
        lines = torch.arange(self.models, device=self.model.device)[:, None] * total
        for forest in prefix_tree_batches(
            grow_prefix_tree(contexts, answers, self.context), self._budget()
        ):
            logs, best = self._ask(forest)
            # flat, because index_add_ over the columns of a matrix adds them one call at a time
            places = (lines + forest.owners.to(self.model.device)).reshape(-1)
            nats.index_add_(0, places, logs.double().reshape(-1))
            misses.index_add_(0, places, (~best).double().reshape(-1))
        shape = (self.models, total)
        return nats.view(shape).cpu(), (misses == 0).view(shape).cpu()

    @torch.no_grad()
    def token_statistics(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Log-probabilities of the next tokens, among those of all that could have stood there.

        Args:
            tokens: (B, T) int64, right-padded, T at most `context` + 1.
            lengths: (B,) tokens of each sequence.

        Returns:
            log p(token[t+1] | tokens[..t]) in nats (K, B, T-1) float32; whether token[t+1] was the
            most probable (bool); mean and standard deviation of log p over the vocabulary, each
            token weighted by its probability. 0 where padded. On the CPU.

        Raises:
            ValueError: the sequences are longer than the context, or shorter than two tokens.
        """
        if not 2 <= tokens.shape[1] <= self.context + 1:
            raise ValueError(
                f"sequences of {tokens.shape[1]} tokens; this pack scores 2 to {self.context + 1}"
            )
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        every = torch.arange(targets.numel())
        plain = PrefixTreeBatch(inputs, None, None, every, every, targets.reshape(-1), every)
        kept = torch.arange(targets.shape[1]) + 1 < lengths[:, None].cpu()
        shape = (self.models, *targets.shape)
        return tuple(
            x.view(shape).cpu().masked_fill(~kept, 0) for x in self._ask(plain, moments=True)
        )

    def _ask(self, forest: PrefixTreeBatch, moments: bool = False) -> tuple[Tensor, ...]:
        """Log-probabilities (K, S) and hits (K, S) of a batch's scored tokens, and moments."""
        device = self.model.device
        tokens_BT = forest.tokens.to(device)
        sources, first = forest.sources.to(device), forest.first
        head = self.model.head
        groups = [slice(0, self.model.models)]
        if device == "cpu":
            groups = [slice(k, k + 1) for k in self.keep]
        parts = []
        branches = self._branches(forest, groups[0].stop - groups[0].start)
        for members in groups:
            tokens_KBT = tokens_BT.expand(members.stop - members.start, -1, -1)
            hidden = self.model.hidden(
                tokens_KBT, members=members, branches=branches, at=sources, first=first
            )
            parts.append(_predicted(hidden.float(), head[members].float(), forest, moments))
        found = tuple(torch.cat(values) for values in zip(*parts, strict=True))
        return found if device == "cpu" else tuple(values[self.keep] for values in found)

    def _budget(self) -> int:
        """Input tokens of one model that are computed at once."""
        if self.model.device == "cpu":
            return max(self.context, CPU_BATCH)
        return max(self.context, BATCH // self.model.models)

    def _branches(self, forest: PrefixTreeBatch, models: int) -> Branches | None:
        """What tokens see in a batch that branches, for so many models at once."""
        if forest.positions is None or forest.ends is None:
            return None
        positions, ends = (
            x.to(self.model.device).repeat(models, 1) for x in (forest.positions, forest.ends)
        )
        return Branches.build(self.model.rotary, positions, ends)


def _predicted(
    hidden_KUD: Tensor, head_KDV: Tensor, forest: PrefixTreeBatch, moments: bool = False
) -> tuple[Tensor, ...]:
    """Log-probability of each target (K, S) and whether none was higher (K, S); in chunks of U.

    With moments: also mean and standard deviation (K, S) of log p over the vocabulary.
    """
    models, total, _ = hidden_KUD.shape
    device, vocabulary = hidden_KUD.device, head_KDV.shape[-1]
    wide = models_together(hidden_KUD, vocabulary, hidden_KUD.element_size())
    if wide < models:
        groups = [slice(k, k + wide) for k in range(0, models, wide)]
        found = [_predicted(hidden_KUD[k], head_KDV[k], forest, moments) for k in groups]
        return tuple(torch.cat(values) for values in zip(*found, strict=True))
    logs = torch.empty(models, len(forest.rows), dtype=torch.float32, device=device)
    best = torch.empty(models, len(forest.rows), dtype=torch.bool, device=device)
    mean, deviation = (torch.empty_like(logs) for _ in range(2))
    rows, targets = forest.rows.to(device), forest.targets.to(device)
    size = chunk_tokens(hidden_KUD, vocabulary)
    starts = range(0, total, size)
    stops = torch.searchsorted(forest.rows, torch.tensor([*starts[1:], total])).tolist()
    for start, begin, end in zip(starts, [0, *stops], stops, strict=False):
        all_KuV = grouped_matmul(hidden_KUD[:, start : start + size], head_KDV)
        torch.log_softmax(all_KuV, -1, out=all_KuV)
        row, part = rows[begin:end] - start, slice(begin, end)
        logs[:, part] = all_KuV[:, row, targets[part]]
        best[:, part] = logs[:, part] >= all_KuV.amax(-1)[:, row]
        if moments:
            p_KuV = all_KuV.exp()
            mean_Ku = (p_KuV * all_KuV).sum(-1)
            square_Ku = (p_KuV * (all_KuV - mean_Ku[..., None]).square_()).sum(-1)
            mean[:, part], deviation[:, part] = mean_Ku[:, row], square_Ku.sqrt()[:, row]
    return (logs, best, mean, deviation) if moments else (logs, best)
