#!/usr/bin/env bash
# Installs what the browser tests need of Debian, where it is missing.
set -euo pipefail

missing=()
need() { # command, package
    command -v "$1" > /dev/null || missing+=("$2")
}
need chromium chromium
need openssl openssl
# Without a font Chromium draws, and measures, nothing.
need fc-list fontconfig
fc-list 2> /dev/null | grep -q . || missing+=(fonts-liberation)
python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo > /dev/null; then
    as_root=(sudo)
else
    echo "install these packages first: ${missing[*]}" >&2
    exit 1
fi
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
