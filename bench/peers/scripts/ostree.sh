# OSTree, pull and checkout
# needs: ostree=ostree
# durable: by OSTree for its objects; then sync of one file system
# No signature is checked, only the digests of the objects.

version() { echo "ostree $(ostree --version | sed -n "s/.*Version: '\(.*\)'/\1/p")"; }

make() {
	ostree init --repo="$WWW/repo" --mode=archive
	ostree commit --repo="$WWW/repo" -b bench --tree=dir="$TREE" --owner-uid=0 --owner-gid=0 >/dev/null
	ostree summary --repo="$WWW/repo" -u
}

prepare() {
	old_version
	ostree init --repo="$TARGET/repo" --mode=bare-user-only
	ostree remote add --repo="$TARGET/repo" --no-gpg-verify --set=tls-ca-path="$CA" host "$URL/repo" bench
}

install() {
	cd "$TARGET"
	ostree pull --repo=repo host bench
	ostree checkout --repo=repo -U -H --fsync=true host:bench versions/1.1.0
	ln -s versions/1.1.0 current.new
	sync -f versions
	mv -T current.new current
	sync -f versions
}
