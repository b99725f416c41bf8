"""What answering costs, for each method of a study: latency merged and unmerged, memory of many adapters, disk.

Each method is measured in a process of its own, with the weights of its best seed. Not here: a server under load
(`paretune bench serve`), the record's form (`records/serving.py`).

    measure_inference(StudyFolder(Path("runs/demo")), print)
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from paretune.core.errors import ConfigError
from paretune.core.limits import memory_limit_bytes
from paretune.core.memory import return_free_memory
from paretune.export.choose import best_seed
from paretune.export.fresh import in_fresh_process
from paretune.export.trained import Setting, check_exportable, rebuild, setting_of
from paretune.kernels.low_rank import LowRank
from paretune.measure.latency import probe
from paretune.measure.meter import resident_bytes
from paretune.methods.method import Delta
from paretune.models.classifier import EncoderClassifier
from paretune.records.schema import Graded, Latency
from paretune.records.serving import INFERENCE_FILE, AdapterMemory, Inference, InferenceCost
from paretune.records.store import RunFolder, StudyFolder, read_record, write_atomically
from paretune.report.facts import gather
from paretune.repro.provenance import machine
from paretune.serve.alone import beside, fold_in
from paretune.serve.bundle import form_of
from paretune.train.evaluate import predict_logits

COUNTS = (1, 4, 16)
MOST_OF_MEMORY = 0.7
FP32_BYTES = 4


def measure_inference(folder: StudyFolder, say: Callable[[str], None], only: str | None = None) -> Inference:
    """Measure what is not measured yet on this machine, and write `inference.json` into the study's folder.

    `only`: of the run with this id, whichever seed it is; what was measured of other methods before stays.

    Raises:
        RecordError: no study's folder. RunError: a process of it was ended.
    """
    facts, path = gather(folder), folder.path / INFERENCE_FILE
    here = machine()
    known = read_record(path, Inference) if path.exists() else None
    same = known is not None and known.machine == here
    done = {one.run_id: one for one in known.methods} if known is not None and same else {}
    found: list[InferenceCost] = []
    threads = known.threads if known is not None and same else torch.get_num_threads()
    for method in facts.scored:
        if method.family != "adaptation":
            continue
        own = [one.id for one in method.runs.values()]
        run = RunFolder(folder.path / "runs" / (only if only in own else method.runs[best_seed(facts, method)].id))
        if only is not None and run.id != only:
            found += [done[one] for one in own if one in done][:1]
            continue
        try:
            check_exportable(run)
        except ConfigError:
            continue  # its weights are gone
        if run.id not in done:
            say(f"measuring {method.label}: latency and memory of answering")
            done[run.id], threads = in_fresh_process(measure_run, run.path)
        found.append(done[run.id])
    record = Inference(machine=here, threads=threads, methods=found)
    write_atomically(path, record.model_dump_json(indent=1))
    return record


def measure_run(run: Path) -> tuple[InferenceCost, int]:
    """One method's cost, and with how many threads; to be called in a fresh process."""
    folder = RunFolder(run)
    setting = setting_of(folder)
    began = resident_bytes()
    trained = rebuild(setting)
    delta = {name: _copied(one) for name, one in trained.method.delta(trained.model).items()}
    head = {name: tensor.detach().clone() for name, tensor in trained.model.head.state_dict().items()}
    del trained
    gc.collect()
    model = setting.bare()
    model.head.load_state_dict(head)
    for parameter in model.parameters():
        # Weights mapped from a file are resident only where they were touched: that is not what a model takes.
        parameter.data = parameter.data.clone()
    texts = setting.data.splits["test"].texts
    with beside(model.encoder, delta):
        unmerged = _latency(setting, model, texts)
    memory = _memory(model, delta, began)
    fold_in(model.encoder, delta)
    merged = _latency(setting, model, texts)
    head_bytes = sum(one.numel() for one in head.values()) * FP32_BYTES
    cost = InferenceCost(
        method=setting.spec.method,
        run_id=folder.id,
        form="adapter" if form_of(delta) == "adapter" else "model",
        precision=setting.precision,
        unmerged=unmerged,
        merged=merged,
        memory=memory,
        adapter_bytes=_bytes(delta) + head_bytes,
        full_model_bytes=_parameters_bytes(model),
    )
    return cost, torch.get_num_threads()


def _settled_bytes() -> int:
    """Resident memory after what is free went back to the system: freed heap would hide what comes next."""
    return_free_memory()
    return resident_bytes()


def _copied(update: LowRank | torch.Tensor) -> LowRank | torch.Tensor:
    if isinstance(update, LowRank):
        return LowRank(update.a_ri.detach().clone(), update.b_or.detach().clone())
    return update.detach().clone()


def _bytes(delta: Delta) -> int:
    cells = sum(
        one.a_ri.numel() + one.b_or.numel() if isinstance(one, LowRank) else one.numel() for one in delta.values()
    )
    return cells * FP32_BYTES


def _parameters_bytes(model: EncoderClassifier) -> int:
    return sum(one.numel() for one in model.parameters()) * FP32_BYTES


def _latency(setting: Setting, model: EncoderClassifier, texts: Sequence[str]) -> list[Latency]:
    return probe(lambda some: predict_logits(model, setting.encoded(list(some)), setting.precision), texts)


def _memory(model: EncoderClassifier, delta: Delta, imports_bytes: int) -> list[AdapterMemory]:
    """Resident memory with 1, 4, 16 adapters beside one base (this model), and with as many models of their own."""
    one_adapter, one_model = _bytes(delta), _parameters_bytes(model)
    with_one = max(0, _settled_bytes() - imports_bytes)
    over_one_base = _grown(with_one, one_adapter, lambda: {name: _copied(one) for name, one in delta.items()})
    # A model beside others takes its parameters once more; what one takes beyond them (buffers, tokenizer) is shared.
    whole = _grown(max(0, with_one - one_adapter), one_model, lambda: copy.deepcopy(model))
    return [
        AdapterMemory(adapters=count, one_base_bytes=over_one_base[count], full_models_bytes=whole[count])
        for count in COUNTS
    ]


def _grown(with_one: int, each: int, make: Callable[[], object]) -> dict[int, Graded]:
    """Memory with so many of a thing, the first of which is there; computed where the machine has not enough."""
    found = {1: Graded(value=float(with_one), grade="sampled")}
    before = _settled_bytes()
    kept: list[object] = []
    for count in COUNTS[1:]:
        room = MOST_OF_MEMORY * min(psutil.virtual_memory().available, memory_limit_bytes() - resident_bytes())
        if (count - 1 - len(kept)) * each > room:
            found[count] = Graded(value=float(with_one + (count - 1) * each), grade="estimated")
            continue
        kept += [make() for _ in range(count - 1 - len(kept))]
        found[count] = Graded(value=float(with_one + max(0, _settled_bytes() - before)), grade="sampled")
    kept.clear()
    gc.collect()
    return found
