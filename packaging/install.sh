#!/bin/sh
# Downloads edge-agent, verifies it, and runs `edge-agent install`. The release workflow
# replaces the words between @ signs, so that a release's copy installs that release:
#
#	sh install.sh --device-type edge --manager wss://manager.example:8443 --token-file token
#
# If cosign is installed, it verifies the signer and the transparency log. Otherwise the
# script compares the digest below. edge-agent then verifies the release again before it
# installs it.
set -eu
umask 022
export PATH="$PATH:/usr/sbin:/sbin"

repository=${EDGE_AGENT_REPOSITORY:-@REPOSITORY@}
workflow=${EDGE_AGENT_WORKFLOW:-@WORKFLOW@}
version=${EDGE_AGENT_VERSION:-@VERSION@}
# SHA-256 of the tarballs of that version, written by the publisher.
sha256_x86_64=${EDGE_AGENT_SHA256:-@SHA256_X86_64@}
sha256_aarch64=${EDGE_AGENT_SHA256:-@SHA256_AARCH64@}
base=${EDGE_AGENT_BASE:-https://github.com/$repository/releases/download/v$version}

fail() {
	printf 'install.sh: %s\n' "$*" >&2
	exit 1
}

case $repository$version in
*@*) fail "this is a template; use the install.sh of a release, or set EDGE_AGENT_REPOSITORY and EDGE_AGENT_VERSION" ;;
esac
[ "$(id -u)" = 0 ] || fail "run it as root"
case $(uname -m) in
x86_64) arch=x86_64-linux pinned=$sha256_x86_64 ;;
aarch64) arch=aarch64-linux pinned=$sha256_aarch64 ;;
*) fail "no release for $(uname -m)" ;;
esac

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
name=${repository##*/}-$version-$arch-default.tar.gz
fetch() { curl --proto =https --tlsv1.2 --fail --silent --show-error --location --max-filesize 1073741824 --output "$dir/$1" "$base/$1" || fail "cannot fetch $base/$1"; }
fetch "$name"
sum=$(sha256sum "$dir/$name")
sum=${sum%% *}

if command -v cosign >/dev/null; then
	fetch manifest.json
	fetch manifest.sig.bundle
	# shellcheck disable=SC2086
	cosign verify-blob --bundle "$dir/manifest.sig.bundle" ${EDGE_AGENT_TRUSTED_ROOT:+--trusted-root "$EDGE_AGENT_TRUSTED_ROOT"} \
		--certificate-oidc-issuer https://token.actions.githubusercontent.com \
		--certificate-identity "https://github.com/$repository/$workflow@refs/tags/v$version" "$dir/manifest.json" ||
		fail "manifest.json was not signed by the release workflow of $repository"
	grep -qF "\"$sum\"" "$dir/manifest.json" || fail "$name is not the tarball that was signed"
else
	[ "$sum" = "$pinned" ] || fail "$name has the SHA-256 $sum, not $pinned"
fi

tar -xzf "$dir/$name" -C "$dir" edge-agent
"$dir/edge-agent" install "$version" "$@"
