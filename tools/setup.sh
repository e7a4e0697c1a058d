#!/usr/bin/env bash
# Makes the environment: one command from a fresh clone to working tools.
#
#   tools/setup.sh            .venv: Python 3.11, torch 1.13.1, k2, kaldifeat, lhotse and all else, pinned
#   tools/setup.sh --torch2   .venv-torch2: torch 2.x for training, recognition and export; no k2, kaldi-native-fbank
#
# Safe to run again: a finished environment is only checked (seconds), an interrupted one is completed, a
# broken one repaired. Every package is proved by use (tools/setup/check_setup.py), and the versions are printed.
# kaldifeat is compiled once (2 to 4 minutes); its wheel is kept for other clones in
# ${XDG_CACHE_HOME:-~/.cache}/dualasr. DUALASR_PYTHON names another Python 3.11.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/tools/setup/requirements
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/dualasr
lane=default
venv=$root/.venv
child=

usage() {
  sed -n '2,/^set -/{s/^# \{0,1\}//;/^set -/d;p}' "${BASH_SOURCE[0]}"
}

fail() { # one line that names what to do
  echo "setup.sh: $*" >&2
  exit 1
}

stop_child() { # the command of `run` and all that it started
  if [ -n "$child" ]; then
    kill -- "-$child" 2>/dev/null || true
  fi
}
trap stop_child EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

reason() { # the first telling line of what the last command wrote into the log
  tac "$log" | sed '/^== /q' | tac | grep -v subprocess-exited-with-error |
    grep -m1 -iE 'no space left|cannot find|(error|Errno)[] ]*:? ' | sed 's/^ *//' | cut -c1-200
}

# run LABEL COMMAND...: output into the log, a line of progress every 15 seconds (on a terminal: a clock).
run() {
  local label=$1 start=$SECONDS said=$SECONDS
  shift
  [ -t 1 ] || echo "$label ..."
  echo "== $label: $*" >>"$log"
  setsid "$@" >>"$log" 2>&1 &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.2
    if [ -t 1 ]; then
      printf '\r%s ... %d s ' "$label" $((SECONDS - start))
    elif [ $((SECONDS - said)) -ge 15 ]; then
      said=$SECONDS
      echo "$label ... $((SECONDS - start)) s"
    fi
  done
  local status=0
  wait "$child" || status=$?
  child=
  [ -t 1 ] && echo
  if [ $status -ne 0 ]; then
    fail "$label failed: $(reason) (all of it: $log)"
  fi
}

find_python() { # prints the path of a Python 3.11 that can make environments
  local candidate
  for candidate in "${DUALASR_PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c \
      'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      "$candidate" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$candidate lacks the modules venv and ensurepip: install them (Debian: apt-get install python3.11-venv)"
      # Inside an active environment this is the Python that made it.
      "$candidate" -c 'import sys; print(sys._base_executable)'
      return
    fi
  done
  fail "Python 3.11 is needed but was not found: install python3.11 (Debian 12: apt-get install python3.11-venv python3.11-dev; elsewhere: pyenv install 3.11) or name it in DUALASR_PYTHON"
}

check_disk() { # check_disk GIGABYTES FOLDER
  local free
  free=$(df -Pk "$2" | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "$1" ] ||
    fail "$1 GB of free disk space are needed under $2, but there are $free: free some or clone elsewhere"
}

check_platform() {
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
    fail "k2's wheels are for Linux x86_64 and this is $(uname -s) $(uname -m): try tools/setup.sh --torch2"
}

check_compiler() { # when kaldifeat has to be compiled; CMake comes from PyPI
  local include tool
  for tool in g++ make; do
    command -v "$tool" >/dev/null ||
      fail "$tool is needed to compile kaldifeat but was not found: install it (Debian: apt-get install g++ make)"
  done
  include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  [ -e "$include/Python.h" ] ||
    fail "Python.h is needed to compile kaldifeat but is not in $include: install it (Debian: apt-get install python3.11-dev)"
}

make_venv() { # keeps a working one, so that an interrupted set-up is completed
  if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    [ ! -d "$venv" ] || echo "$venv is no working Python 3.11 environment and is made anew"
    "$python" -m venv --clear "$venv" || fail "$python could not make the environment $venv"
  fi
  log=$venv/setup.log
  : >"$log"
}

pip_install() { # pip_install LABEL ARGUMENTS...
  local label=$1
  shift
  run "$label" "$venv/bin/python" -m pip --disable-pip-version-check install --no-input "$@"
}

build_kaldifeat() { # build_kaldifeat FOLDER: compiles the wheel into FOLDER
  local tools=$1/tools cmake_files=$root/tools/setup/kaldifeat arguments
  pip_install "build tools for kaldifeat" --target "$tools" -r "$requirements/kaldifeat-build.txt"
  # kaldifeat hands these to a shell, so every path is quoted. The unity build parses torch's headers twice
  # instead of once for each of its source files, which is a fifth of the work.
  arguments="-DCMAKE_BUILD_TYPE=Release -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=32"
  arguments+=" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_POLICY_VERSION_MINIMUM=3.5"
  arguments+=" -DTorch_DIR='$cmake_files' -DFETCHCONTENT_SOURCE_DIR_PYBIND11='$cmake_files/pybind11'"
  arguments+=" -Dpybind11_DIR='$tools/pybind11/share/cmake/pybind11'"
  arguments+=" -DPYTHON_EXECUTABLE='$venv/bin/python'"
  run "compiling kaldifeat (2 to 4 minutes, once)" env \
    PYTHONPATH="$tools" PATH="$tools/bin:$venv/bin:$PATH" \
    KALDIFEAT_CMAKE_ARGS="$arguments" KALDIFEAT_MAKE_ARGS="-j$(nproc)" \
    "$venv/bin/python" -m pip --disable-pip-version-check wheel --no-input --no-cache-dir \
    --no-build-isolation --no-deps --no-binary kaldifeat --require-hashes \
    -w "$1/wheel" -r "$requirements/kaldifeat.txt"
}

kaldifeat_wheels() { # the folder of the cached wheel: named by all that the compiled code depends on
  local key
  key=$(cat "$requirements"/kaldifeat*.txt "$root"/tools/setup/kaldifeat/*.cmake \
    "$root"/tools/setup/kaldifeat/*/CMakeLists.txt | sha256sum | cut -c1-12)
  echo "$cache/kaldifeat-$key-cp311-$(grep -o '^torch==.*' "$requirements/default.txt")-$(uname -m)"
}

install_kaldifeat() {
  local folder work
  folder=$(kaldifeat_wheels)
  if ! compgen -G "$folder/kaldifeat-*.whl" >/dev/null; then
    find "$cache" -maxdepth 1 -name 'building.*' -mmin +120 -exec rm -r {} + # of interrupted runs
    work=$(mktemp -d "$cache/building.XXXXXX")
    build_kaldifeat "$work"
    mkdir -p "$folder"
    mv "$work"/wheel/kaldifeat-*.whl "$folder/"
    rm -r "$work"
  fi
  pip_install "kaldifeat" --no-deps --force-reinstall "$folder"/kaldifeat-*.whl
}

install_system_packages() { # the open corpus speaks through HTS; nothing else needs a system package
  if ldconfig -p 2>/dev/null | grep -q 'libHTSEngine\.so\.1'; then
    return
  fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    run "system package libhtsengine1" env DEBIAN_FRONTEND=noninteractive \
      sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends libhtsengine1'
  else
    echo "note: tools/make_open_corpus.py needs libHTSEngine.so.1; as root: apt-get install libhtsengine1"
  fi
}

fingerprint() { # what the environment is made of; a change means a new installation
  cat "$requirements"/*.txt "$root/pyproject.toml" "$root/tools/setup.sh" \
    "$root"/tools/setup/kaldifeat/*.cmake "$root"/tools/setup/kaldifeat/*/CMakeLists.txt | sha256sum
  echo "$lane $root"
}

check() {
  OMP_NUM_THREADS=1 DUALASR_QUIET=1 DUALASR_VENV=$venv bash -c '
    source "$1/tools/env.sh" && exec "$2/bin/python" "$1/tools/setup/check_setup.py" --lane "$3"
  ' check "$root" "$venv" "$lane"
}

install_default() {
  pip_install "packages (about 2 GB, most of it torch)" --no-deps -r "$requirements/default.txt"
  pip_install "k2" --no-deps --require-hashes -r "$requirements/k2.txt"
  install_kaldifeat
  install_system_packages
}

install_torch2() {
  pip_install "packages (most of it torch)" -r "$requirements/torch2.txt"
}

install() {
  make_venv
  pip_install "pip" -r "$requirements/bootstrap.txt"
  "install_$lane"
  pip_install "dualasr itself" --no-deps --no-build-isolation -e "$root"
}

check_machine() { # everything that can be known to be missing before anything is downloaded
  [ "$lane" = torch2 ] || check_platform
  python=$(find_python)
  mkdir -p "$cache" || fail "the folder $cache must be writable: name another one in XDG_CACHE_HOME"
  check_disk 1 "$cache"
  [ -d "$venv" ] || check_disk 8 "$root"
  [ "$lane" = torch2 ] || compgen -G "$(kaldifeat_wheels)/kaldifeat-*.whl" >/dev/null || check_compiler
}

main() {
  case "${1:-}" in
    "") ;;
    --torch2) lane=torch2 venv=$root/.venv-torch2 ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown option $1: there is only --torch2" ;;
  esac
  local stamp=$venv/dualasr-setup
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ] && check; then
    return
  fi
  rm -f "$stamp"
  check_machine
  install
  if ! check; then # damage that pip does not see, such as a deleted file: start over, once
    echo "$venv does not work and is made anew"
    rm -r "$venv"
    install
    check || fail "a package does not work: the line marked FAILED above says which"
  fi
  fingerprint >"$stamp.new" && mv "$stamp.new" "$stamp"
  echo "ready: source $venv/bin/activate"
}

main "$@"
