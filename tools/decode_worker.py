"""Time one decoder in one process: `python tools/decode_worker.py ENGINE PATH [--threads N]`, which prints JSON.

Each peer runs this file in an environment of its own, so that it needs nothing but the engine that it is asked for:
genai (a folder of onnxruntime-genai), openvino (one of openvino-genai), transformers (a checkpoint), llama (a GGUF file), and
tfdsl (a folder of ours, through our session). The time of the first token after 512 is `prefill`, in seconds; `decode_32`
and `decode_512` are the tokens a second that follow 32 and 512. Of a few runs, the median counts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHORT, LONG, NEW, RUNS, VOCAB = 32, 512, 48, 3, 32_000
# The moments at which a prompt was handed in, and at which each new token was there.
Run = Callable[[list[int], int], list[float]]


def genai(path: str, threads: int | None) -> Run:
    """onnxruntime-genai, with the folder's own number of threads or another."""
    import numpy
    import onnxruntime_genai

    configuration = onnxruntime_genai.Config(path)
    if threads is not None:
        options = {"session_options": {"intra_op_num_threads": threads}}
        configuration.overlay(json.dumps({"model": {"decoder": options}}))
    model = onnxruntime_genai.Model(configuration)

    def run(prompt: list[int], new: int) -> list[float]:
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + new, min_length=len(prompt) + new, do_sample=False)
        generator = onnxruntime_genai.Generator(model, parameters)
        moments = [time.perf_counter()]
        generator.append_tokens(numpy.array([prompt], numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
            moments.append(time.perf_counter())
        return moments

    return run


def openvino(path: str, threads: int | None) -> Run:
    """openvino-genai's `LLMPipeline`, computing in float32."""
    import numpy
    import openvino as runtime
    import openvino_genai

    settings = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    pipeline = openvino_genai.LLMPipeline(path, "CPU", **settings)

    def run(prompt: list[int], new: int) -> list[float]:
        configuration = openvino_genai.GenerationConfig()
        configuration.max_new_tokens, configuration.ignore_eos = new, True
        tokens = runtime.Tensor(numpy.array([prompt], numpy.int64))
        inputs = openvino_genai.TokenizedInputs(tokens, runtime.Tensor(numpy.ones((1, len(prompt)), numpy.int64)))
        moments = [time.perf_counter()]

        class Clock(openvino_genai.StreamerBase):
            def write(self, token: object) -> object:
                moments.append(time.perf_counter())
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                """All were timed as they came."""

        pipeline.generate(inputs, configuration, Clock())
        return moments

    return run


def transformers(path: str, threads: int | None) -> Run:
    """The library's own module and cache, not compiled."""
    import torch
    import transformers as library

    if threads is not None:
        torch.set_num_threads(threads)
    model = library.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(prompt: list[int], new: int) -> list[float]:
        tokens, cache = torch.tensor([prompt]), None
        moments = [time.perf_counter()]
        for _ in range(new):
            result = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens, cache = result.logits[:, -1:].argmax(-1), result.past_key_values
            moments.append(time.perf_counter())
        return moments

    return run


def tfdsl(path: str, threads: int | None) -> Run:
    """A folder of ours, through our session."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tfdsl.decoding.generate import generate
    from tfdsl.decoding.manifest import read_manifest
    from tfdsl.decoding.session import open_session

    if threads is not None:
        raise SystemExit("our sessions take as many threads as there are")
    session, manifest = open_session(path), read_manifest(Path(path))

    def run(prompt: list[int], new: int) -> list[float]:
        moments = [time.perf_counter()]
        tell = lambda row, token: moments.append(time.perf_counter())  # noqa: E731
        generate(session, manifest, [prompt], max_new=new, eos=(), on_token=tell)
        return moments

    return run


def llama(path: str, threads: int | None) -> Run:
    """llama.cpp, through its Python package."""
    import os

    import llama_cpp

    count = threads or os.cpu_count()
    size = LONG + NEW + 8
    model = llama_cpp.Llama(path, n_ctx=size, n_batch=LONG, n_threads=count, n_threads_batch=count, verbose=False)

    def run(prompt: list[int], new: int) -> list[float]:
        moments = [time.perf_counter()]
        for _ in model.generate(prompt, top_k=1, reset=True):
            moments.append(time.perf_counter())
            if len(moments) > new:
                break
        return moments

    return run


ENGINES = {each.__name__: each for each in (genai, openvino, transformers, tfdsl, llama)}


def measure(run: Run) -> dict[str, float]:
    """The three numbers of an engine, after a run that warms it up. Prompts differ, so that nothing of one is kept."""
    chance = random.Random(0)

    def prompt(count: int) -> list[int]:
        return [chance.randrange(3, VOCAB) for _ in range(count)]

    run(prompt(SHORT), 4)
    run(prompt(LONG), 4)
    short = [run(prompt(SHORT), NEW) for _ in range(RUNS)]
    long = [run(prompt(LONG), NEW) for _ in range(RUNS)]
    return {
        "prefill": statistics.median(moments[1] - moments[0] for moments in long),
        "decode_32": statistics.median(map(rate, short)),
        "decode_512": statistics.median(map(rate, long)),
    }


def rate(moments: list[float]) -> float:
    """Tokens a second after the first."""
    return (len(moments) - 2) / (moments[-1] - moments[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("path")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    print(json.dumps(measure(ENGINES[asked.engine](asked.path, asked.threads))))
