"""Results of a probe in parts, each kept as soon as it is there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import write_json

from .image_folders import ProbeError


class Record:
    """Results of one network and one set of settings, in a JSON file.

    Args:
        file (Path): Read if it is there; its folder is made if needed.
        identity (Mapping): All that decides the results, as plain values.
        renewed (bool): Results of something else give way, instead of an error. Defaults to False.

    Raises:
        ProbeError: If the file holds results of something else.
    """

    def __init__(self, file: Path, identity: Mapping[str, Any], renewed: bool = False) -> None:
        self.file = file
        # What JSON reads back has lists for tuples.
        self.identity = json.loads(json.dumps(identity))
        self.parts: dict[str, Any] = {}
        if file.is_file():
            content = json.loads(file.read_text(encoding='utf-8'))
            is_same = content['identity'] == self.identity
            if not (is_same or renewed):
                differ = [
                    name
                    for name in {**content['identity'], **self.identity}
                    if content['identity'].get(name) != self.identity.get(name)
                ]
                raise ProbeError(
                    f'{file} holds results of another {", ".join(differ)}: name another '
                    '--work-dir, or remove the file'
                )
            self.parts = content['parts'] if is_same else {}
        file.parent.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, result: Any) -> None:
        """Keep the result of a part."""
        self.parts[name] = result
        write_json(self.file, dict(identity=self.identity, parts=self.parts))
