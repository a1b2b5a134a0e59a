"""The command ``vito-mm``: runs the tools by name. Imports nothing but the standard library.

It lies beside the package and not in it, so that ``--help`` need not load torch, and
``vito-mm build-mmcv`` runs where ``import vito_mm`` fails for want of it.
"""

import ast
import difflib
import importlib.util
import os
import sys
from pathlib import Path


def tools() -> dict[str, Path]:
    """Scripts by the names that they have as sub-commands."""
    package = Path(importlib.util.find_spec('vito_mm').origin).parent
    files = sorted((package / '.mim' / 'tools').glob('[!_]*.[ps][yh]'))
    return {file.stem.replace('_', '-'): file for file in files}


def summary(file: Path) -> str:
    """First line of a script's documentation."""
    text = file.read_text(encoding='utf-8')
    if file.suffix == '.py':
        return (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]
    return next((line[2:] for line in text.splitlines() if line.startswith('# ')), '')


def main() -> None:
    """Run the tool that the command line names, with the words behind its name."""
    found = tools()
    name, arguments = (sys.argv[1:2] or ['--help'])[0], sys.argv[2:]
    if name in ('-h', '--help'):
        print('usage: vito-mm TOOL [ARGUMENT ...]; vito-mm TOOL --help\n\ntools:')
        print('\n'.join(f'  {key:<18} {summary(file)}' for key, file in found.items()))
    elif name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f'; did you mean {near[0]}?' if near else '; vito-mm --help lists them'
        sys.exit(f'vito-mm: there is no tool {name!r}{hint}')
    else:
        program = sys.executable if found[name].suffix == '.py' else 'bash'
        os.execvp(program, [program, str(found[name]), *arguments])


if __name__ == '__main__':
    main()
