"""Train a small GPT-2 on the text of Python's own standard library, then run the same weights on three runtimes.

    python examples/train_bytes.py [--steps N] [-o DIR]

The model is `GPT2_Bytes` of specs/gpt2_bytes.tfm, and so are all settings: its plan says how it is trained. The loss is
printed beside the unigram entropy of the text, which is what a model that knew only how frequent each byte is would reach.
"""

from __future__ import annotations

import argparse
import math
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import tfdsl
from tfdsl.plans import Train

SPEC = Path(__file__).parent.parent / "specs" / "gpt2_bytes.tfm"
PROMPT = b"def __init__(self, "
NEW_BYTES = 60


def library_text() -> np.ndarray:
    """The source of the standard library as bytes: the same on every machine with the same Python."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in folder.glob("*.py") if path.is_file())
    files += sorted(folder.glob("asyncio/*.py")) + sorted(folder.glob("email/*.py"))
    return np.frombuffer(b"\n".join(path.read_bytes() for path in files), np.uint8)


def unigram_entropy(text: np.ndarray) -> float:
    """The entropy of single bytes, in nats."""
    share = np.bincount(text, minlength=256) / len(text)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def batch_of(text: np.ndarray, plan: Train, generator: np.random.Generator) -> Tensor:
    """Random windows of the text, [batch, seq + 1]: the last byte is only predicted."""
    starts = generator.integers(0, len(text) - plan.seq - 1, plan.batch)
    return torch.from_numpy(np.stack([text[s : s + plan.seq + 1] for s in starts]).astype(np.int64))


def loss_of(model: nn.Module, tokens: Tensor, shift: int) -> Tensor:
    """Cross-entropy of each byte given those before it, in nats."""
    logits = model(tokens[:, :-shift])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, shift:].flatten())


def rate_at(step: int, plan: Train) -> float:
    """The plan's schedule: a linear warm-up, then half a cosine down to the floor."""
    peak, settings = plan.optimizer.settings["lr"], plan.schedule.settings
    if step < settings["warmup"]:
        return peak * (step + 1) / settings["warmup"]
    done = min(1.0, (step - settings["warmup"]) / max(1, settings["steps"] - settings["warmup"]))
    return settings["floor"] + (peak - settings["floor"]) * 0.5 * (1 + math.cos(math.pi * done))


def train(model: nn.Module, text: np.ndarray, plan: Train, steps: int) -> float:
    """Train by the plan; the mean loss of the last fifty steps."""
    settings = plan.optimizer.settings
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=tuple(settings["betas"]), weight_decay=settings["decay"], eps=settings["eps"]
    )
    generator = np.random.default_rng(0)
    losses: list[float] = []
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("train", total=steps, loss=math.nan)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, plan)
            loss = loss_of(model, batch_of(text, plan, generator), plan.loss.settings["shift"])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            progress.update(task, advance=1, loss=float(np.mean(losses[-50:])))
    return float(np.mean(losses[-50:]))


def continuation(logits_of, prompt: bytes) -> bytes:  # type: ignore[no-untyped-def]
    """The most likely next bytes, one after another; `logits_of` takes and gives arrays [1, seq] and [1, seq, 256]."""
    tokens = list(prompt)
    for _ in range(NEW_BYTES):
        tokens.append(int(logits_of(np.array([tokens], np.int64))[0, -1].argmax()))
    return bytes(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="stop after so many steps (default: the plan's)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/gpt2_bytes"), help="where to write the models")
    arguments = parser.parse_args()

    spec = tfdsl.load(SPEC, "GPT2_Bytes")
    plan = spec.plan("laptop").train
    text = library_text()
    held_out, text = text[-200_000:], text[:-200_000]
    torch.manual_seed(0)
    model = spec.to_torch(seed=0)
    print(f"{spec.name}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(text):,} bytes of text")
    reached = train(model.train(), text, plan, arguments.steps or plan.steps)

    model.eval()
    with torch.no_grad():
        generator = np.random.default_rng(1)
        unseen = np.mean([loss_of(model, batch_of(held_out, plan, generator), 1).item() for _ in range(8)])
    print(f"unigram entropy {unigram_entropy(text):.3f} nats a byte")
    print(f"loss            {reached:.3f} in training, {unseen:.3f} on files held out")

    arguments.output.mkdir(parents=True, exist_ok=True)
    onnx_path, openvino_path = arguments.output / "model.onnx", arguments.output / "model.xml"
    spec.to_onnx(onnx_path, weights=model)
    spec.to_openvino(openvino_path, weights=model)

    session = onnxruntime.InferenceSession(onnx_path)
    compiled = openvino.Core().compile_model(openvino_path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        continuations = {
            "PyTorch": continuation(lambda tokens: model(torch.from_numpy(tokens)).numpy(), PROMPT),
            "ONNX Runtime": continuation(lambda tokens: session.run(None, {"tokens": tokens})[0], PROMPT),
            "OpenVINO": continuation(lambda tokens: compiled(tokens)[0], PROMPT),
        }
    for runtime, found in continuations.items():
        print(f"{runtime:13} {found.decode('utf-8', 'replace')!r}")
    if len(set(continuations.values())) != 1:
        raise SystemExit("the three runtimes do not agree")
    print("the three runtimes agree")


if __name__ == "__main__":
    main()
