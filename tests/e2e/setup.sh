#!/usr/bin/env bash
# Installs what building and the real-world tests need and is missing: a C compiler, browsers, media tools, a homeserver, the
# callers' libraries. Quick when all is there. Needs Rust, Node.js 20, Python 3.11 and, for what is missing, apt.
set -euo pipefail
cd "$(dirname "$0")"
root="$(cd ../.. && pwd)"

declare -A package_of=(
  [chromium]=chromium [firefox-esr]=firefox-esr [ffmpeg]=ffmpeg [ffprobe]=ffmpeg
  [promtool]=prometheus [turnserver]=coturn [mkvmerge]=mkvtoolnix [systemd-analyze]=systemd
  [cc]=build-essential [cmake]=cmake
)
missing=()
for command in "${!package_of[@]}"; do
  command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
# Debian keeps a part of Python's venv module in a package of its own.
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  echo "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  # A package's own service must not start: tests bring up what they need on ports of their own.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

venv="$root/.cache/synapse-venv"
if ! cmp -s requirements.txt "$venv/installed.txt"; then
  echo "installing Synapse into .cache/synapse-venv"
  mkdir -p "$root/.cache"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt "$venv/installed.txt"
fi

if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
  echo "installing the callers' libraries"
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed-lock.json
fi
