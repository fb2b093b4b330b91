"""What ``shapes.py`` answers is what PyTorch answers, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from secateur.graph import shapes
from secateur.graph.shapes import SHAPES
from secateur.graph.trees import tensors

_ATEN = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


X, COLUMN = meta(2, 6, 8, 9), meta(2, 6, 1, 1)
PLACES = torch.tensor([[1, 0], [1, 1]], device="meta")
CHANNELS_LAST = X.to(memory_format=torch.channels_last)
PLAIN: list[tuple[Any, tuple]] = [
    (_ATEN.mean.dim, (X, [-1, -2], True)),
    (_ATEN.mean.dim, (X, [2, 3])),
    (_ATEN.sum.dim_IntList, (X, [1], True)),
    (_ATEN.mean.dim, (CHANNELS_LAST, [-1, -2], True)),
    (_ATEN.mean.dim, (X, [4])),
    (_ATEN.mean.dim, (X, [1, -3])),
    (_ATEN.mm.default, (meta(3, 4), meta(4, 5))),
    (_ATEN.mm.default, (meta(3, 4), meta(5, 4).t())),
    (_ATEN.mm.default, (meta(3, 4), meta(5, 4))),
    (_ATEN.addmm.default, (meta(5), meta(3, 4), meta(4, 5))),
    (_ATEN.addmm.default, (meta(4), meta(3, 4), meta(4, 5))),
    (_ATEN.addmm.default, (meta(3, 5), meta(3, 4), meta(4, 5))),
    (_ATEN.bmm.default, (meta(2, 3, 4), meta(2, 4, 5))),
    (_ATEN.bmm.default, (meta(2, 3, 4), meta(1, 4, 5))),
    *[
        (_ATEN.max_pool2d_with_indices.default, (X, [k, k], *rest))
        for k in (2, 3)
        for rest in ([], [[2, 2]], [[2, 1], [1, 1]], [[2, 2], [1, 1], [2, 1], True], [[3, 3], [0, 0], [1, 1], True])
    ],
    (_ATEN.max_pool2d_with_indices.default, (X, [3, 3], [2, 2], [2, 2])),
    (_ATEN.max_pool2d_with_indices.default, (X, [30, 3])),
    *[
        (_ATEN.avg_pool2d.default, (X, [3, 3], *rest))
        for rest in ([], [[2, 2]], [[2, 2], [1, 1]], [[2, 2], [1, 1], True], [[2, 2], [1, 1], True, False, 4])
    ],
    (_ATEN.cat.default, ([X, X, meta(2, 4, 8, 9)], 1)),
    (_ATEN.cat.default, ([COLUMN, COLUMN], -3)),
    (_ATEN.cat.default, ([X, CHANNELS_LAST], 1)),
    (_ATEN.cat.default, ([meta(0), X], 1)),
    (_ATEN.cat.default, ([X, meta(2, 4, 8, 8)], 1)),
    (_ATEN.cat.default, ([X, X.double()], 1)),
    *[
        (_ATEN.sin.default, (x,))
        for x in (X, X[..., 2:], X.transpose(1, 2)[..., 2:], X.mT[:, ::2], COLUMN.expand(2, 6, 8, 9))
    ],
    *[(_ATEN.neg.default, (x,)) for x in (X.permute(0, 3, 1, 2)[:, 1:4], meta(2, 1, 8).transpose(1, 2)[:, 1:])],
    *[(_ATEN.clone.default, (x,)) for x in (X, X.mT, X[:, 1:], COLUMN.expand(2, 6, 8, 9))],
    *[(_ATEN.index.Tensor, (x, [i])) for x in (X, X.mT, meta(5).long()) for i in (PLACES, PLACES.int(), PLACES > 1)],
    (_ATEN.index.Tensor, (X, [None, PLACES])),
    (_ATEN.index.Tensor, (X, [PLACES, PLACES])),
    *[(_ATEN._unsafe_view.default, (x, size)) for x in (X, X.mT) for size in ([12, 72], [12, -1], [11, 72])],
    *[(_ATEN.view.default, (X, size)) for size in ([12, 72], [12, -1])],
    (_ATEN.transpose.int, (X, 1, -1)),
    (_ATEN.permute.default, (X, [0, 2, 3, 1])),
    (_ATEN.expand.default, (COLUMN, [2, 6, 8, 9])),
    (_ATEN.unsqueeze.default, (X, 1)),
    (_ATEN.t.default, (meta(2, 3),)),
    (_ATEN.roll.default, (X, [1, 2], [2, 3])),
    (_ATEN.roll.default, (X, [1])),
    (_ATEN.masked_fill.Scalar, (X, meta(8, 9, dtype=torch.bool), 1.0)),
    (_ATEN.masked_fill_.Scalar, (X, meta(2, 6, 8, 1, dtype=torch.bool), 1.0)),
    (_ATEN.masked_fill.Scalar, (COLUMN, meta(8, 9, dtype=torch.bool), 1.0)),
    (_ATEN.native_group_norm.default, (X, meta(6), meta(6), 2, 6, 72, 3, 1e-5)),
    (_ATEN.native_group_norm.default, (X, None, None, 2, 6, 72, 4, 1e-5)),
    (_ATEN.native_layer_norm.default, (X, [9], meta(9), meta(9), 1e-5)),
    (_ATEN.mul.Tensor, (X, COLUMN)),
    (_ATEN.mul.Tensor, (meta(9), X)),
    (_ATEN.mul.Tensor, (COLUMN, meta(1, 1, 8, 9))),
    (_ATEN.add.Tensor, (X, X)),
    (_ATEN.add.Tensor, (X, meta(5))),
    (_ATEN.convolution.default, (X, meta(4, 3, 3, 3), meta(4), [2, 2], [1, 1], [1, 1], False, [0, 0], 2)),
    (_ATEN.convolution.default, (X, meta(4, 5, 3, 3), None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1)),
    (_ATEN.relu.default, (CHANNELS_LAST,)),
    (_ATEN._adaptive_avg_pool2d.default, (X, [3, 4])),
    *[
        (getattr(_ATEN, f"upsample_{how}2d").default, (x, size, *([] if how == "nearest" else [False])))
        for how in ("nearest", "bilinear", "bicubic")
        for x in (X, CHANNELS_LAST, COLUMN, meta(2, 1, 8, 9))
        for size in ([4, 5], [16, 18], [1, 1])
    ],
    (_ATEN.upsample_nearest2d.default, (X, [0, 5])),
    (_ATEN.upsample_bilinear2d.default, (X, [4, 5], True, 0.5, 0.5)),
    (_ATEN.embedding.default, (meta(7, 5), meta(2, 3, dtype=torch.int64))),
    (_ATEN.embedding.default, (meta(7, 5), meta(dtype=torch.int64), 1, False, False)),
    *[
        (_ATEN.where.self, (choice, x, y))
        for choice in (meta(8, 9, dtype=torch.bool), meta(2, 6, 8, 9, dtype=torch.bool), meta(8, 9))
        for x, y in (
            (X, X),
            (X, COLUMN),
            (COLUMN, X),
            (COLUMN, COLUMN),
            (CHANNELS_LAST, X),
            (X, meta()),
            (X, X.double()),
        )
    ],
    *[
        (_ATEN.neg.default, (x,))
        for x in (X[..., :4], X[..., 4:], X[:, :3], X[..., ::2], X[:, :, :1], X.transpose(1, 2)[..., :4], X[:, :1])
    ],
    *[(_ATEN.neg.default, (x,)) for x in (meta(3, 1).expand(3, 5), meta(4).expand(3, 4), X.as_strided((3, 4), (2, 1)))],
    (_ATEN.add.Tensor, (X[..., :4], X[..., 4:8])),
]


def layout(results: Any) -> list[tuple]:
    return [(t.shape, t.stride(), t.dtype, t.device) for t in tensors(results)]


@pytest.mark.parametrize(("func", "args"), PLAIN, ids=[str(k) for k in range(len(PLAIN))])
def test_an_answer_is_pytorchs(func: Any, args: tuple) -> None:
    name = func.overloadpacket.__name__
    answer = SHAPES[name](name, args, {})
    try:
        want = func(*args)
    except (RuntimeError, IndexError):
        assert answer is None
    else:
        assert answer is None or layout(answer) == layout(want)


def test_a_view_is_one_and_is_refused_as_pytorch_refuses_it() -> None:
    view = SHAPES["view"]
    assert view("view", (X, [12, 72]), {}).untyped_storage()._cdata == X.untyped_storage()._cdata
    with pytest.raises(RuntimeError, match="is invalid for input of size 864"):
        view("view", (X, [11, 72]), {})


def test_what_networks_ask_for_is_answered() -> None:
    answered = [
        func for func, args in PLAIN if SHAPES[name := func.overloadpacket.__name__](name, args, {}) is not None
    ]
    assert {f.overloadpacket.__name__ for f in answered} == {f.overloadpacket.__name__ for f, _ in PLAIN}


def test_blank_tensors_are_new_and_do_not_outlive_a_mode(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "_TEMPLATES", {})
    monkeypatch.setattr(shapes, "_MOST_TEMPLATES", 3)
    relu = SHAPES["relu"]
    with FakeTensorMode(), torch.device("meta"):
        assert type(relu("relu", (torch.empty(2, 3),), {})) is not torch.Tensor
    found = [relu("relu", (meta(n, 3),), {}) for n in (2, 2, 4, 5, 6, 7)]
    assert all(type(t) is torch.Tensor and t.is_meta and t.shape == (n, 3) for t, n in zip(found, (2, 2, 4, 5, 6, 7)))
    assert len({id(t) for t in found}) == len(found)
    assert found[0].untyped_storage()._cdata != found[1].untyped_storage()._cdata
    assert len(shapes._TEMPLATES) <= 3
