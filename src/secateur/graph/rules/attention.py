"""Attention as one operation: two products with a softmax between them.

PyTorch runs it in some twenty steps. Those of them that read across units bear their own names where a masked model has
to find them (``Site``).
"""

from __future__ import annotations

import math

from torch import Tensor

from secateur.graph.labels import FIXED, Labels, broadcast, laid, line, reshaped, varying
from secateur.graph.ledger import AxisRef, Ledger, Term
from secateur.graph.rules.combinations import constant_met
from secateur.graph.rules.contractions import in_batches
from secateur.graph.rules.registry import explaining, rule


@rule("scaled_dot_product_attention")
@explaining
def attention(run, func, args, kwargs, out) -> None:
    """``softmax(query @ key.T + mask) @ value`` over equal leading axes; ``key`` is (..., s, k) as it is given."""
    query, key, value, mask, _, causal = args
    # What was learned instead of computed is attended to all the same.
    q, k, v = (run.labels(t)._replace(is_weight=False) for t in (query, key, value))
    if _by_heads(run, func, (q, k, v), query, key, mask, out):
        return
    shape = (*query.shape[:-1], key.shape[-2])
    scores = in_batches(run, func, q, query.shape, k, key.shape, turned=True)
    if mask is not None or causal:
        own = (FIXED, shape[-2:]) if mask is None else (run.labels(mask), mask.shape)
        scores = run.ledger.meet([(Labels(scores), shape), own], shape, run.where(func))
        if mask is not None:
            constant_met(run, mask, scores, len(shape))
    # Of three axes PyTorch makes four before it begins.
    missing = max(0, 4 - len(shape))
    compared = [broadcast(s, (*(1,) * missing, *shape)) for s in scores]
    run.reads_inside("_safe_softmax", 0, compared, [len(shape) + missing - 1])
    run.set(out, Labels(in_batches(run, func, Labels(scores), shape, v, value.shape)))


def _by_heads(
    run, func, given: tuple[Labels, ...], query: Tensor, key: Tensor, mask: Tensor | None, out: Tensor
) -> bool:
    """The frequent case, in fewer steps: units lie on heads and on their widths, and no mask tells heads apart."""
    if any(len(labels.systems) != 1 or labels.is_uniform for labels in given):
        return False
    (q,), (k,), (v,) = (labels.systems for labels in given)
    own, last = varying(q), query.dim() - 1
    heads = own[:-1]
    if not own == varying(k) == varying(v) or own[-1] != last or not heads or heads[-1] == last - 1:
        return False
    lead = query.dim() - mask.dim() if mask is not None else 0
    if mask is not None and (run.labels(mask).systems or any(a >= lead and mask.shape[a - lead] > 1 for a in heads)):
        return False
    ledger: Ledger = run.ledger
    where = run.where(func)
    run.reads_inside("bmm", 0, [reshaped(q, (math.prod(query.shape[:-2]), *query.shape[-2:]))], [2])
    run.reads_inside("_safe_softmax", 0, (), [])
    run.reads_inside("bmm", 0, (), [])
    ledger.tie(line(q), line(k), where)
    ledger.tie(line(ledger.project(q, heads, batch=True)), line(ledger.project(v, heads, batch=True)), where)
    positions = [AxisRef(n) for n in (query.shape[-2], key.shape[-2]) if n != 1]
    for system in (q, v):
        units = [ledger.axis([system], a, n) for a, n in enumerate(system.shape) if n != 1 and a != last - 1]
        ledger.terms.append(Term(run.module, 1, (*units, *positions)))
    run.set(out, Labels((v if v.shape == out.shape else laid(v, own, out.shape),)))
    return True
