"""The one thing that pyproject.toml cannot say: the specs, which stand beside the package, go into it as `tfdsl/zoo`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithZoo(build_py):
    """Builds the package, and copies the specs into it."""

    def run(self) -> None:
        """Build, then copy, except where the package is used from the checkout."""
        super().run()
        if not self.editable_mode:
            for source, target in self.zoo():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What is built, the copies included."""
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self.zoo())]

    def zoo(self) -> list[tuple[Path, Path]]:
        """Each spec with its place in the package."""
        specs = Path(__file__).parent / "specs"
        return [(path, Path(self.build_lib, "tfdsl", "zoo", path.name)) for path in sorted(specs.glob("*.tfm"))]


setup(cmdclass={"build_py": BuildWithZoo})
