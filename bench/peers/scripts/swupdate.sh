# SWUpdate, archive installed directly from the stream
# needs: swupdate=swupdate cpio=cpio openssl=openssl
# root
# durable: sync of one file system, before and after the link is replaced

version() { dpkg-query -W -f 'swupdate ${Version}\n' swupdate 2>/dev/null || swupdate --version 2>&1 | head -n 1; }

make() {
	cd "$DIR"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=bench -days 3650 -addext extendedKeyUsage=emailProtection 2>/dev/null
	ln "$GZ" payload.tar.gz
	cat >sw-description <<-END
		software = {
			version = "1.1.0";
			hardware-compatibility = [ "1.0" ];
			files: ( {
				filename = "payload.tar.gz"; type = "archive"; path = "$TARGET/versions/new";
				installed-directly = true; sha256 = "$(sha256sum <"$GZ" | cut -d ' ' -f 1)";
			} );
		}
	END
	openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER -nosmimecap -binary
	printf '%s\n' sw-description sw-description.sig payload.tar.gz | cpio -o -H crc --quiet >"$WWW/update.swu"
}

prepare() { old_version; }

install() {
	cd "$TARGET"
	mkdir versions/new
	swupdate -M -m -H bench:1.0 -k "$DIR/cert.pem" -l 1 -d "-u $URL/update.swu"
	sync -f versions
	mv versions/new versions/1.1.0
	ln -s versions/1.1.0 current.new
	mv -T current.new current
	sync -f versions
}
