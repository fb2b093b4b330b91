"""What building with somebody else's published weights needs: no unpickling, and a clear word when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from secateur._errors import SecateurError, WeightsError

NETWORK = ("urllib", "httpx", "httpcore", "requests", "huggingface_hub", "http", "ssl", "socket")
ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def published_weights(name: str) -> Iterator[None]:
    """Within, ``torch.load`` reads tensors only, and what goes wrong becomes a :class:`WeightsError`.

    Both libraries fetch their weights with helpers whose default would run what a pickle says.
    """
    before = os.environ.get(ONLY_TENSORS)
    os.environ[ONLY_TENSORS] = "1"
    try:
        yield
    except SecateurError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK:
            fact = f"the pretrained weights of {name!r} could not be fetched; is there a network?"
        else:
            fact = f"the pretrained weights of {name!r} could not be loaded"
        raise WeightsError(
            f"{fact}\n{type(error).__name__}: {error}\n"
            "leave --pretrained away, or give a file that you have: --weights FILE.safetensors"
        ) from error
    finally:
        if before is None:
            del os.environ[ONLY_TENSORS]
        else:
            os.environ[ONLY_TENSORS] = before
