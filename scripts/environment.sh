# Sourced by the scripts beside it: makes .venv in the checkout, once, and again when what it is made from has changed.
#
# PPO_CLI_TORCH_INDEX   extra package index for torch. By default, on a machine without an NVIDIA GPU, PyTorch's own index
#                       of CPU builds if it can be reached (the general index's build for Linux brings gigabytes of CUDA
#                       with it); empty for none.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cpu_index=https://download.pytorch.org/whl/cpu

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

torch_index() {
    if [[ -n ${PPO_CLI_TORCH_INDEX+set} ]]; then
        echo "$PPO_CLI_TORCH_INDEX"
    elif ! command -v nvidia-smi >/dev/null && "$venv/bin/python" -c \
        'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3)' "$cpu_index/torch/" 2>/dev/null; then
        echo "$cpu_index"
    fi
}

install() { # $1: what to install
    local index log=$venv/install.log python
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || {
        python=$(find_python)
        echo "making .venv with $("$python" --version)" >&2
        "$python" -m venv --clear "$venv"
    }
    index=$(torch_index)
    echo "installing into .venv, which takes minutes the first time (details: .venv/install.log)" >&2
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        ${index:+--extra-index-url "$index"} -c "$root/constraints.txt" -e "$1" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "error: the installation failed; all of its output is in $log" >&2
        return 1
    }
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
