# Sourced by the scripts beside it: makes .venv in the checkout, once, and again when what it is made from has changed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "error: no Python of at least 3.11 with its venv module was found" >&2
    return 1
}

install() { # $1: what to install
    local log=$venv/install.log python
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || {
        python=$(find_python)
        echo "making .venv with $("$python" --version)" >&2
        "$python" -m venv --clear "$venv"
    }
    echo "installing into .venv, which takes minutes the first time (details: .venv/install.log)" >&2
    # uv knows the build of torch that suits the machine: without a GPU the small one. pip takes the default build.
    { with_uv "$1" || with_pip "$1"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "error: the installation failed; all of its output is in $log" >&2
        return 1
    }
}

with_uv() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input uv &&
        UV_HTTP_TIMEOUT=30 UV_HTTP_RETRIES=1 "$venv/bin/uv" pip install --python "$venv/bin/python" \
            --torch-backend=auto -c "$root/constraints.txt" -e "$1"
}

with_pip() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -c "$root/constraints.txt" -e "$1"
}

# ensure_environment NAME EXTRAS: returns at once where a stamp says that this, or the larger "test", is there already.
ensure_environment() {
    local name=$1 extras=$2 stamp
    stamp=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)
    is_current "$name" "$stamp" && return
    (
        if command -v flock >/dev/null; then flock 9; fi # a second start waits until the first one has installed
        is_current "$name" "$stamp" && exit
        install "$root$extras"
        echo "$stamp" >"$venv/stamp-$name.new"
        mv "$venv/stamp-$name.new" "$venv/stamp-$name" # last and at once: an interrupted installation leaves no stamp
    ) 9<"$root/scripts"
}

is_current() {
    local candidate
    for candidate in "$1" test; do
        [[ -r $venv/stamp-$candidate && $(<"$venv/stamp-$candidate") == "$2" ]] && return
    done
    return 1
}
