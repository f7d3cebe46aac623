"""How long builds take as whole processes, beside the exporters of others, and how much memory a large one needs.

`python tools/bench_build.py [--runs 5] [--work FOLDER] [--no-peers] [--no-memory]`

It makes the checkpoint of a Llama of 125M parameters in float32 (499 MB), and builds decoders from it by turns: ours for
ONNX Runtime and OpenVINO, copied and linked, onnxruntime-genai's model builder, and `optimum-cli export openvino`, none
with a tokenizer but for the model builder, which cannot leave out copying its files. The pins
of the two exporters conflict, so each gets an environment in the folder of `--work`, which is used again if it is there.
Then it makes a checkpoint of 2 GB, and watches the memory of builds from that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SPEC = ROOT / "specs" / "llama.tfm"
SIZES = {"vocab": 32_000, "width": 768, "depth": 12, "heads": 12, "kv_heads": 4, "hidden": 2048}
LARGE = {"vocab": 32_000, "width": 1536, "depth": 16, "heads": 16, "kv_heads": 4, "hidden": 4096}
INTERVAL = 0.002  # seconds between two looks at a process


@dataclass(frozen=True)
class Exporter:
    """Somebody else's way from the checkpoint to a folder: what to install, and the command but for its Python."""

    title: str
    packages: tuple[str, ...]
    unwanted: tuple[str, ...]  # what they bring that does not fit a PyTorch for the CPU alone
    command: Callable[[Path, Path], list[str]]
    rival: str  # the one of ours that does the same


EXPORTERS = {
    "genai": Exporter(
        "onnxruntime-genai builder",
        ("onnxruntime-genai", "onnxruntime", "onnx", "onnx_ir", "transformers", "safetensors"),
        (),
        lambda checkpoint, out: [
            *("-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out)),
            *("-p", "fp32", "-e", "cpu", "-c", str(out.with_name("cache"))),
        ],
        "ONNX, ort profile",
    ),
    "optimum": Exporter(
        "optimum-cli export openvino",
        ("optimum-intel[openvino]",),
        ("torchvision",),
        lambda checkpoint, out: [
            *("-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", str(checkpoint)),
            *(
                "--task",
                "text-generation-with-past",
                "--weight-format",
                "fp32",
                "--disable-convert-tokenizer",
                str(out),
            ),
        ],
        "OpenVINO",
    ),
}
OURS = {
    "ONNX, ort profile": ("--to", "onnx", "--cache", "--profile", "ort"),
    "ONNX, ort profile, linked": ("--to", "onnx", "--cache", "--profile", "ort", "--link"),
    "ONNX, portable profile": ("--to", "onnx", "--cache", "--profile", "portable"),
    "OpenVINO": ("--to", "openvino", "--cache"),
    "OpenVINO, linked": ("--to", "openvino", "--cache", "--link"),
}


def main(work: Path, runs: int, peers: bool, memory: bool) -> None:
    """Print the times of all builds with their ratios, then the memory of large ones."""
    checkpoint = make_checkpoint(work / "checkpoint", SIZES)
    commands = {title: ours(checkpoint, SIZES, options) for title, options in OURS.items()}
    for name, exporter in EXPORTERS.items():
        python = environment(work / "environments" / name, exporter) if peers else None
        if python is None:
            print(f"{exporter.title}: not measured")
            continue
        commands[exporter.title] = lambda out, python=python, exporter=exporter: [
            str(python),
            *exporter.command(checkpoint, out),
        ]
    times = measure(commands, work / "out", runs)
    show_times(times)
    own_work(checkpoint, work / "out")
    if memory:
        show_memory(work)


# --- what is built from ----------------------------------------------------------------------------------------------


def make_checkpoint(folder: Path, sizes: Mapping[str, int]) -> Path:
    """A published Llama with random weights in float32, with what exporters want to find beside them."""
    if (folder / "tokenizer.json").exists():
        return folder
    import tfdsl
    from tfdsl.weights import drawn

    model = tfdsl.load(SPEC, "Llama", **sizes)
    model.export(folder, weights=drawn(model.graph, 0))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _write(folder / "config.json", config | ids | {"max_position_embeddings": 4096})
    _write(folder / "generation_config.json", ids)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, sizes["vocab"])}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    tokenizer = {"version": "1.0", **parts, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": words}
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})
    _write(folder / "tokenizer.json", tokenizer)
    return folder


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def ours(checkpoint: Path, sizes: Mapping[str, int], options: tuple[str, ...]) -> Callable[[Path], list[str]]:
    """The command of a build of ours."""
    settings = [part for name, value in sizes.items() for part in ("--set", f"{name}={value}")]
    start = [sys.executable, "-m", "tfdsl", "build", f"{SPEC}:Llama", *settings, "--weights", str(checkpoint)]
    return lambda out: [*start, *options, "-o", str(out)]


def environment(folder: Path, exporter: Exporter) -> Path | None:
    """The Python of an environment with an exporter; None where it cannot be had."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        steps = [
            ["install", "-c", str(ROOT / "tools" / "constraints.txt"), "torch"],
            ["install", *exporter.packages],
            *(["uninstall", "--yes", name] for name in exporter.unwanted),
        ]
        for step in steps:
            if subprocess.run([*pip, *step], check=False).returncode:
                shutil.rmtree(folder)
                return None
    return python


# --- times -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Time:
    """Seconds of one run by the clock, and of all processors: the second says more where others use the machine."""

    clock: float
    processors: float


def measure(commands: dict[str, Callable[[Path], list[str]]], out: Path, runs: int) -> dict[str, list[Time]]:
    """The times of each command, by turns; one that fails is told of and left out."""
    times: dict[str, list[Time]] = {title: [] for title in commands}
    surroundings = _surroundings(out.with_name("modules"))
    for turn in range(runs + 1):  # the first is not counted: it compiles modules, and reads files from the disk
        for title, command in commands.items():
            if title not in times:
                continue
            _clear(out)
            start, before = time.perf_counter(), os.times()
            done = subprocess.run(command(out), capture_output=True, text=True, check=False, env=surroundings)
            clock, after = time.perf_counter() - start, os.times()
            processors = after.children_user + after.children_system - before.children_user - before.children_system
            if done.returncode:
                print(f"{title}: it fails\n{done.stderr[-2000:]}")
                del times[title]
                continue
            if turn:
                times[title].append(Time(clock, processors))
    _clear(out)
    return times


def _surroundings(cache: Path) -> dict[str, str]:
    """What a program that is installed would find: its modules compiled, and no way to anything but this machine."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    found = {**os.environ, **offline, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(cache)}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _clear(out: Path) -> None:
    """Remove what was built, and wait for the disk, so that one build does not pay for another's bytes."""
    for folder in (out, out.with_name("cache")):
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def show_times(times: Mapping[str, list[Time]]) -> None:
    """Median, shortest and longest of each, and how often as long the exporters take."""
    for title, found in times.items():
        clock = [each.clock for each in found]
        spread = f"({min(clock):.2f} to {max(clock):.2f}, {len(clock)} runs)"
        processors = statistics.median(each.processors for each in found)
        print(f"{title:30s} {statistics.median(clock):7.2f} s {spread:30s} {processors:6.2f} s of processors")
    for exporter in EXPORTERS.values():
        if exporter.title in times and exporter.rival in times:
            clock, processors = (_ratio(times[exporter.title], times[exporter.rival], name) for name in _KINDS)
            print(
                f"{exporter.title} takes {clock:.1f} times as long as {exporter.rival}, {processors:.1f} of processors"
            )


_KINDS = ("clock", "processors")


def _ratio(theirs: list[Time], ours: list[Time], kind: str) -> float:
    first, second = (statistics.median(getattr(each, kind) for each in found) for found in (theirs, ours))
    return first / second


def own_work(checkpoint: Path, out: Path) -> None:
    """Processor time of the builds themselves, without starting Python and reading its modules: copied against linked."""
    import tfdsl

    model = tfdsl.load(SPEC, "Llama", **SIZES)
    for target, options in (("onnx", {"profile": "ort"}), ("openvino", {})):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for link in (False, True) * 4:
            _clear(out)
            start = time.process_time()
            model.build(target, out, weights=checkpoint, cache=True, link=link, **options)
            seconds[link].append(time.process_time() - start)
        copied, linked = (statistics.median(seconds[link][1:]) for link in (False, True))
        print(
            f"{target}: a copying build's own work {copied:.3f} s, a linking one's {linked:.3f} s: {linked / copied:.2f}"
        )
    _clear(out)


# --- memory ----------------------------------------------------------------------------------------------------------


def show_memory(work: Path) -> None:
    """The most memory of its own that a build from 2 GB of weights has at any time."""
    checkpoint = make_checkpoint(work / "large", LARGE)
    size = (checkpoint / "model.safetensors").stat().st_size
    limit = 0.2 * size + 300e6
    print(
        f"memory of builds from {size / 1e9:.2f} GB of weights; {limit / 1e6:.0f} MB would be 0.2 of them plus 300 MB"
    )
    plain = {"torch": ("--to", "torch"), "ONNX": ("--to", "onnx"), "OpenVINO": ("--to", "openvino")}
    quantised = ("--to", "onnx", "--pass", 'quantize("layers.**", bits=4, group=128)')
    others = {"ONNX, float16": ("--to", "onnx", "--dtype", "float16"), "ONNX, four bits": quantised}
    for title, options in {**plain, **OURS, **others}.items():
        _clear(work / "out")
        command, surroundings = ours(checkpoint, LARGE, options)(work / "out"), _surroundings(work / "modules")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=surroundings, **quiet)
        most = _watch(process)
        told = "ok" if most <= limit else "too much"
        print(f"{title:30s} {most / 1e6:6.0f} MB  {told if process.returncode == 0 else 'it fails'}")
    _clear(work / "out")


def _watch(process: subprocess.Popen[bytes]) -> int:
    """The most anonymous memory that a process has until it ends, in bytes."""
    most, ended = 0, threading.Event()
    status = Path(f"/proc/{process.pid}/status")

    def look() -> None:
        nonlocal most
        while not ended.wait(INTERVAL):
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            most = max([most, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))])

    watching = threading.Thread(target=look)
    watching.start()
    process.wait()
    ended.set()
    watching.join()
    return most


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tfdsl-bench")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    main(options.work, options.runs, not options.no_peers, not options.no_memory)
