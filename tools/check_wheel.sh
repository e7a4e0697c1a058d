#!/usr/bin/env bash
# Builds the wheel, installs dualasr[recognise] into a clean environment outside the checkout, and uses it there.
#
#   tools/check_wheel.sh                         the entry points, the names for users, what was installed, the model that comes along
#   tools/check_wheel.sh AUDIO                   the same, then recognises AUDIO with that model, from Python, by program and by dualasr-serve
#   tools/check_wheel.sh AUDIO DIR               the same, then by dualasr-serve without torch, from what dualasr-export --format runtime wrote
#
# Needs the network, or pip's cache: torch alone is 200 MB (CPU) to 3 GB (PyPI's, with CUDA). pip's own variables choose,
# e.g. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu. PYTHON names another python than python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -le 2 ] || { echo "check_wheel.sh: give one audio file and a set for the runtime, or nothing" >&2; exit 2; }
[ $# = 0 ] || [ -f "$1" ] || { echo "check_wheel.sh: $1 does not exist" >&2; exit 2; }
[ $# -le 1 ] || [ -f "$2/runtime.json" ] || { echo "check_wheel.sh: $2 is no set for the runtime" >&2; exit 2; }
audio=${1:+$(realpath "$1")} set=${2:+$(realpath "$2")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH VIRTUAL_ENV
python=$work/venv/bin/python

step() { # step TITLE COMMAND ...: runs it, says how long it took; shows what it wrote if it fails
  local title=$1 start=$SECONDS
  shift
  if ! "$@" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "check_wheel.sh: $title failed" >&2
    exit 1
  fi
  printf '%-44s %4d s\n' "$title" $((SECONDS - start))
}

build() { # from a copy of the files that git knows: nothing is left in the checkout, nothing else gets in
  mkdir "$work/source" "$work/wheel"
  (cd "$root" && git ls-files -z dualasr_lib pyproject.toml README.md LICENSE | tar -c --null -T -) | tar -x -C "$work/source"
  "$python" -m pip wheel --quiet --no-deps -w "$work/wheel" "$work/source"
}

scripts() { # the entry points of the wheel
  "$python" -c 'from importlib.metadata import distribution as d
print(*(e.name for e in d("dualasr").entry_points if e.group == "console_scripts"))'
}

help_of_all() {
  for name in $(scripts); do
    "$work/venv/bin/$name" --help | grep -q "^usage: $name"
    "$work/venv/bin/$name" --version
  done
}

shipped() { # the model of the wheel, byte by byte that of the checkout; shown without torch
  local name=recognition/default.dualasr
  cmp "$root/dualasr_lib/$name" "$("$python" -c 'from dualasr_lib.recognition.default import default_bundle
print(default_bundle())')"
  "$work/venv/bin/dualasr-bundle" --show
}

says() { # says WORDS COMMAND ...: the command fails, and its last line has the words
  local words=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "$* must fail, but did not"
    return 1
  fi
  echo "${said##*$'\n'}"
  case ${said##*$'\n'} in *"$words"*) ;; *) return 1 ;; esac
}

missing() { # each program without its libraries names the extra to install
  says "dualasr[recognise]" "$work/venv/bin/dualasr-transcribe" "$root/README.md"
  says "dualasr[recognise]" "$work/venv/bin/dualasr-bundle" exp --data-dir data --out x.dualasr
  says "dualasr[export]" "$work/venv/bin/dualasr-export" --bundle "$model" --out export
  says "dualasr[serve]" "$work/venv/bin/dualasr-serve" --port 0
}

missing_beside_recognise() {
  says "dualasr[export]" "$work/venv/bin/dualasr-export" --bundle "$model" --out export
  says "dualasr[serve]" "$work/venv/bin/dualasr-serve" --port 0
}

complete() { # what was brought is what is needed: nothing is missing, and nothing of training
  "$python" -m pip check
  "$python" - <<'END'
from importlib.util import find_spec
import dualasr_lib
for name in dualasr_lib.__all__:
    getattr(dualasr_lib, name)
for module in ("sentencepiece", "soundfile", "soxr", "kaldi_native_fbank"):
    assert find_spec(module), f"{module} is missing"
for module in ("lhotse", "tensorboard", "matplotlib", "k2", "pytest"):
    assert not find_spec(module), f"{module} was installed, too"
assert "site-packages" in dualasr_lib.__file__, dualasr_lib.__file__
from dualasr_lib.features.fbank import Fbank, FbankConfig
import torch
assert Fbank(FbankConfig())(torch.zeros(16000)).shape == (100, 80)
END
}

three_lines() {
  "$python" - "$audio" <<'END'
import sys
import soundfile
from dualasr_lib import Recogniser
audio, rate = soundfile.read(sys.argv[1])
recogniser = Recogniser.load()
print(recogniser.transcribe(audio, rate).text)
END
}

serves() { # serves VENV OPTION ...: the server of an environment says that it is well, has its page, and writes the words of a form
  "$1/bin/python" - "$audio" "$@" <<'END'
import json, re, subprocess, sys, time
from urllib.request import Request, urlopen
audio, venv, *options = sys.argv[1:]
begun = time.monotonic()
server = subprocess.Popen([f"{venv}/bin/dualasr-serve", "--port", "0", *options], stderr=subprocess.PIPE, text=True)
try:
    told = ""
    while not (port := re.search(r"listening at (http://.*/)", told)):
        line = server.stderr.readline()
        assert line, told
        told += line
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + open(audio, "rb").read() + b"\r\n--x--\r\n"
    health = json.loads(urlopen(port[1] + "health", timeout=60).read())
    assert health["status"] == "ok", health
    assert b"page.js" in urlopen(port[1], timeout=60).read()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    text = urlopen(Request(port[1] + "transcribe?format=text", form, kind), timeout=600).read().decode()
    assert text.strip()
    print(f"first text after {time.monotonic() - begun:.1f} s:", text.strip())
finally:
    server.terminate()
    assert server.wait(60) == 0
END
}

cd "$work" # away from the checkout, which python would find first
step "clean environment" "${PYTHON:-python3}" -m venv "$work/venv"
step "wheel" build
wheel=$(ls "$work"/wheel/dualasr-*.whl)
echo "$(basename "$wheel")  $(du -k "$wheel" | cut -f1) kB"
step "install, nothing else" "$python" -m pip install --quiet --no-deps "$wheel"
step "--help and --version of $(scripts), without torch" help_of_all
step "the model that comes along" shipped
tail -n +2 "$work/log" | cut -c1-160
step "install with its dependencies" "$python" -m pip install --quiet "$wheel"
model=$root/dualasr_lib/recognition/default.dualasr
step "what is missing is said" missing
cat "$work/log"
step "install dualasr[recognise]" "$python" -m pip install --quiet "$wheel[recognise]"
step "what was installed is what is needed" complete
step "what is still missing is said" missing_beside_recognise
cat "$work/log"
"$python" -m pip list --format=freeze | tr '\n' ' '
echo
du -sm "$work/venv" | awk '{ print $1 " MB" }'
if [ -n "$audio" ]; then
  step "three lines of Python" three_lines
  tail -n 3 "$work/log"
  step "dualasr-transcribe --two-pass" "$work/venv/bin/dualasr-transcribe" --two-pass "$audio"
  tail -n 3 "$work/log"
  step "install dualasr[serve]" "$python" -m pip install --quiet "$wheel[serve]"
  step "dualasr-serve" serves "$work/venv"
  tail -n 3 "$work/log"
fi
if [ -n "$set" ]; then
  step "clean environment" "${PYTHON:-python3}" -m venv "$work/light"
  step "install dualasr[runtime,web]" "$work/light/bin/python" -m pip install --quiet "$wheel[runtime,web]"
  du -sm "$work/light" | awk '{ print $1 " MB" }'
  [ ! -d "$(echo "$work"/light/lib/python*/site-packages)/torch" ] || { echo "check_wheel.sh: torch was installed, too" >&2; exit 1; }
  step "dualasr-serve --bundle $(basename "$set"), without torch" serves "$work/light" --bundle "$set"
  tail -n 3 "$work/log"
fi
echo "the wheel is good"
