"""Decoding speed against the peers, in float32: a Llama of 125M parameters on all cores.

    python tools/bench_decode.py [--work DIR] [--rounds 5] [--only genai openvino torch portable llama]

Makes a checkpoint with random weights, and from it a folder of each of ours and of each peer: onnxruntime-genai's model
builder, `optimum-cli export openvino`, `transformers`, and a GGUF file for llama.cpp. Peers are installed into environments
of their own under DIR, which are kept. Then each pair is timed, one after the other in processes of their own, round by
round; printed are the medians, the ratios, and what they are to be. `tools/decode_worker.py` is what is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parent
sys.path.insert(0, str(TOOLS.parent))

import tfdsl
from tfdsl.weights import initial

LLAMA = {"width": 768, "depth": 12, "heads": 12, "kv_heads": 4, "hidden": 2048, "vocab": 32_000}
TORCH = "torch==2.13.0"
PACKAGES = {
    "genai": (TORCH, "onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "transformers<6", "onnx_ir", "onnx"),
    "optimum": (TORCH, "optimum-intel[openvino]", "openvino-genai"),
    "llama": ("llama-cpp-python", "gguf", "numpy"),
}
NUMBERS = {"prefill": "512-token prefill", "decode_32": "decode after 32", "decode_512": "decode after 512"}


@dataclass(frozen=True)
class Side:
    """One of a pair: its name, and the command of the worker that times it."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Ours against theirs, and how many times as fast ours is to be."""

    title: str
    ours: Side
    theirs: Side
    wanted: dict[str, float]


class Bench:
    """A folder with the checkpoint, the environments, and what is built in them."""

    def __init__(self, work: Path, rounds: int):
        self.work, self.rounds = work, rounds
        self.checkpoint = work / "checkpoint"

    def prepare(self) -> None:
        """Make the checkpoint and its tokenizer, once."""
        if self.checkpoint.is_dir():
            return
        model = tfdsl.load(TOOLS.parent / "specs" / "llama.tfm", "Llama", **LLAMA)
        model.export(self.checkpoint, weights=initial(model.graph, 0))
        write_tokenizer(self.checkpoint)

    def python(self, name: str) -> str:
        """The interpreter of an environment, made and filled when it is first asked for."""
        folder = self.work / "environments" / name
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            for part in (PACKAGES[name][:1], PACKAGES[name]):  # PyTorch first, since others would take a larger one
                subprocess.run([str(python), "-m", "pip", "install", "--quiet", *part], check=True)
            # What a peer pulls in is made for another PyTorch, and `transformers` fails to load beside it.
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
            (folder / "complete").touch()
        return str(python)

    def built(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder or file that is made once; how long that took is printed."""
        path = self.work / name
        if not path.exists():
            begun = time.perf_counter()
            make(path)
            print(f"built {name} in {time.perf_counter() - begun:.1f} s", flush=True)
        return path

    def ours(self, name: str, target: str, **options: str) -> Path:
        """A folder of ours, built by the command line in a process of its own."""
        command = [sys.executable, "-m", "tfdsl", "build", str(TOOLS.parent / "specs" / "llama.tfm:Llama"), "--cache"]
        command += ["--to", target, "--weights", str(self.checkpoint), "--tokenizer", str(self.checkpoint)]
        command += [part for key, value in LLAMA.items() for part in ("--set", f"{key}={value}")]
        command += [part for key, value in options.items() for part in (f"--{key}", value)]

        def make(path: Path) -> None:
            subprocess.run([*command, "-o", str(path)], check=True, cwd=TOOLS.parent, stdout=subprocess.DEVNULL)

        return self.built(name, make)

    def theirs(self, name: str, environment: str, arguments: Callable[[Path], list[str]]) -> Path:
        """A folder of a peer, built by its own command."""
        python = self.python(environment)

        def make(path: Path) -> None:
            done = subprocess.run([python, *arguments(path)], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")

        return self.built(name, make)

    def compare(self, pair: Pair) -> None:
        """Time a pair, round by round, and print medians and ratios."""
        found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
        for round_ in range(self.rounds):
            sides = [("ours", pair.ours), ("theirs", pair.theirs)]
            for which, side in sides if round_ % 2 == 0 else reversed(sides):
                found[which].append(timed(side))
        print(f"\n{pair.title}: {pair.ours.name} against {pair.theirs.name}, medians of {self.rounds}")
        for key, title in NUMBERS.items():
            ours, theirs = (statistics.median(each[key] for each in found[which]) for which in ("ours", "theirs"))
            ratio = theirs / ours if key == "prefill" else ours / theirs
            goal = pair.wanted.get(key)
            verdict = "" if goal is None else f"  (wanted {goal:.2f}: {'yes' if ratio >= goal else 'NO'})"
            print(f"  {title:18} {shown(key, ours):>14} {shown(key, theirs):>14}  {ratio:.2f}x{verdict}", flush=True)


def timed(side: Side) -> dict[str, float]:
    """What one run of a worker prints."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(side.command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side.name} failed:\n{done.stderr[-2000:]}")
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def shown(key: str, number: float) -> str:
    """A number with its unit."""
    return f"{1000 * number:.0f} ms" if key == "prefill" else f"{number:.1f} tokens/s"


def worker(name: str, python: str, engine: str, path: Path, *rest: str) -> Side:
    """One side of a pair."""
    return Side(name, (python, str(TOOLS / "decode_worker.py"), engine, str(path), *rest))


def genai(bench: Bench) -> list[Pair]:
    """The folder of the `ort` profile and the one of the peer's builder, both in onnxruntime-genai."""
    python = bench.python("genai")
    ours = worker("ort", python, "genai", bench.ours("ours_ort", "onnx", profile="ort"))
    path = bench.theirs("peer_genai", "genai", lambda path: genai_builder(bench, path))
    shipped, equal = (
        worker("its builder", python, "genai", path),
        worker("the same", python, "genai", path, "--threads=0"),
    )
    return [
        Pair("onnxruntime-genai, as shipped", ours, shipped, {"prefill": 2.2, "decode_32": 1.35, "decode_512": 1.35}),
        Pair("onnxruntime-genai, equal threads", ours, equal, {"prefill": 1.3, "decode_32": 1.0, "decode_512": 1.0}),
    ]


def genai_builder(bench: Bench, path: Path) -> list[str]:
    """The arguments of onnxruntime-genai's builder."""
    cache, checkpoint = bench.work / "builder_cache", bench.checkpoint
    options = {"-i": checkpoint, "-o": path, "-p": "fp32", "-e": "cpu", "-c": cache}
    return ["-m", "onnxruntime_genai.models.builder", *(str(part) for pair in options.items() for part in pair)]


def openvino(bench: Bench) -> list[Pair]:
    """Ours and what optimum exports, both in `LLMPipeline`."""
    python = bench.python("optimum")
    ours = worker("ours", python, "openvino", bench.ours("ours_openvino", "openvino"))
    export = ["-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(bench.checkpoint)]
    export += ["--task", "text-generation-with-past", "--weight-format", "fp32"]
    path = bench.theirs("peer_openvino", "optimum", lambda path: [*export, str(path)])
    wanted = {"prefill": 1.0, "decode_32": 1.0, "decode_512": 1.0}
    return [Pair("openvino-genai", ours, worker("optimum's export", python, "openvino", path), wanted)]


def torch(bench: Bench) -> list[Pair]:
    """Our module with its cache and the library's with its own."""
    ours = worker("our module", sys.executable, "tfdsl", bench.ours("ours_torch", "torch"))
    theirs = worker("transformers", sys.executable, "transformers", bench.checkpoint)
    return [Pair("PyTorch", ours, theirs, {"decode_32": 1.3, "decode_512": 1.3})]


def portable(bench: Bench) -> list[Pair]:
    """The two ONNX profiles, both through our session."""
    ours = worker("portable", sys.executable, "tfdsl", bench.ours("ours_portable", "onnx", profile="portable"))
    theirs = worker("ort", sys.executable, "tfdsl", bench.ours("ours_ort", "onnx", profile="ort"))
    return [Pair("ONNX profiles", ours, theirs, {"decode_32": 0.9})]


def llama(bench: Bench) -> list[Pair]:
    """llama.cpp, beside the `ort` folder: no ratio is wanted of it."""
    python = bench.python("llama")
    convert = [str(TOOLS / "llama_gguf.py"), str(bench.checkpoint)]
    path = bench.theirs("peer_llama.gguf", "llama", lambda path: [*convert, str(path)])
    ours = worker("ort", bench.python("genai"), "genai", bench.ours("ours_ort", "onnx", profile="ort"))
    return [Pair("llama.cpp", ours, worker("llama.cpp, float32", python, "llama", path), {})]


PAIRS = {each.__name__: each for each in (genai, openvino, torch, portable, llama)}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of words that are numbers: the peers will not build without one."""
    import tokenizers

    vocab = {f"w{number}": number for number in range(LLAMA["vocab"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["w0", "w1", "w2"])
    made.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "w0", "bos_token": "w1", "eos_token": "w2", "pad_token": "w0"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def main() -> None:
    """Time the pairs that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tfdsl-bench", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS))
    arguments = parser.parse_args()
    bench = Bench(arguments.work, arguments.rounds)
    bench.prepare()
    for name in arguments.only:
        try:
            pairs = PAIRS[name](bench)
        except subprocess.CalledProcessError as error:  # a peer that cannot be installed here
            print(f"\n{name}: not compared, since `{' '.join(map(str, error.cmd))}` failed")
            continue
        for pair in pairs:
            bench.compare(pair)


if __name__ == "__main__":
    main()
