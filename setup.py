"""What pyproject.toml cannot say: a wheel carries `data/` inside the package, where `course_lib.resources` finds it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithData(build_py):
    """Copies `data/` beside the modules; an editable install finds it where it is."""

    def run(self):
        super().run()
        if not self.editable_mode:
            data = Path(self.build_lib) / "course_lib" / "data"
            shutil.rmtree(data, ignore_errors=True)
            shutil.copytree(Path(__file__).resolve().parent / "data", data)


setup(cmdclass={"build_py": WithData})
