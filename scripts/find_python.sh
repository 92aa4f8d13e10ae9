#!/bin/sh
# Prints the path of a Python that durably can use. Each candidate is run, not just looked up:
# a version manager's shim can exist and fail, and some systems ship Python without venv.

usable='
import sys
if sys.version_info < (3, 12) or sys.implementation.name != "cpython":
    sys.exit(1)
import ensurepip, sqlite3, venv
# From inside a virtual environment, the Python that it was made with: ours must outlive it.
venv_used = sys.prefix != sys.base_prefix
print(sys._base_executable if venv_used else sys.executable)
'

try() {
    found=$("$1" -I -c "$usable" 2>/dev/null) && [ -x "$found" ] || return 0
    printf '%s\n' "$found"
    exit 0
}

for name in python3.14 python3.13 python3.12 python3; do
    try "$name"
done

for root in "$PYENV_ROOT" "$HOME/.pyenv"; do
    [ -n "$root" ] && [ -d "$root/versions" ] || continue
    # Newest first; names that are a plain version number, so no virtual environments.
    for version in $(cd "$root/versions" && ls | grep -E '^3\.[0-9]+\.[0-9]+$' |
        sort -t. -k2,2nr -k3,3nr); do
        try "$root/versions/$version/bin/python3"
    done
done

# Only those that uv installed: PATH was tried above, and a failing shim on it would stop uv.
found_by_uv=$(UV_PYTHON_PREFERENCE=only-managed uv python find --no-project --system '>=3.12' \
    2>/dev/null) && try "$found_by_uv"

echo "durably needs Python 3.12 or newer with its venv and sqlite3 modules and found none:" \
    "please install one, for example with your system's package manager (on Debian and Ubuntu" \
    "also the matching python3-venv package) or with 'uv python install', and try again." >&2
exit 1
