# Runtime settings of every dualasr program; shell scripts source this file:  source tools/env.sh
#
# Nothing that is already set is changed, so each line can be overridden from outside, for example
# OMP_NUM_THREADS=1 egs/csj/demo.sh. One line on stderr says what was set; DUALASR_QUIET=1 silences it.
#
#   DUALASR_VENV              environment whose programs come first on PATH; default: .venv of this clone
#   OMP_, MKL_NUM_THREADS     threads of one process, all cores but at most 8: never left to a guess
#   MKL_DEBUG_CPU_TYPE=5      only on AMD: torch 1.13.1's MKL (2020.0) else takes a path about 3 times slower
#                             there; newer MKLs ignore it
#   MALLOC_*_THRESHOLD_       glibc keeps large blocks instead of returning them to the system after each
#                             tensor: no page faults, for 25-40 % more memory
#   THP_MEM_ALLOC_ENABLE=1    torch asks for huge pages for large tensors
#   LC_ALL, PYTHONUTF8        transcripts are UTF-8 whatever the user's locale: lhotse reads some files in it

_dualasr_set() { # name value: exports the variable unless it is set already, and remembers what it did
  if [ -z "${!1+set}" ]; then
    export "$1=$2"
    _dualasr_done="${_dualasr_done:-} $1=$2"
  fi
}

_dualasr_cores() {
  local cores
  cores=$(nproc 2>/dev/null || echo 1)
  echo $((cores < 8 ? cores : 8))
}

_dualasr_env() {
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  export DUALASR_VENV="${DUALASR_VENV:-$root/.venv}"
  case ":$PATH:" in
    *":$DUALASR_VENV/bin:"*) ;;
    *) export PATH="$DUALASR_VENV/bin:$PATH" ;;
  esac
  _dualasr_set OMP_NUM_THREADS "$(_dualasr_cores)"
  _dualasr_set MKL_NUM_THREADS "$OMP_NUM_THREADS"
  if grep -qs AuthenticAMD /proc/cpuinfo; then
    _dualasr_set MKL_DEBUG_CPU_TYPE 5
  fi
  _dualasr_set MALLOC_MMAP_THRESHOLD_ 100000000000
  _dualasr_set MALLOC_TRIM_THRESHOLD_ 100000000000
  _dualasr_set THP_MEM_ALLOC_ENABLE 1
  _dualasr_set LC_ALL C.UTF-8
  _dualasr_set PYTHONUTF8 1
  if [ -n "${_dualasr_done:-}" ] && [ -z "${DUALASR_QUIET:-}" ]; then
    echo "env.sh set${_dualasr_done} (set them yourself to override)" >&2
  fi
}

_dualasr_env
unset -f _dualasr_env _dualasr_set _dualasr_cores
unset _dualasr_done
