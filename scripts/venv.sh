# Sourced by the scripts: the virtual environment of this checkout, in .venv.
# shellcheck shell=bash
#
# need_venv [dev]   builds it when it is missing or older than pyproject.toml (dev: with the tools for tests and checks),
#                   and says so; otherwise does nothing. Afterwards $venv/bin holds the commands.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$*"
  exit 2
}

need_venv() {
  local kind=${1:-serve}
  is_current "$kind" && return
  [ -w "$root" ] || die "$root cannot be written by $(id -un): its Python environment belongs there. Have its owner run scripts/serve or scripts/test once, or use a checkout of your own."
  # One at a time: the lock is on the folder itself, and gone with this subshell.
  (
    flock 9
    is_current "$kind" || build "$kind"
  ) 9<"$root"
}

# What an environment depends on: the requirements, and its own place, which is written into its commands.
wanted() {
  {
    cat "$root/pyproject.toml"
    printf '%s\n' "$root"
  } | sha256sum
}

is_current() {
  local stamp
  for stamp in "$venv/.made-for-$1" "$venv/.made-for-dev"; do
    [ -r "$stamp" ] && [ "$(<"$stamp")" = "$(wanted)" ] && return 0
  done
  return 1
}

build() {
  local extra=()
  # An environment that was moved, never finished, or lost its interpreter is of no use.
  if [ "$(cat "$venv/.place" 2>/dev/null)" != "$root" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python
    python=$(find_python)
    say "Building the Python environment in $venv with $("$python" --version) (once, about a minute)."
    "$python" -m venv --clear "$venv" || die "$python could not make a virtual environment in $venv."
  else
    say "Bringing the Python environment in $venv up to date."
  fi
  if [ "$1" = dev ] || [ -e "$venv/.made-for-dev" ]; then
    dev_requirements >"$venv/.dev-requirements.txt"
    extra=(-r "$venv/.dev-requirements.txt")
    set -- dev
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root" "${extra[@]}" >&2 ||
    die "pip could not install what acme-ca needs (its reason is above). Is the package index reachable?"
  printf '%s' "$root" >"$venv/.place"
  wanted >"$venv/.made-for-$1"
}

# pip learned to read dependency groups in 25.1; the one that comes with Python 3.11 is older.
dev_requirements() {
  "$venv/bin/python" - "$root/pyproject.toml" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as project:
    print(*tomllib.load(project)["dependency-groups"]["dev"], sep="\n")
PYTHON
}

find_python() {
  local found= candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    found=$candidate
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
    command -v "$candidate"
    return
  done
  [ -z "$found" ] || die "$(command -v "$found") cannot make virtual environments: install the package python3-venv (Debian: apt-get install python3-venv)."
  die "acme-ca needs Python 3.11 or later, and there is none on PATH: install it (Debian: apt-get install python3 python3-venv)."
}
