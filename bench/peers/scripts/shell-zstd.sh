# shell, tar.zst, sync -f
# needs: curl=curl sha256sum=coreutils tar=tar zstd=zstd
# durable: sync of one file system, before and after the link is replaced

version() { curl --version | head -n 1 | cut -d ' ' -f 1,2; echo "zstd $(zstd -qV)"; }

make() { ln "$ZST" "$WWW/payload.tar.zst" && sha256sum <"$ZST" | cut -d ' ' -f 1 >"$DIR/sum"; }

prepare() { old_version; }

install() {
	cd "$TARGET"
	curl -sSf --cacert "$CA" -o download "$URL/payload.tar.zst"
	echo "$(cat "$DIR/sum")  download" | sha256sum -c --quiet
	mkdir versions/new
	zstd -qdc download | tar -xf - -C versions/new
	rm download
	sync -f versions
	mv versions/new versions/1.1.0
	ln -s versions/1.1.0 current.new
	mv -T current.new current
	sync -f versions
}
