# shell, tar.gz
# needs: curl=curl sha256sum=coreutils tar=tar gzip=gzip
# durable: sync of every file system, before and after the link is replaced

version() { curl --version | head -n 1 | cut -d ' ' -f 1,2; tar --version | head -n 1; }

make() { ln "$GZ" "$WWW/payload.tar.gz" && sha256sum <"$GZ" | cut -d ' ' -f 1 >"$DIR/sum"; }

prepare() { old_version; }

install() {
	cd "$TARGET"
	curl -sSf --cacert "$CA" -o download "$URL/payload.tar.gz"
	echo "$(cat "$DIR/sum")  download" | sha256sum -c --quiet
	mkdir versions/new
	tar -xzf download -C versions/new
	sync
	mv versions/new versions/1.1.0
	ln -s versions/1.1.0 current.new
	mv -T current.new current
	rm download
	sync
}
