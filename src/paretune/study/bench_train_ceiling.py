"""The matrix ceiling in a process of its own: the fastest of torch's products and those of our kernels in C++.

python -m paretune.study.bench_train_ceiling '{"shapes": [[384, 384, 4]], "rows": 1500, "threads": 2}'
"""

from __future__ import annotations

import json
import sys

import torch

from paretune.kernels.native.library import library
from paretune.kernels.native.maps import fits, products
from paretune.measure.machine import matrix_flops_per_second


def main(asked: str) -> None:
    """Measure what a JSON object asks for, and print one JSON object."""
    wanted = json.loads(asked)
    torch.set_num_threads(wanted["threads"])
    shapes = {(inputs, outputs): count for inputs, outputs, count in wanted["shapes"]}
    precision, calls = wanted.get("precision", "bf16"), library().calls
    ours = calls is not None and precision == "bf16" and all(fits(one) for shape in shapes for one in shape)
    others = [products(calls)] if ours and calls is not None else []
    found = matrix_flops_per_second(shapes, wanted["rows"], precision, wanted.get("seconds", 2.0), others)
    print(json.dumps({"flops_per_second": found, "precision": precision}))


if __name__ == "__main__":
    main(sys.argv[1])
