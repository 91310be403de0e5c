#!/usr/bin/env bash
# What the tests need beside Python: each missing program is named, and installed where we are root on Debian or Ubuntu.
set -euo pipefail

declare -A package=(
  [dockerd]=docker.io [nft]=nftables [iptables]=iptables [iptables-legacy]=iptables [ipset]=ipset [ip]=iproute2 [mmdebstrap]=mmdebstrap [dig]=dnsutils
  [curl]=curl [git]=git [nsenter]=util-linux [setpriv]=util-linux [pasta]=passt [slirp4netns]=slirp4netns [npm]=npm
  [ping]=iputils-ping [/usr/bin/python3]=python3
)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing what the tests need: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "error: the tests need these packages: ${missing[*]}" >&2
  exit 3
fi
