"""Check that greedy generation equals that of `transformers`, token for token, for all decoders of the zoo.

    python tools/check_generation.py [--new 64] [MODEL...]

For each decoder and encoder-decoder that is compared with the library: a small model with random weights is saved by the
library, imported, built for PyTorch, for both ONNX profiles and for OpenVINO, and all of them go on from a batch of three
prompts (sources, for an encoder-decoder) of different lengths. Models that the library does not have are compared with
whole passes of the reference by `tfm verify --decode`. Models whose rotary positions change once a text is longer than some
limit are built for texts up to it. Prints a line for each and how many are equal, and exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import transformers
from generation import FORMS, Peer, families
from test_zoo import Family

import tfdsl
from tfdsl.language.diagnostics import SpecError

# Models without a counterpart in the library, at a small size.
OWN = {
    "linear_transformer.tfm": {"vocab": 97, "width": 32, "depth": 2, "heads": 4},
    "gpt2_bytes.tfm": {"width": 32, "depth": 2, "heads": 4},
}


def main() -> int:
    """Run the checks that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=64, help="new tokens (64)")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only models with this in their names")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    equal = failures = 0
    for place, family in enumerate(families()):
        if wanted(family.model, arguments.models):
            outcomes = check(place, family, arguments.new)
            if all(said == "equal" for said in outcomes):
                equal += 1
            else:
                failures += 1
    for file, settings in OWN.items():
        if wanted(file, arguments.models):
            differs = bool(check_own(file, settings))
            failures, equal = failures + differs, equal + (not differs)
    print(f"{equal} of {equal + failures} equal, {failures} differ or fail")
    return 1 if failures else 0


def wanted(name: str, parts: list[str]) -> bool:
    """Whether a model was asked for: all are, where none is named."""
    return not parts or any(part.lower() in name.lower() for part in parts)


def check(place: int, family: Family, new: int) -> list[str]:
    """Compare the forms of one model; what is said of each."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="generation-") as folder:
        peer = Peer(family, Path(folder))
        expected = peer.expected(new)
        outcomes = [outcome(peer, form, expected, new) for form in FORMS]
    shown = "  ".join(f"{form}: {said}" for form, said in zip(FORMS, outcomes, strict=True))
    print(f"{place:2} {family.model:18} {shown}  ({time.perf_counter() - begun:.0f} s)", flush=True)
    return outcomes


def outcome(peer: Peer, form: str, expected: list[list[int]], new: int) -> str:
    """What is said of one form: equal, refused with a code, or the first places where rows differ."""
    try:
        found = peer.found(form, new)
    except SpecError as error:
        (first, *_) = error.diagnostics
        return f"refused ({first.code})"
    if found == expected:
        return "equal"
    pairs = [zip(row, wanted, strict=True) for row, wanted in zip(found, expected, strict=True)]
    places = [next((place for place, (a, b) in enumerate(pair) if a != b), None) for pair in pairs]
    return f"DIFFERS (first at {places})"


def check_own(file: str, settings: dict[str, int]) -> int:
    """Compare a model that the library does not have with the reference; how many forms differ."""
    verdict = tfdsl.load(ROOT / "specs" / file, **settings).verify(decode=True)
    failed = {result.target for result in verdict.results if not result.passed} | set(verdict.refused)
    print(f"   {file:18} {'equal to the reference' if not failed else f'DIFFERS: {sorted(failed)}'}", flush=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
