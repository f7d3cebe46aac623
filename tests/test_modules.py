"""Files that import files: what each sees, and how far an import reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfdsl.language import modules
from tfdsl.language.diagnostics import SpecError
from tfdsl.language.modules import base_block, extends, home

BLOCK = "block {0}(x: [..., width]) -> [..., width] {{ return {1}(x) }}\n"
MODEL = "model {0}(x: [batch, 4]) -> [batch, 4] {{ param n = 1 return {1}(x) }}\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".tfm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def load_error(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        modules.load(path)
    return str(caught.value)


def test_imports_bring_names_and_do_not_pass_them_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import F, G from "b.tfm"\n' + MODEL.format("M", "F"),
        b='import H from "parts/c.tfm"\n' + BLOCK.format("F", "H") + BLOCK.format("G", "relu"),
        parts__c=BLOCK.format("H", "gelu"),
    )
    module = modules.load(tmp_path / "a.tfm")
    assert [*module.own] == ["M"]
    assert [*module.imported] == ["F", "G"]
    assert module.find("H") is None
    found = module.find("F")
    assert found is not None
    assert found.module.find("H") is not None
    assert [each.name for each in module.models()] == ["M"]


def test_paths_count_from_the_importing_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import F from "parts/b.tfm"\n' + MODEL.format("M", "F"),
        parts__b='import G from "../c.tfm"\n' + BLOCK.format("F", "G"),
        c=BLOCK.format("G", "relu"),
    )
    assert modules.load(tmp_path / "a.tfm").find("F") is not None


def test_one_file_by_two_ways_is_one_module(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import F from "b.tfm"\nimport G from "c.tfm"\n' + MODEL.format("M", "F"),
        b='import H from "d.tfm"\n' + BLOCK.format("F", "H"),
        c='import H from "d.tfm"\n' + BLOCK.format("G", "H"),
        d=BLOCK.format("H", "relu"),
    )
    module = modules.load(tmp_path / "a.tfm")
    one, other = module.imported["F"].module.find("H"), module.imported["G"].module.find("H")
    assert one is other


def test_the_prelude_is_seen_everywhere_and_may_be_covered(tmp_path: Path) -> None:
    write(tmp_path, a=MODEL.format("M", "relu"), b=BLOCK.format("rope", "relu"))
    seen = modules.load(tmp_path / "a.tfm").find("rope")
    covered = modules.load(tmp_path / "b.tfm").find("rope")
    assert seen is not None and seen.module is modules.prelude()
    assert covered is not None and covered.module is not modules.prelude()


def test_variants_of_imported_models(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import Small from "b.tfm"\nmodel Large extends Medium { n = 3 }\nmodel Medium extends Small { n = 2 }\n',
        b=MODEL.format("Small", "relu"),
    )
    large = modules.load(tmp_path / "a.tfm").own["Large"]
    assert [each.name for each in extends(large)] == ["Large", "Medium", "Small"]
    assert home(large).name == base_block(large).name.text == "Small"


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    write(tmp_path, a='import F from "link.tfm"\n' + MODEL.format("M", "F"), b=BLOCK.format("F", "relu"))
    (tmp_path / "link.tfm").symlink_to(tmp_path / "b.tfm")
    assert modules.load(tmp_path / "a.tfm").find("F") is not None


def test_the_root_is_where_the_file_really_is(tmp_path: Path) -> None:
    write(tmp_path, inside__a='import F from "b.tfm"\n' + MODEL.format("M", "F"), inside__b=BLOCK.format("F", "relu"))
    (tmp_path / "link.tfm").symlink_to(tmp_path / "inside" / "a.tfm")
    assert modules.load(tmp_path / "link.tfm").find("F") is not None


def test_faults_of_several_files_come_together(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import F from "b.tfm"\nimport G from "c.tfm"\nimport X from "nothing.tfm"\n' + MODEL.format("M", "F"),
        b="block F(",
        c="block G(",
    )
    text = load_error(tmp_path / "a.tfm")
    assert text.count("error[T103]") == 2
    assert text.count("error[T001]") == 1


def test_a_file_that_fails_is_reported_once(tmp_path: Path) -> None:
    write(tmp_path, a='import F from "b.tfm"\nimport G from "b.tfm"\n' + MODEL.format("M", "F"), b="block F(")
    assert load_error(tmp_path / "a.tfm").count("error[") == 1


def test_text_without_a_file_imports_from_std_only() -> None:
    with pytest.raises(SpecError, match="T204"):
        modules.load_text('import F from "b.tfm"\n' + MODEL.format("M", "F"))


def test_a_byte_order_mark_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    text = "﻿" + MODEL.format("M", "relu").replace("{", "{\r\n")
    (tmp_path / "a.tfm").write_bytes(text.encode())
    module = modules.load(tmp_path / "a.tfm")
    assert "\r" not in module.tree.source.text


def test_plans_and_mappings_have_names_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, a=MODEL.format("M", "relu") + "plan M for M {}\nmapping M for M {}\n")
    module = modules.load(tmp_path / "a.tfm")
    assert ([*module.plans], [*module.mappings]) == (["M"], ["M"])
