"""Named random streams of one seed."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from itertools import product

import numpy as np
import torch

from paretune.repro.seeding import make_repeatable, numpy_generator, stream_seed, torch_generator

STREAMS = ("init", "order", "dropout", "bootstrap")


def test_streams_are_distinct_and_fit_63_bits() -> None:
    """No two of seed, name and epoch share a seed."""
    all_of_them = [stream_seed(seed, name, epoch) for seed, name, epoch in product(range(20), STREAMS, range(5))]
    assert len(set(all_of_them)) == len(all_of_them)
    assert all(0 <= one < 2**63 for one in all_of_them)


def test_a_stream_is_pinned() -> None:
    """Published results rest on it: half of the first eight bytes of the SHA-256 of "7/order/2"."""
    first = hashlib.sha256(b"7/order/2").digest()[:8]
    assert stream_seed(7, "order", 2) == int.from_bytes(first, "little") // 2


def test_generators_repeat_and_leave_the_global_state_alone() -> None:
    """The same stream gives the same numbers, and nothing global moves."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert torch.equal(
        torch.rand(4, generator=torch_generator(1, "init")), torch.rand(4, generator=torch_generator(1, "init"))
    )
    np.testing.assert_array_equal(numpy_generator(1, "order", 3).random(4), numpy_generator(1, "order", 3).random(4))
    assert not np.array_equal(numpy_generator(1, "order", 3).random(4), numpy_generator(1, "order", 4).random(4))
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])
    assert python_state == random.getstate()


def test_make_repeatable_fixes_what_libraries_draw() -> None:
    """After it, the global generators of Python, numpy and torch give one sequence a seed, in a fresh process."""
    code = (
        "import random, numpy, torch\n"
        "from paretune.repro.seeding import make_repeatable\n"
        "for seed in (3, 3, 4):\n"
        "    make_repeatable(seed, 1)\n"
        "    print(random.random(), numpy.random.rand(), torch.rand(1).item(), torch.get_num_threads(),"
        " torch.are_deterministic_algorithms_enabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert first == second and first.endswith("1 True")
    assert not set(first.split()[:3]) & set(third.split()[:3])


def test_make_repeatable_is_importable_without_torch() -> None:
    """The room imports torch only inside its functions; `make_repeatable` is one of them."""
    code = "import sys, paretune.repro.seeding, paretune.repro.provenance; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert callable(make_repeatable)
